//! Searches for bytes and short texts.
//!
//! On x86-64, those of `memchr` first find out whether the processor has wider vectors, which costs
//! a process some 50 µs in a virtual machine: as much as to search half a megabyte. So those are
//! used that every processor has.

use std::borrow::Cow;

use memchr::memmem;

pub(crate) use bytes::{byte, either, last_byte};

#[cfg(target_arch = "x86_64")]
mod bytes {
    use memchr::arch::x86_64::sse2::memchr::{One, Two};

    /// The first of these bytes in a text.
    #[inline]
    pub(crate) fn byte(byte: u8, text: &[u8]) -> Option<usize> {
        match One::new(byte) {
            Some(one) => one.find(text),
            None => memchr::memchr(byte, text),
        }
    }

    /// The last of these bytes in a text.
    #[inline]
    pub(crate) fn last_byte(byte: u8, text: &[u8]) -> Option<usize> {
        match One::new(byte) {
            Some(one) => one.rfind(text),
            None => memchr::memrchr(byte, text),
        }
    }

    /// The first of two bytes in a text.
    #[inline]
    pub(crate) fn either(one: u8, other: u8, text: &[u8]) -> Option<usize> {
        match Two::new(one, other) {
            Some(two) => two.find(text),
            None => memchr::memchr2(one, other, text),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod bytes {
    pub(crate) use memchr::{memchr as byte, memchr2 as either, memrchr as last_byte};
}

/// Finds a text in others.
#[derive(Debug, Clone)]
pub(crate) struct Finder<'a> {
    needle: Cow<'a, [u8]>,
    by: By,
}

#[derive(Debug, Clone)]
enum By {
    /// Compares at each place that has two of its bytes.
    #[cfg(target_arch = "x86_64")]
    Pair(memchr::arch::x86_64::sse2::packedpair::Finder),
    Any(Box<memmem::Finder<'static>>),
}

/// The time to search for a longer one could grow with both lengths.
#[cfg(target_arch = "x86_64")]
const SHORT_BYTES: usize = 64;

impl<'a> Finder<'a> {
    pub(crate) fn new(needle: impl Into<Cow<'a, [u8]>>) -> Self {
        let needle = needle.into();
        #[cfg(target_arch = "x86_64")]
        if needle.len() <= SHORT_BYTES
            && let Some(pair) = memchr::arch::x86_64::sse2::packedpair::Finder::new(&needle)
        {
            let by = By::Pair(pair);
            return Self { needle, by };
        }
        let by = By::Any(Box::new(memmem::Finder::new(&needle).into_owned()));
        Self { needle, by }
    }

    pub(crate) fn needle(&self) -> &[u8] {
        &self.needle
    }

    /// Where it is first.
    #[inline]
    pub(crate) fn find(&self, text: &[u8]) -> Option<usize> {
        match &self.by {
            #[cfg(target_arch = "x86_64")]
            By::Pair(pair) if text.len() >= pair.min_haystack_len() => {
                pair.find(text, &self.needle)
            }
            #[cfg(target_arch = "x86_64")]
            By::Pair(_) => {
                let mut places = text.windows(self.needle.len());
                places.position(|place| place == &*self.needle)
            }
            By::Any(finder) => finder.find(text),
        }
    }

    /// All places where it is; they do not overlap.
    pub(crate) fn find_iter<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = usize> + 't {
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = from + self.find(text.get(from..)?)?;
            from = at + self.needle.len().max(1);
            Some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_found_is_the_first_and_the_last(
            text in proptest::collection::vec(b'a'..=b'c', 0..200),
            needle in proptest::collection::vec(b'a'..=b'c', 0..5),
            long in proptest::collection::vec(b'a'..=b'b', 60..70),
        ) {
            let place = |wanted: &[u8]| text.iter().position(|byte| wanted.contains(byte));
            prop_assert_eq!(byte(b'c', &text), place(b"c"));
            prop_assert_eq!(either(b'c', b'b', &text), place(b"bc"));
            let last = text.iter().rposition(|byte| *byte == b'c');
            prop_assert_eq!(last_byte(b'c', &text), last);
            let text = [&text[..], &long, &needle, &text].concat();
            for needle in [needle, long] {
                let all = memmem::find_iter(&text, &needle);
                let all: Vec<_> = all.collect();
                for finder in [Finder::new(needle.clone()), Finder::new(&needle[..])] {
                    prop_assert_eq!(finder.find(&text), all.first().copied());
                    let found: Vec<_> = finder.find_iter(&text).collect();
                    prop_assert_eq!(&found, &all);
                }
            }
        }
    }
}

//! The page of memory that the processes of a simulated machine share.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use strand_lock::SharedPage;

use crate::sim::image::Digest;

/// The length of a page in words of 64 bits.
const WORDS: usize = SharedPage::BYTES / 8;

/// The length of the area behind it, with four slots.
const AREA_WORDS: usize = 256 + 4 * 256;

/// The content of a shared page's file at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct PageContent {
    /// The words of the page. After the wide ones, the narrow ones in pairs.
    words: Vec<u64>,
    /// The area behind it, up to the last word that is not zero. No part of the file's bytes here.
    area: Vec<u64>,
    /// The file's length. Only damage makes it another than the page's.
    len_bytes: usize,
    /// The bytes after the page.
    rest: Vec<u8>,
}

impl Default for PageContent {
    fn default() -> Self {
        Self::from_bytes(&[0; SharedPage::BYTES])
    }
}

impl fmt::Debug for PageContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self
            .words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0);
        let values = words.map(|(index, word)| (index, word >> 16));
        f.debug_map().entries(values).finish()
    }
}

impl PageContent {
    /// The content of a file with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (page, rest) = bytes
            .split_at_checked(SharedPage::BYTES)
            .unwrap_or((bytes, &[]));
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word.iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        let mut words: Vec<u64> = page.chunks(8).map(word).collect();
        words.resize(WORDS, 0);
        Self {
            words,
            area: Vec::new(),
            len_bytes: bytes.len(),
            rest: rest.to_vec(),
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let page = self.words.iter().flat_map(|word| word.to_le_bytes());
        let bytes = page.chain(self.rest.iter().copied());
        bytes.take(self.len_bytes).collect()
    }

    /// A number for all words but the leader's. That word only says that there is a leader; which
    /// thread it is depends on what else runs.
    pub(crate) fn digest(&self) -> u128 {
        const LEADER: usize = 24;
        let mut digest = Digest::default();
        for (index, word) in self.words.iter().enumerate() {
            digest.word(if index == LEADER {
                u64::from(*word != 0)
            } else {
                *word
            });
        }
        self.area.iter().for_each(|word| digest.word(*word));
        digest.end()
    }

    /// The durable sequence number in the page; 0 for none. See `docs/FORMAT.md`, section 8.
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        const DURABLE: usize = 16;
        self.words.get(DURABLE).copied().unwrap_or(0) >> 16
    }
}

/// The mapped page.
#[derive(Debug)]
pub(super) struct Words {
    wide: Vec<AtomicU64>,
    narrow: Vec<AtomicU32>,
    area: Vec<AtomicU64>,
    len_bytes: AtomicUsize,
    rest: Vec<u8>,
}

impl Words {
    pub(super) fn new(content: &PageContent) -> Self {
        let (wide, narrow) = content
            .words
            .split_at_checked(SharedPage::U64_WORDS)
            .unwrap_or_default();
        let halves = narrow.iter().flat_map(|word| [*word, *word >> 32]);
        let halves = halves.map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
        Self {
            wide: wide.iter().copied().map(AtomicU64::new).collect(),
            narrow: halves.map(AtomicU32::new).collect(),
            area: {
                let words = content.area.iter().copied().chain(std::iter::repeat(0));
                words.take(AREA_WORDS).map(AtomicU64::new).collect()
            },
            len_bytes: AtomicUsize::new(content.len_bytes),
            rest: content.rest.clone(),
        }
    }

    pub(super) fn wide(&self, index: usize) -> Option<&AtomicU64> {
        self.wide.get(index)
    }

    pub(super) fn narrow(&self, index: usize) -> Option<&AtomicU32> {
        self.narrow.get(index)
    }

    pub(super) fn area(&self) -> &[AtomicU64] {
        &self.area
    }

    /// Clears the page, but not the area behind it.
    pub(super) fn clear(&self) {
        self.wide
            .iter()
            .for_each(|word| word.store(0, Ordering::SeqCst));
        self.narrow
            .iter()
            .for_each(|word| word.store(0, Ordering::SeqCst));
    }

    /// The length of the file, after `lengthen` made it at least as long as the page.
    pub(super) fn len_bytes(&self, lengthen: bool) -> usize {
        let least = if lengthen { SharedPage::BYTES } else { 0 };
        self.len_bytes
            .fetch_max(least, Ordering::Relaxed)
            .max(least)
    }

    pub(super) fn content(&self) -> PageContent {
        let wide = self.wide.iter().map(|word| word.load(Ordering::SeqCst));
        let narrow = self.narrow.as_chunks::<2>().0.iter().map(|pair| {
            let [low, high] = pair.each_ref().map(|word| word.load(Ordering::SeqCst));
            u64::from(low) | u64::from(high) << 32
        });
        let mut words = Vec::with_capacity(WORDS);
        words.extend(wide.chain(narrow));
        let area = self.area.iter().map(|word| word.load(Ordering::SeqCst));
        let mut area: Vec<u64> = area.collect();
        let used = area.iter().rposition(|word| *word != 0);
        area.truncate(used.map_or(0, |last| last + 1));
        PageContent {
            words,
            area,
            len_bytes: self.len_bytes.load(Ordering::Relaxed),
            rest: self.rest.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_words_of_its_file_and_lengthening_keeps_them() {
        let mut bytes = vec![0; SharedPage::BYTES + 3];
        bytes[16 * 8..][..8].copy_from_slice(&(7_u64 << 16).to_le_bytes());
        bytes[SharedPage::BYTES / 2 + 4] = 9;
        let content = PageContent::from_bytes(&bytes);
        let words = Words::new(&content);
        assert_eq!(content.durable_seq(), 7);
        assert_eq!(words.narrow(1).unwrap().load(Ordering::SeqCst), 9);
        assert_eq!(words.content(), content);
        assert_eq!(content.to_bytes(), bytes);

        let short = Words::new(&PageContent::from_bytes(&bytes[..200]));
        assert_eq!(short.content().to_bytes(), bytes[..200]);
        assert_eq!(short.len_bytes(false), 200);
        assert_eq!(short.len_bytes(true), SharedPage::BYTES);
        assert_eq!(short.content().durable_seq(), 7);
    }
}

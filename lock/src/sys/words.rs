use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU32, AtomicU64},
};

use memmap2::{MmapOptions, MmapRaw};

pub(crate) const PAGE_BYTES: usize = 4096;
pub(crate) const U64_WORDS: usize = PAGE_BYTES / 2 / size_of::<AtomicU64>();
pub(crate) const U32_WORDS: usize = PAGE_BYTES / 2 / size_of::<AtomicU32>();

const _: () =
    assert!(U64_WORDS * size_of::<AtomicU64>() + U32_WORDS * size_of::<AtomicU32>() == PAGE_BYTES);
const _: () = assert!(PAGE_BYTES.is_multiple_of(align_of::<AtomicU64>()));

/// A mapped page, seen as atomics: 64-bit words in the first half, 32-bit words in the second.
#[derive(Debug)]
pub(crate) struct Words {
    map: MmapRaw,
}

impl Words {
    /// Maps the first page of a file that is at least a page long.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        Ok(Self {
            map: MmapOptions::new().len(PAGE_BYTES).map_raw(file)?,
        })
    }

    /// As [`Words::map`], for looking only: a store to one of its words ends the process.
    /// `SharedPageReader` hands out values and never the atomics.
    pub(crate) fn map_read_only(file: &File) -> io::Result<Self> {
        Ok(Self {
            map: MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(file)?,
        })
    }

    pub(crate) fn u64(&self, index: usize) -> &AtomicU64 {
        assert!(
            index < U64_WORDS,
            "the page has {U64_WORDS} 64-bit words, not {index}"
        );
        let word = self
            .map
            .as_mut_ptr()
            .wrapping_add(index * size_of::<AtomicU64>());
        // SAFETY: `word` lies in the mapping, which lives as long as `self`, and is aligned, since
        // mappings begin at a page border. All accesses to these bytes, in every process, are atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    pub(crate) fn u32(&self, index: usize) -> &AtomicU32 {
        assert!(
            index < U32_WORDS,
            "the page has {U32_WORDS} 32-bit words, not {index}"
        );
        let word = self
            .map
            .as_mut_ptr()
            .wrapping_add(PAGE_BYTES / 2 + index * size_of::<AtomicU32>());
        // SAFETY: as in `u64`; the halves of the page do not overlap.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }
}

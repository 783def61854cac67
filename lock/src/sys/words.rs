use std::{
    fs::File,
    io, slice,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

use super::fault::Guarded;

pub(crate) const PAGE_BYTES: usize = 4096;
pub(crate) const U64_WORDS: usize = PAGE_BYTES / 2 / size_of::<AtomicU64>();
pub(crate) const U32_WORDS: usize = PAGE_BYTES / 2 / size_of::<AtomicU32>();

const _: () =
    assert!(U64_WORDS * size_of::<AtomicU64>() + U32_WORDS * size_of::<AtomicU32>() == PAGE_BYTES);
const _: () = assert!(PAGE_BYTES.is_multiple_of(align_of::<AtomicU64>()));

/// A mapped page, seen as atomics: 64-bit words in the first half, 32-bit words in the second.
/// Behind it there can be an area of 64-bit words.
#[derive(Debug)]
pub(crate) struct Words {
    /// Before the mapping, so that it is dropped first.
    guarded: Guarded,
    map: MmapRaw,
    /// The length of the area in words.
    area: usize,
}

impl Words {
    /// Maps the first page of a file, and the area behind it. The file is at least that long.
    pub(crate) fn map(file: &File, area_words: usize) -> io::Result<Self> {
        let bytes = PAGE_BYTES + area_words * size_of::<AtomicU64>();
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Self::guard(map, true, area_words)
    }

    /// As [`Words::map`], but read-only: a store to one of its words kills the process, so
    /// `SharedPageReader` hands out values and never the atomics.
    pub(crate) fn map_read_only(file: &File) -> io::Result<Self> {
        let map = MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(file)?;
        Self::guard(map, false, 0)
    }

    fn guard(map: MmapRaw, writable: bool, area_words: usize) -> io::Result<Self> {
        let guarded = Guarded::new(map.as_mut_ptr(), map.len(), writable)?;
        Ok(Self {
            guarded,
            map,
            area: area_words,
        })
    }

    pub(crate) fn area_words(&self) -> usize {
        self.area
    }

    /// Whether the system could not provide the file's page, and this process now uses one of its
    /// own.
    pub(crate) fn is_lost(&self) -> bool {
        self.guarded.is_lost()
    }

    /// Takes the file's page again after it was lost; false if that is not possible yet. See
    /// [`Guarded::map_again`] for when this is allowed.
    pub(crate) fn regain(&self, file: &File) -> bool {
        self.guarded.map_again(file);
        self.is_changeable()
    }

    /// Makes the page one that can be changed now, if the system can.
    pub(crate) fn is_changeable(&self) -> bool {
        self.u64(0).fetch_or(0, Ordering::Relaxed);
        !self.is_lost()
    }

    pub(crate) fn u64(&self, index: usize) -> &AtomicU64 {
        assert!(
            index < U64_WORDS,
            "the page has {U64_WORDS} 64-bit words, not {index}"
        );
        let offset = index * size_of::<AtomicU64>();
        let word = self.map.as_mut_ptr().wrapping_add(offset);
        // SAFETY: `word` is in the mapping, which lives as long as `self`, and is aligned, since
        // mappings begin at a page boundary. Every process accesses these bytes atomically.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    pub(crate) fn u32(&self, index: usize) -> &AtomicU32 {
        assert!(
            index < U32_WORDS,
            "the page has {U32_WORDS} 32-bit words, not {index}"
        );
        let offset = PAGE_BYTES / 2 + index * size_of::<AtomicU32>();
        let word = self.map.as_mut_ptr().wrapping_add(offset);
        // SAFETY: as in `u64`; the halves of the page do not overlap.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }

    pub(crate) fn area(&self) -> &[AtomicU64] {
        let words = self.map.as_mut_ptr().wrapping_add(PAGE_BYTES);
        // SAFETY: as in `u64`; the area begins behind the page, and `map` has mapped all of it.
        unsafe { slice::from_raw_parts(words.cast(), self.area) }
    }
}

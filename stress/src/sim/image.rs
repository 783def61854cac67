//! The content of a disk that no process uses: files and directories, and a digest to compare them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The files of a disk with their bytes, and its directories.
///
/// Paths are relative to the root, with `/` between their parts. Copies share the bytes, so an
/// image is cheap to clone and to change in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The files.
    pub files: BTreeMap<Arc<str>, Arc<Vec<u8>>>,
    /// The directories, without the root.
    pub dirs: BTreeSet<Arc<str>>,
}

impl Image {
    /// The bytes of a file, if it exists.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|bytes| bytes.as_slice())
    }

    /// Creates or replaces a file.
    pub fn put(&mut self, path: &str, bytes: impl Into<Arc<Vec<u8>>>) {
        self.files.insert(path.into(), bytes.into());
    }

    /// A number for the content. Different images have different numbers, up to chance.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        for dir in &self.dirs {
            digest.add(dir.as_bytes());
        }
        digest.add(&[]);
        for (path, bytes) in &self.files {
            digest.add(path.as_bytes());
            digest.add(bytes);
        }
        digest.end()
    }

    /// Writes the files below an existing directory of the real disk.
    ///
    /// # Errors
    /// The system's; the files written before it stay.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        for path in &self.dirs {
            std::fs::create_dir_all(dir.join(&**path))?;
        }
        self.files
            .iter()
            .try_for_each(|(path, bytes)| std::fs::write(dir.join(&**path), &**bytes))
    }
}

/// Two 64-bit sums over pieces of bytes. Fast, but no defence against an adversary.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    sums: [u64; 2],
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            sums: [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93],
        }
    }
}

impl Digest {
    pub(crate) fn word(&mut self, word: u64) {
        let [a, b] = &mut self.sums;
        *a = (*a ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        *a ^= *a >> 32;
        *b = (b.rotate_left(29) ^ word).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    }

    /// Adds bytes and their number.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    pub(crate) fn end(mut self) -> u128 {
        self.word(0);
        let [a, b] = self.sums;
        u128::from(a) << 64 | u128::from(b ^ (b >> 31))
    }
}

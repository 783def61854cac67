/// The system's view of an open file.
pub(crate) struct FileState {
    pub(crate) len_bytes: u64,
    /// Whether any disk space is allocated: false for a file that was only lengthened.
    pub(crate) has_space: bool,
    /// How many names the file has; 0 once it was deleted.
    pub(crate) links: u64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

/// How [`Dir::open_file`](crate::files::Dir::open_file) opens a file. Example:
/// [`Dir`](crate::files::Dir).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file that does not exist yet, to read and write.
    CreateNew,
}

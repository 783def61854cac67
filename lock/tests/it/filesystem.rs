//! The filesystem check.

use strand_lock::{FilesystemKind, filesystem_of};

#[test]
fn a_temporary_directory_is_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let filesystem = filesystem_of(dir.path()).unwrap();
    assert_eq!(filesystem.kind, FilesystemKind::Local, "{filesystem:?}");
    assert!(!filesystem.name.is_empty());
}

#[test]
fn a_missing_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    filesystem_of(dir.path().join("missing")).unwrap_err();
}

//! New files: their names until they replace others, and who may use them. Neither a mask nor root
//! locks the other users of a store out.

use std::fs::{File, Metadata};

use strand_lock::files::{Dir, OpenMode};

/// The file that new ones take their mode and their owners from, if they replace none.
const MODEL: &str = "MANIFEST";

/// The name of a file until it gets the name `replaced`. With a random `number`, no other process
/// has a file of that name.
pub(crate) fn new_name(replaced: &str, number: u64) -> String {
    format!("{replaced}.{number:016x}.new")
}

/// The name that the file of such a name was to get.
pub(crate) fn replaced_name(new: &str) -> Option<&str> {
    let (replaced, number) = new.strip_suffix(".new")?.rsplit_once('.')?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (number.len() == 16 && number.bytes().all(is_digit)).then_some(replaced)
}

/// Gives a file the owner, the group and the mode of another, as far as that is permitted.
#[cfg(unix)]
pub(crate) fn adopt(file: &File, model: &Metadata) {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let Ok(own) = file.metadata() else { return };
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        let both = fchown(file, Some(model.uid()), Some(model.gid()));
        both.or_else(|_| fchown(file, None, Some(model.gid()))).ok();
    }
    if own.permissions() != model.permissions() {
        file.set_permissions(model.permissions()).ok();
    }
}

/// Makes a new file as open to others as what it will replace, or as the rest of the store.
pub(crate) fn share(dir: &Dir, name: &str) {
    let metadata = |name: &str| dir.open_file(name, OpenMode::Read).ok()?.metadata().ok();
    let replaced = replaced_name(name).and_then(metadata);
    if let Some(model) = replaced.or_else(|| metadata(MODEL))
        && let Ok(file) = dir.open_file(name, OpenMode::ReadWrite)
    {
        adopt(&file, &model);
    }
}

#[cfg(not(unix))]
pub(crate) fn adopt(_file: &File, _model: &Metadata) {}

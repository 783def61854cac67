//! Who may use a new file: neither a mask nor root locks the other users of a store out.

use std::fs::{File, Metadata};

use strand_lock::files::{Dir, OpenMode};

/// The file that new ones take their mode and their owners from, if they replace none.
const MODEL: &str = "MANIFEST";

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
    let replaced = name.strip_suffix(".new").and_then(metadata);
    if let Some(model) = replaced.or_else(|| metadata(MODEL))
        && let Ok(file) = dir.open_file(name, OpenMode::ReadWrite)
    {
        adopt(&file, &model);
    }
}

#[cfg(not(unix))]
pub(crate) fn adopt(_file: &File, _model: &Metadata) {}

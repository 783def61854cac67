//! The disk of a machine that can lose its power. The log refuses filesystems that a program
//! serves; those of the harness pass for local ones. Each boot of the machine has a name of its
//! own.

use std::io;

use strand_core::{
    Filesystem, FilesystemKind,
    testing::{Dir, Host, Storage, ThisMachine},
};

/// The disk of a machine whose filesystems are all local.
#[derive(Debug)]
pub(crate) struct LocalDisk {
    machine: LocalMachine,
}

/// [`ThisMachine`] with other filesystems and boots.
#[derive(Debug)]
struct LocalMachine {
    boot: String,
}

impl LocalDisk {
    /// The disk of a machine in the boot named `boot`.
    pub(crate) fn new(boot: &str) -> LocalDisk {
        let boot = boot.to_owned();
        LocalDisk {
            machine: LocalMachine { boot },
        }
    }
}

impl Host for LocalMachine {
    fn filesystem(&self, dir: &Dir) -> io::Result<Filesystem> {
        let found = ThisMachine.filesystem(dir)?;
        Ok(Filesystem::new(FilesystemKind::Local, found.name))
    }

    fn boot_id(&self) -> String {
        self.boot.clone()
    }
}

impl Storage for LocalDisk {
    fn host(&self) -> &dyn Host {
        &self.machine
    }
}

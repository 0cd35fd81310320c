//! The folder of a test's cluster: databases and journals, gone with the cluster.

use std::io;
use std::path::{Path, PathBuf};

use ffambient::Chance;

/// A folder that nobody else has, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        // Of the system's chance: two tests may have one seed.
        let name = format!("ff-testing-{:016x}", Chance::system().u64()?);
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the system's folder for what may go.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

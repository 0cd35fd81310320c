//! Files with secrets: read only when nobody but their owner can, written so that nobody else ever could.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// A secret is a line or two.
const BYTES_MAX: u64 = 64 * 1024;

/// Why a file with a secret is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others can read it, so it is no secret.
    #[error("others may read it (mode {0:o}): chmod 600")]
    Open(u32),
    /// It is none of what secrets are kept in.
    #[error("it is no text of at most 64 KiB in a file")]
    NoText,
}

/// Reads a file that only its owner can read.
///
/// # Errors
/// [`FileFault`].
pub fn read(path: &Path) -> Result<Zeroizing<String>, FileFault> {
    read_unless(path, 0o077)
}

/// Reads a credential that systemd has put into its folder, which nobody else can enter. One that it gives to a user by an access
/// control list shows that list's mask in the place of the group's rights, `0440` (systemd.exec(5), "Credentials").
///
/// # Errors
/// [`FileFault`].
pub fn read_credential(path: &Path) -> Result<Zeroizing<String>, FileFault> {
    read_unless(path, 0o037)
}

/// Reads a file whose mode has none of these bits.
fn read_unless(path: &Path, open: u32) -> Result<Zeroizing<String>, FileFault> {
    let file = fs::File::open(path)?;
    let there = file.metadata()?;
    if there.mode() & open != 0 {
        return Err(FileFault::Open(there.mode() & 0o777));
    }
    if !there.is_file() || there.len() > BYTES_MAX {
        return Err(FileFault::NoText);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(there.len() as usize + 1));
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| FileFault::NoText)
}

/// Writes a file that is not there yet, all at once, for its owner alone.
///
/// # Errors
/// `AlreadyExists`, or what the system says.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = write_new(&fresh, text).and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    written
}

/// Writes a file, all at once, for its owner alone; what was there is gone then.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = write_new(&fresh, text).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// One that is there already was left by a process of this number that was killed while it wrote: in a container numbers come again
/// soon.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_by_its_owner_and_from_no_file_that_others_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "text\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(*read(&path).unwrap(), "text\n");
        let again = create(&path, "other").unwrap_err();
        assert_eq!(
            (again.kind(), fs::read_dir(folder.path()).unwrap().count()),
            (io::ErrorKind::AlreadyExists, 1)
        );
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = read(&path).unwrap_err().to_string();
            assert_eq!(text, format!("others may read it (mode {mode:o}): chmod 600"));
        }
        assert!(matches!(read(&folder.path().join("none")), Err(FileFault::Io(_))));
        for (mode, is_read) in [(0o400, true), (0o440, true), (0o460, false), (0o444, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_credential(&path).is_ok(), is_read, "{mode:o}");
        }
    }

    #[test]
    fn what_a_killed_process_has_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let left = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&left, "half a secr").unwrap();
        create(&path, "one").unwrap();
        fs::write(&left, "half a secr").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!((&**read(&path).unwrap(), left.exists()), ("two", false));
    }
}

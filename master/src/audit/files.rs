//! The files of the audit: lines are appended, and a file that has become large makes room for the next; so many are kept.
//!
//! Refusals have files of their own: a flood of them must not push out who has commanded what.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Entry;

/// A file that is as large makes room for the next: some 30,000 entries.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Files that are kept besides the one that is written.
const KEPT: usize = 4;
/// The end of a file that is read again at a start.
const END_BYTES: u64 = 128 * 1024;

/// The files of one audit.
#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
    commands: Log,
    refusals: Log,
}

impl Files {
    pub(super) fn new(base: PathBuf) -> Self {
        let log = |end: &str| {
            let mut path = base.clone().into_os_string();
            path.push(end);
            Log { path: path.into(), open: None, bytes_max: BYTES_MAX }
        };
        Self { commands: log(".jsonl"), refusals: log("-refused.jsonl"), base }
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Appends a line to the file of commands, or to that of refusals.
    pub(super) fn append(&mut self, line: &str, refused: bool) -> io::Result<()> {
        if refused { self.refusals.append(line) } else { self.commands.append(line) }
    }

    /// The last entries of both files, the latest last. What is no entry is left out.
    pub(super) fn last(&self, most: usize) -> VecDeque<Entry> {
        let mut entries: Vec<Entry> =
            [&self.commands, &self.refusals].into_iter().flat_map(Log::last).collect();
        entries.sort_by(|a, b| a.at.cmp(&b.at));
        let from = entries.len().saturating_sub(most);
        entries.drain(from..).collect()
    }
}

/// A file of lines, and those before it.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    open: Option<File>,
    bytes_max: u64,
}

impl Log {
    fn append(&mut self, line: &str) -> io::Result<()> {
        let appended = self.try_append(line);
        if appended.is_err() {
            self.open = None;
        }
        appended
    }

    fn try_append(&mut self, line: &str) -> io::Result<()> {
        let mut file = match self.open.take() {
            // Somebody may have moved it away.
            Some(file) if self.is_at_its_path(&file) => file,
            _ => self.open_file()?,
        };
        if file.metadata()?.len() + line.len() as u64 > self.bytes_max {
            self.rotate()?;
            file = self.open_file()?;
        }
        file.write_all(line.as_bytes())?;
        self.open = Some(file);
        Ok(())
    }

    fn is_at_its_path(&self, file: &File) -> bool {
        let there = fs::symlink_metadata(&self.path);
        file.metadata().is_ok_and(|open| there.is_ok_and(|there| there.ino() == open.ino()))
    }

    fn open_file(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let mut file = options.open(&self.path)?;
        // A line that a dead master has not finished stays one line.
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(file)
    }

    /// `audit.jsonl` becomes `audit.jsonl.1`, and so on; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        let nth = |n: usize| {
            let mut path = self.path.clone().into_os_string();
            if n > 0 {
                path.push(format!(".{n}"));
            }
            PathBuf::from(path)
        };
        for n in (0..KEPT).rev() {
            match fs::rename(nth(n), nth(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn last(&self) -> Vec<Entry> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
                .open(&self.path)?;
            let from = file.metadata()?.len().saturating_sub(END_BYTES);
            file.seek(SeekFrom::Start(from))?;
            let mut end = Vec::new();
            file.take(END_BYTES).read_to_end(&mut end)?;
            Ok(end)
        };
        let end = read().unwrap_or_default();
        let lines = end.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_full_makes_room_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { path: folder.path().join("a.jsonl"), open: None, bytes_max: 100 };
        for n in 0..1000 {
            log.append(&format!("{n:09}\n")).unwrap();
        }
        let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        assert_eq!(files.len(), KEPT + 1);
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 100));
        assert!(fs::read_to_string(&log.path).unwrap().ends_with("000000999\n"));
    }

    #[test]
    fn a_file_that_is_moved_away_or_cut_begins_a_line_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { path: folder.path().join("a.jsonl"), open: None, bytes_max: 100 };
        log.append("one\n").unwrap();
        fs::rename(&log.path, folder.path().join("moved")).unwrap();
        log.append("two\n").unwrap();
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "two\n");
        fs::write(&log.path, "cu").unwrap();
        log.open = None;
        log.append("three\n").unwrap();
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "cu\nthree\n");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        let mut log = Log { path, open: None, bytes_max: 100 };
        assert!(log.append("one\n").is_err());
    }
}

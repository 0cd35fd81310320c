//! A log file: appended to by one or more processes, for its owner alone, rotated by size and by day.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY: u64 = 86_400;
/// The wait after a rotation that did not succeed.
const AGAIN: Duration = Duration::from_secs(60);

/// When a file is begun anew, and how many of the older ones are kept: `master.log.1` is the newest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// A file does not get larger; `None` for no limit.
    pub bytes_max: Option<u64>,
    /// A file has lines of one day, by UTC.
    pub daily: bool,
    /// So many older files are kept.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes_max: None, daily: false, keep: 7 }
    }
}

impl Rotation {
    /// Whether a file of that size, last written on that day, is full for a line of that length now.
    fn is_due(&self, size: u64, day: u64, line: u64, today: u64) -> bool {
        let is_full = self.bytes_max.is_some_and(|max| size + line > max);
        size > 0 && (is_full || self.daily && day < today)
    }
}

/// A log file that is open. It is always the file of its path: what was moved or taken away is noticed before the next line, so
/// another process may rotate it, or logrotate.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Rotation,
    /// Whether it can be rotated at all: no device, no pipe.
    is_regular: bool,
    /// The day for which it has been rotated, and when a rotation that did not succeed is tried again.
    rotated_day: u64,
    again_at: Duration,
    /// A line of which only a part was written.
    is_torn: bool,
}

impl LogFile {
    /// Opens the file, which is made with its folder when there is none.
    pub(crate) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let (file, is_regular) = append(&path)?;
        let (rotated_day, again_at) = (0, Duration::ZERO);
        Ok(Self { path, file, rotation, is_regular, rotated_day, again_at, is_torn: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, in one piece.
    pub(crate) fn write(&mut self, line: &[u8], now: Duration) -> io::Result<()> {
        if let Some(size_and_day) = self.follow_path() {
            self.rotate_when_due(size_and_day, line.len(), now);
        }
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let written = loop {
            match self.file.write(line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written?,
            }
        };
        if written == line.len() {
            return Ok(());
        }
        self.is_torn = written > 0;
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Opens the path again, when it is another file by now. Where that fails, the file that is open serves on.
    pub(crate) fn follow_path(&mut self) -> Option<(u64, u64)> {
        if !self.is_regular {
            return None;
        }
        if !self.is_at_path() {
            self.reopen();
        }
        let now = self.file.metadata().ok()?;
        Some((now.len(), u64::try_from(now.mtime()).unwrap_or(0) / DAY))
    }

    /// Opens the path again.
    pub(crate) fn reopen(&mut self) {
        if let Ok((file, is_regular)) = append(&self.path) {
            (self.file, self.is_regular) = (file, is_regular);
            self.is_torn = false;
        }
    }

    fn is_at_path(&self) -> bool {
        let id = |of: Metadata| (of.dev(), of.ino());
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(at_path), Ok(own)) => id(at_path) == id(own),
            _ => false,
        }
    }

    fn rotate_when_due(&mut self, (size, day): (u64, u64), line: usize, now: Duration) {
        let today = now.as_secs() / DAY;
        // A clock that is not the file system's: once for each of its days.
        let day = if self.rotated_day == today { today } else { day };
        if !self.rotation.is_due(size, day, line as u64, today) || now < self.again_at {
            return;
        }
        match self.rotate() {
            Ok(true) => self.rotated_day = today,
            // Another process does it just now.
            Ok(false) => {}
            Err(_) => self.again_at = now + AGAIN,
        }
    }

    /// Moves the file and the older ones by one number. Who has the lock on the file that the path leads to does it; the others
    /// notice.
    fn rotate(&mut self) -> io::Result<bool> {
        if self.file.try_lock().is_err() {
            return Ok(false);
        }
        if !self.is_at_path() {
            self.reopen();
            return Ok(true);
        }
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        let keep = self.rotation.keep.max(1);
        for number in (1..keep).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))?;
        // Of a time when more were kept.
        (keep + 1..).map(numbered).take_while(|path| fs::remove_file(path).is_ok()).for_each(drop);
        (self.file, self.is_regular) = append(&self.path)?;
        Ok(true)
    }
}

/// A file to append to, which only its owner may read; and whether it is a regular one.
fn append(path: &Path) -> io::Result<(File, bool)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let about = file.metadata()?;
    if about.is_file() && about.mode() & 0o077 != 0 {
        // Somebody else's may not be changed, and is none of this process's making.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
    Ok((file, about.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Duration {
        Duration::from_secs(u64::try_from(fs::metadata("/proc/self").unwrap().mtime()).unwrap())
    }

    fn texts(folder: &Path) -> Vec<(String, String)> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        let text = |name: String| (fs::read_to_string(folder.join(&name)).unwrap(), name);
        names.into_iter().map(text).map(|(text, name)| (name, text)).collect()
    }

    fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_file_is_full_by_its_size_or_its_day_and_an_empty_one_never() {
        let rotation = Rotation { bytes_max: Some(100), daily: true, keep: 3 };
        for (size, day, line, due) in
            [(0, 5, 200, false), (60, 7, 40, false), (61, 7, 40, true), (1, 6, 1, true), (1, 8, 1, false)]
        {
            assert_eq!(rotation.is_due(size, day, line, 7), due, "{size} {day} {line}");
        }
        assert!(!Rotation::default().is_due(u64::MAX / 2, 0, 1, 7));
    }

    #[test]
    fn files_are_rotated_by_size_and_the_number_that_is_kept_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let rotation = Rotation { bytes_max: Some(4), daily: false, keep: 2 };
        let mut log = LogFile::open(path.clone(), rotation.clone()).unwrap();
        for n in 1..=4 {
            log.write(format!("{n}.\n").as_bytes(), now()).unwrap();
        }
        let left = texts(path.parent().unwrap());
        assert_eq!(left, named(&[("a.log", "4.\n"), ("a.log.1", "3.\n"), ("a.log.2", "2.\n")]));
        let mut log = LogFile::open(path.clone(), Rotation { keep: 1, ..rotation }).unwrap();
        log.write(b"5.\n", now()).unwrap();
        assert_eq!(texts(path.parent().unwrap()), named(&[("a.log", "5.\n"), ("a.log.1", "4.\n")]));
    }

    #[test]
    fn a_file_of_an_earlier_day_is_begun_anew_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        fs::write(&path, "old\n").unwrap();
        let rotation = Rotation { daily: true, ..Rotation::default() };
        let mut log = LogFile::open(path, rotation).unwrap();
        log.write(b"same day\n", now()).unwrap();
        for _ in 0..2 {
            log.write(b"next day\n", now() + Duration::from_secs(DAY)).unwrap();
        }
        let left = [("a.log", "next day\nnext day\n"), ("a.log.1", "old\nsame day\n")];
        assert_eq!(texts(folder.path()), named(&left));
    }

    #[test]
    fn two_processes_rotate_one_file_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let write = |who: usize| {
            let rotation = Rotation { bytes_max: Some(2_000), daily: false, keep: 1_000 };
            let mut log = LogFile::open(path.clone(), rotation).unwrap();
            move || (0..5_000).for_each(|n| log.write(format!("{who} {n}\n").as_bytes(), now()).unwrap())
        };
        let threads: Vec<_> = (0..3).map(|who| std::thread::spawn(write(who))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let files = texts(folder.path());
        let mut lines: Vec<&str> = files.iter().flat_map(|(_, text)| text.lines()).collect();
        lines.sort_unstable();
        lines.dedup();
        assert!(files.len() > 10, "{}", files.len());
        assert_eq!(lines.len(), 3 * 5_000);
    }

    #[test]
    fn a_file_that_was_moved_or_taken_away_is_opened_anew_with_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(path.clone(), Rotation::default()).unwrap();
        log.write(b"one\n", now()).unwrap();
        fs::rename(&path, folder.path().join("b.log")).unwrap();
        log.write(b"two\n", now()).unwrap();
        assert_eq!(texts(folder.path()), named(&[("a.log", "two\n"), ("b.log", "one\n")]));
        fs::remove_file(&path).unwrap();
        log.write(b"three\n", now()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn files_are_for_their_owner_alone_also_those_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        drop(LogFile::open(path.clone(), Rotation::default()).unwrap());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut log =
            LogFile::open(path.clone(), Rotation { bytes_max: Some(1), ..Rotation::default() }).unwrap();
        (0..2).for_each(|_| log.write(b"x\n", now()).unwrap());
        assert_eq!((mode(&path), mode(&folder.path().join("logs/a.log.1"))), (0o600, 0o600));
    }

    #[test]
    fn a_device_is_written_and_never_moved() {
        let rotation = Rotation { bytes_max: Some(1), daily: true, keep: 1 };
        let mut log = LogFile::open("/dev/null".into(), rotation).unwrap();
        (0..3).for_each(|_| log.write(b"line\n", now()).unwrap());
        assert!(!fs::exists("/dev/null.1").unwrap());
        let mut full = LogFile::open("/dev/full".into(), Rotation::default()).unwrap();
        assert!(full.write(b"line\n", now()).is_err());
    }
}

//! The run folder: a lock so that a config has one master, and a list of what runs for the next one.
//!
//! It is outside of the config's folder, which may be read-only: `--run-dir`, FF_RUN_DIR,
//! `$XDG_RUNTIME_DIR` or the folder for temporary files, and in it a folder of the user's own, named by the
//! config's path.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffambient::Clock;
use ffnet::{key_desk, run_folder};
use ffproto::{Incarnation, NodeName, NodeNumber};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::keys;
use crate::supervisor::proc;
use crate::utc::utc;

/// The form of the list; another one is a fault.
const VERSION: u32 = 1;
/// Crash reports that are kept: the oldest go first.
const CRASHES_MAX: usize = 50;
/// The list is never that large: some hundred bytes a node.
const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// systemd-tmpfiles takes what is ten days old.
const TOUCH_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Why a master does not start here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another master has this config.
    #[error("{config} is supervised by another master{}", .holder.as_ref().map_or_else(String::new, |h| format!(": {h}")))]
    Held {
        /// The config.
        config: String,
        /// The master that is there: its pid and since when.
        holder: Option<String>,
    },
    /// The folder is not one that this user alone can write to.
    #[error("{}: {what}; name another one by --run-dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The fault of the folder.
        what: String,
    },
    /// A master of another release has left a list of what runs that this one cannot read: it would find the ports taken.
    #[error(
        "{}: a master of another release has written it, in form {theirs}, and this one reads form {ours}: start that one \
         again, or remove the file when none of its nodes runs any more",
        file.display()
    )]
    Form {
        /// The list.
        file: PathBuf,
        /// The form of the list.
        theirs: u32,
        /// The form that this release reads.
        ours: u32,
    },
}

/// The folder, and the lock on it for as long as this lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    config: String,
    _lock: Flock<File>,
    written: Option<String>,
    touched: Instant,
    clock: Clock,
}

/// Everything that the next master needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    version: u32,
    /// The config's path, for people.
    config: String,
    /// The boot of the system that the process numbers are of.
    boot: String,
    pub(crate) nodes: Vec<RosterNode>,
}

/// What every form of the list has.
#[derive(Debug, Deserialize)]
struct AnyRoster {
    version: u32,
    boot: String,
}

/// A node and its living processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RosterNode {
    pub(crate) name: NodeName,
    pub(crate) number: NodeNumber,
    pub(crate) processes: Vec<RosterProcess>,
}

/// A process in the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RosterProcess {
    pub(crate) incarnation: Incarnation,
    pub(crate) pid: u32,
    /// The process's start in clock ticks since the boot: a process number alone is given out again.
    pub(crate) started: u64,
}

impl RunFolder {
    /// Opens and locks the folder of a config in `base`; both are made when they are missing.
    ///
    /// # Errors
    /// [`RunError`]: another master has it, or it cannot be trusted.
    pub fn open(base: &Path, config: &Path, clock: Clock) -> Result<Self, RunError> {
        let path = Self::make(base, config)?;
        let config = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned()).display().to_string();
        let fault = |e: io::Error| RunError::Folder { path: path.clone(), what: e.to_string() };
        loop {
            own_folder(&path)?;
            let file = path.join("lock");
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let open = options.open(&file).map_err(fault)?;
            let mut lock = match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut held, nix::errno::Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    let _ = held.read_to_string(&mut holder);
                    let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
                    return Err(RunError::Held { config, holder });
                }
                Err((_, error)) => return Err(fault(error.into())),
            };
            // The one that it belonged to may have removed it meanwhile: then the lock is on nothing.
            let same = |at: fs::Metadata| lock.metadata().is_ok_and(|ours| ours.ino() == at.ino());
            if !fs::metadata(&file).is_ok_and(same) {
                continue;
            }
            let now = clock.now_ms();
            let who = format!("pid {}, since {}", std::process::id(), utc(now));
            let written =
                lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(who.as_bytes()));
            written.map_err(fault)?;
            return Ok(Self { path, config, _lock: lock, written: None, touched: Instant::now(), clock });
        }
    }

    /// The path of the folder of a config in `base`; both are made when they are missing. Without the lock: for what is no
    /// master of the config.
    ///
    /// # Errors
    /// [`RunError::Folder`].
    pub fn make(base: &Path, config: &Path) -> Result<PathBuf, RunError> {
        let path = run_folder::of_config(base, config, nix::unistd::geteuid().as_raw());
        let fault = |e: io::Error| RunError::Folder { path: path.clone(), what: e.to_string() };
        fs::create_dir_all(base).map_err(fault)?;
        own_folder(&path)?;
        Ok(path)
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The roster that the master before this one has left; `None` when there was none, or it ended in order.
    ///
    /// # Errors
    /// [`RunError::Form`].
    pub(crate) fn roster(&self) -> Result<Option<Roster>, RunError> {
        let path = self.path.join("nodes.json");
        let read = || -> io::Result<String> {
            let mut text = String::new();
            File::open(&path)?.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let Ok(text) = read() else { return Ok(None) };
        match roster_of(&text, &proc::boot()) {
            Ok(roster) => Ok(roster),
            Err(Unread::Form(theirs)) => Err(RunError::Form { file: path, theirs, ours: VERSION }),
            Err(Unread::Text(error)) => {
                tracing::warn!("{} is not used: {error}", path.display());
                Ok(None)
            }
        }
    }

    /// Writes down what runs now, if that has changed: a new file takes the place of the old one at once.
    pub(crate) fn write(&mut self, nodes: Vec<RosterNode>) -> io::Result<()> {
        let roster = Roster { version: VERSION, config: self.config.clone(), boot: proc::boot(), nodes };
        let text = serde_json::to_string_pretty(&roster)? + "\n";
        if self.written.as_ref() == Some(&text) {
            return Ok(());
        }
        let (new, file) = (self.path.join("nodes.json.new"), self.path.join("nodes.json"));
        fs::write(&new, &text)?;
        fs::rename(&new, &file)?;
        self.written = Some(text);
        Ok(())
    }

    /// Makes its files new from time to time: what cleans folders for temporary files takes old ones.
    pub(crate) fn touch(&mut self) {
        if self.touched.elapsed() < TOUCH_EVERY {
            return;
        }
        self.touched = Instant::now();
        for file in ["lock", "nodes.json", keys::SECRET, keys::BEFORE] {
            let touched = OpenOptions::new().append(true).open(self.path.join(file));
            let _ = touched.and_then(|file| file.set_modified(self.clock.system_time()));
        }
    }

    /// Keeps a crash report, and removes the oldest when there are too many. Where it is.
    pub(crate) fn keep_crash(&self, file: &str, text: &str) -> io::Result<PathBuf> {
        let folder = self.path.join("crashes");
        fs::create_dir_all(&folder)?;
        let path = folder.join(file);
        fs::write(&path, text)?;
        let mut kept: Vec<_> = fs::read_dir(&folder)?.flatten().collect();
        kept.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
        for old in kept.iter().rev().skip(CRASHES_MAX) {
            let _ = fs::remove_file(old.path());
        }
        Ok(path)
    }

    /// Nothing runs any more: leaves only the crash reports and the secrets, if there are any. Key files are signed by what is
    /// made of that, and nodes that others supervise may run on.
    pub(crate) fn close(self) {
        for file in ["nodes.json", key_desk::SOCKET, "lock"] {
            let _ = fs::remove_file(self.path.join(file));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// Why a list is not read.
enum Unread {
    /// It is of another form than this release's.
    Form(u32),
    /// It is no list.
    Text(serde_json::Error),
}

/// The roster of a text, when it is of this boot.
fn roster_of(text: &str, boot: &str) -> Result<Option<Roster>, Unread> {
    let any: AnyRoster = serde_json::from_str(text).map_err(Unread::Text)?;
    match any.version {
        _ if any.boot != boot => Ok(None),
        VERSION => serde_json::from_str(text).map(Some).map_err(Unread::Text),
        other => Err(Unread::Form(other)),
    }
}

/// Makes a folder that only this user can enter, or sees that it is one.
fn own_folder(path: &Path) -> Result<(), RunError> {
    let uid = nix::unistd::geteuid().as_raw();
    let fault = |what: String| RunError::Folder { path: path.to_owned(), what };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(fault(error.to_string())),
    }
    // In a folder for everybody somebody else may have been there first.
    let there = fs::symlink_metadata(path).map_err(|error| fault(error.to_string()))?;
    if !there.is_dir() || there.uid() != uid {
        return Err(fault("it belongs to somebody else".into()));
    }
    if there.mode() & 0o077 != 0 {
        return Err(fault(format!("others may enter it (mode {:o})", there.mode() & 0o777)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fixture::name;

    fn listed(pid: u32) -> Vec<RosterNode> {
        let process = RosterProcess { incarnation: Incarnation(7), pid, started: 1 };
        vec![RosterNode { name: name("net"), number: NodeNumber(3), processes: vec![process] }]
    }

    #[test]
    fn the_second_master_of_a_config_is_told_who_has_it() {
        let base = tempfile::tempdir().unwrap();
        let first = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system())
            .unwrap_err()
            .to_string();
        let pid = std::process::id();
        let expected = format!("/x/config.json is supervised by another master: pid {pid}, since 20");
        assert!(refused.starts_with(&expected), "{refused}");
        RunFolder::open(base.path(), Path::new("/y/config.json"), Clock::system()).unwrap();
        drop(first);
        RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
    }

    #[test]
    fn what_runs_is_there_for_the_next_master_and_an_orderly_end_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let mut first = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        assert_eq!(first.roster().unwrap(), None);
        first.write(listed(1)).unwrap();
        first.write(listed(2)).unwrap();
        drop(first);
        let next = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        assert_eq!(next.roster().unwrap().unwrap().nodes, listed(2));
        fs::write(next.path().join("nodes.json"), "{").unwrap();
        assert_eq!(next.roster().unwrap(), None);
        let path = next.path().to_owned();
        next.close();
        assert!(!path.exists());
    }

    #[test]
    fn a_list_of_another_boot_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let mut run = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        run.write(listed(1)).unwrap();
        let file = run.path().join("nodes.json");
        let text = fs::read_to_string(&file).unwrap().replace(&proc::boot(), "another");
        fs::write(&file, text).unwrap();
        assert_eq!(run.roster().unwrap(), None);
    }

    #[test]
    fn a_list_of_another_form_is_a_fault_that_names_both() {
        let base = tempfile::tempdir().unwrap();
        let run = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        let file = run.path().join("nodes.json");
        let of = |boot: &str| format!(r#"{{ "version": 9, "boot": "{boot}", "seats": {{}} }}"#);
        fs::write(&file, of(&proc::boot())).unwrap();
        let fault = run.roster().unwrap_err().to_string();
        assert!(
            fault.contains("nodes.json: ") && fault.contains("in form 9, and this one reads form 1"),
            "{fault}"
        );
        fs::write(&file, of("another")).unwrap();
        assert_eq!(run.roster().unwrap(), None, "nothing of another boot runs");
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system())
            .unwrap()
            .path()
            .to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system())
            .unwrap_err()
            .to_string();
        assert!(refused.contains("others may enter it (mode 755)"), "{refused}");
    }

    #[test]
    fn so_many_crash_reports_are_kept_and_no_more() {
        let base = tempfile::tempdir().unwrap();
        let run = RunFolder::open(base.path(), Path::new("/x/config.json"), Clock::system()).unwrap();
        for n in 0..CRASHES_MAX + 3 {
            run.keep_crash(&format!("net-{n:03}.txt"), "x").unwrap();
        }
        assert_eq!(fs::read_dir(run.path().join("crashes")).unwrap().count(), CRASHES_MAX);
    }
}

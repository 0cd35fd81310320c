//! `master dev`: a game while it is written. Its program is built, its cluster started, its files are looked at: what has changed is
//! built and reloaded, and while it does not build the last program that did serves on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use ffambient::Chance;
use ffnet::notify::{self, NotifyListener, Word};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::signals::{SignalCommand, Signals};

/// How often the files are looked at. They are some dozens, and that way works on every file system.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Folders that have no sources: what builds and runs leave.
const PASSED_OVER: [&str; 3] = ["target", "data", "log"];

/// Why a game cannot be run while it is written.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is nothing to build.
    #[error("there is no Cargo.toml in {} or above it: `master new NAME` makes a game", .0.display())]
    NoPackage(PathBuf),
    /// There is no cargo.
    #[error(
        "cargo cannot be started ({0}): a game is built by Rust's toolchain, which https://rustup.rs installs"
    )]
    NoCargo(#[source] io::Error),
    /// The cluster cannot be started, or not be heard.
    #[error("the cluster cannot be started")]
    Start(#[source] io::Error),
}

/// A game while it is written.
pub struct Dev {
    config: PathBuf,
    /// Where its Cargo.toml is.
    package: PathBuf,
    /// What starts its cluster: this program, and its arguments before the config.
    master: (PathBuf, Vec<OsString>),
    signals: Signals,
    chance: Chance,
}

/// What became of a build.
enum Built {
    Yes,
    No,
    /// Somebody wants an end.
    Stopped,
}

/// What became of a start.
enum Started {
    Up(Child),
    Ended,
    /// Somebody wanted an end while it came up, and nothing of it runs.
    Stopped,
}

impl Dev {
    /// The game whose cluster that config is; `master` starts it.
    ///
    /// # Errors
    /// [`DevError::NoPackage`].
    pub fn new(
        config: &Path,
        master: (PathBuf, Vec<OsString>),
        signals: Signals,
        chance: Chance,
    ) -> Result<Self, DevError> {
        let folder = config.parent().unwrap_or(Path::new("/"));
        let package = folder.ancestors().find(|folder| folder.join("Cargo.toml").is_file());
        let package = package.ok_or_else(|| DevError::NoPackage(folder.to_owned()))?.to_owned();
        Ok(Self { config: config.to_owned(), package, master, signals, chance })
    }

    /// Builds, starts, looks, until somebody wants an end, or the cluster was stopped in order. Nothing of it runs then.
    ///
    /// # Errors
    /// [`DevError`].
    pub async fn run(mut self) -> Result<(), DevError> {
        let mut files = Watched::of(&self.package);
        let mut cluster: Option<Child> = None;
        loop {
            let begun = Instant::now();
            match (self.build().await?, &cluster) {
                (Built::Stopped, _) => return self.end(cluster).await,
                (Built::No, Some(_)) => warn!("it does not build: the last program that did serves on"),
                (Built::No, None) => warn!("it does not build: waiting for a change"),
                (Built::Yes, Some(running)) => {
                    info!("built in {} ms: reload", begun.elapsed().as_millis());
                    signal(running, Signal::SIGHUP);
                }
                (Built::Yes, None) => match self.start().await? {
                    Started::Up(started) => cluster = Some(started),
                    Started::Ended => {}
                    Started::Stopped => return Ok(()),
                },
            }
            loop {
                tokio::select! {
                    path = files.changed() => {
                        info!("{} has changed", path.display());
                        break;
                    }
                    ended = ended(&mut cluster) => {
                        cluster = None;
                        if ended.success() {
                            return Ok(());
                        }
                        warn!("the cluster has ended ({ended}): waiting for a change");
                    }
                    command = self.signals.next() => match command {
                        SignalCommand::Reload => break,
                        SignalCommand::Stop | SignalCommand::Kill | SignalCommand::Detach => {
                            return self.end(cluster).await;
                        }
                    }
                }
            }
        }
    }

    /// As a person does it; what cargo and the compiler say is in the terminal.
    async fn build(&mut self) -> Result<Built, DevError> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(cargo);
        cargo.arg("build").current_dir(&self.package).stdin(Stdio::null()).kill_on_drop(true);
        let mut building = cargo.spawn().map_err(DevError::NoCargo)?;
        loop {
            tokio::select! {
                built = building.wait() => return Ok(match built {
                    Ok(status) if status.success() => Built::Yes,
                    _ => Built::No,
                }),
                command = self.signals.next() => if command != SignalCommand::Reload {
                    signal(&building, Signal::SIGTERM);
                    let _ = building.wait().await;
                    return Ok(Built::Stopped);
                }
            }
        }
    }

    /// Starts the cluster, and waits until it is up: the master bounds that by `limits.start_s` of each node.
    async fn start(&mut self) -> Result<Started, DevError> {
        let heard = NotifyListener::open(&self.chance).map_err(DevError::Start)?;
        let (program, arguments) = &self.master;
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.config).env(notify::ENV, heard.env_value());
        // Ctrl-C is for this program, which ends the cluster in order.
        command.stdin(Stdio::null()).process_group(0);
        let mut cluster = Some(command.spawn().map_err(DevError::Start)?);
        let is_up = loop {
            tokio::select! {
                words = heard.next() => if words.map_err(DevError::Start)?.contains(&Word::Ready) {
                    break true;
                },
                ended = ended(&mut cluster) => {
                    warn!("the cluster has not come up ({ended}): waiting for a change");
                    return Ok(Started::Ended);
                }
                command = self.signals.next() => if command != SignalCommand::Reload {
                    break false;
                }
            }
        };
        match cluster.take_if(|_| is_up) {
            Some(cluster) => Ok(Started::Up(cluster)),
            None => self.end(cluster).await.map(|()| Started::Stopped),
        }
    }

    /// The cluster's end, in order; who asks again has every node killed.
    async fn end(&mut self, mut cluster: Option<Child>) -> Result<(), DevError> {
        let Some(running) = &cluster else { return Ok(()) };
        signal(running, Signal::SIGTERM);
        loop {
            tokio::select! {
                ended = ended(&mut cluster) => {
                    if !ended.success() {
                        error!("the cluster has ended with {ended}");
                    }
                    return Ok(());
                }
                command = self.signals.next() => if let (SignalCommand::Kill, Some(running)) = (command, &cluster) {
                    signal(running, Signal::SIGTERM);
                }
            }
        }
    }
}

/// The end of the cluster; without one it never comes. Cancel-safe.
async fn ended(cluster: &mut Option<Child>) -> ExitStatus {
    match cluster {
        Some(running) => running.wait().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// It may have ended a moment ago.
fn signal(process: &Child, signal: Signal) {
    if let Some(pid) = process.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The files of a package: when each was written last, and how long it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Files {
    fn below(package: &Path) -> Self {
        let (mut files, mut folders) = (BTreeMap::new(), vec![package.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (name, Ok(metadata)) = (entry.file_name(), entry.metadata()) else { continue };
                let name = name.to_string_lossy();
                if name.starts_with('.') || PASSED_OVER.contains(&&*name) {
                    continue;
                }
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if name != "Cargo.lock" && !name.ends_with(".log") {
                    files.insert(entry.path(), (metadata.modified().ok(), metadata.len()));
                }
            }
        }
        Self(files)
    }

    /// A file that is not as it was before.
    fn changed_since(&self, before: &Self) -> Option<PathBuf> {
        let new = self.0.iter().find(|(path, is)| before.0.get(*path) != Some(is));
        let gone = || before.0.iter().find(|(path, _)| !self.0.contains_key(*path));
        new.or_else(gone).map(|(path, _)| path.clone())
    }
}

/// A package whose files are looked at.
struct Watched {
    package: PathBuf,
    files: Files,
    /// A change after which not all files have stood still for one look: whoever saves saves several.
    changed: Option<PathBuf>,
}

impl Watched {
    fn of(package: &Path) -> Self {
        Self { package: package.to_owned(), files: Files::below(package), changed: None }
    }

    /// Waits until a file has changed, and none changes any more; which one, as seen from the package. Cancel-safe.
    async fn changed(&mut self) -> PathBuf {
        loop {
            sleep(LOOK_EVERY).await;
            let now = Files::below(&self.package);
            match now.changed_since(&self.files) {
                Some(path) => self.changed = Some(path),
                None => {
                    if let Some(path) = self.changed.take() {
                        return path.strip_prefix(&self.package).map(Path::to_owned).unwrap_or(path);
                    }
                }
            }
            self.files = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_source_is_seen_and_what_builds_and_runs_leave_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        write("src/room.rs", "a");
        let before = Files::below(folder.path());
        for file in
            ["target/debug/x", "data/x.sqlite", "Cargo.lock", "master.log", ".git/HEAD", "src/.room.rs.swp"]
        {
            write(file, "left");
            assert_eq!(Files::below(folder.path()).changed_since(&before), None, "{file}");
        }
        let changed = write("src/room.rs", "ab");
        assert_eq!(Files::below(folder.path()).changed_since(&before), Some(changed.clone()));
        let new = write("web/index.html", "");
        let now = Files::below(folder.path());
        fs::remove_file(&new).unwrap();
        assert_eq!(Files::below(folder.path()).changed_since(&now), Some(new));
    }

    #[tokio::test(start_paused = true)]
    async fn several_files_that_are_saved_are_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::of(folder.path());
        fs::write(folder.path().join("a.rs"), "a").unwrap();
        assert_eq!(watched.changed().await, Path::new("a.rs"));
        let quiet = tokio::time::timeout(Duration::from_secs(5), watched.changed());
        assert!(quiet.await.is_err(), "nothing more has changed");
    }
}

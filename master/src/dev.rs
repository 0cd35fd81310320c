//! `master dev`: a game while it is written. Its program is built, its cluster started, its files are looked at: what has changed is
//! built and reloaded, and while it does not build the last program that did serves on. What is wrong is said in the terminal and on
//! the pages of the game.

mod cargo;
mod files;
mod notice;
pub mod toolchain;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use ffambient::Chance;
use ffnet::launch::DEV_ENV;
use ffnet::notify::{self, NotifyListener, Word};
use fftelemetry::Colour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::signals::{SignalCommand, Signals};
use cargo::{Build, Terminal};
use files::{Watched, is_of_page};
use notice::{GameStatus, NoticeFile};
use toolchain::ToolchainFaults;

/// Why a game cannot be run while it is written.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is nothing to build.
    #[error("there is no Cargo.toml in {} or above it: `master new NAME` makes a game", .0.display())]
    NoPackage(PathBuf),
    /// There is nothing to build it with.
    #[error(transparent)]
    Toolchain(#[from] ToolchainFaults),
    /// There was a cargo a moment ago.
    #[error("cargo cannot be started")]
    NoCargo(#[source] io::Error),
    /// The cluster cannot be started, or not be heard.
    #[error("the cluster cannot be started")]
    Start(#[source] io::Error),
}

/// What a game is run with while it is written.
pub struct DevSetup {
    /// The cluster's config.
    pub config: PathBuf,
    /// What starts its cluster: this program, and its arguments before the config.
    pub master: (PathBuf, Vec<OsString>),
    /// A folder of this user's own.
    pub folder: PathBuf,
    /// When lines have colours.
    pub colour: Colour,
    /// The end that somebody wants.
    pub signals: Signals,
    /// For a name that nobody can guess.
    pub chance: Chance,
}

/// A game while it is written.
pub struct Dev {
    config: PathBuf,
    /// Where its Cargo.toml is.
    package: PathBuf,
    cargo: OsString,
    master: (PathBuf, Vec<OsString>),
    signals: Signals,
    chance: Chance,
    terminal: Terminal,
    status: GameStatus,
    notice: NoticeFile,
}

/// A cluster that was started here, with what its master says.
struct Cluster {
    master: Child,
    heard: NotifyListener,
}

/// What a cluster has to say.
enum News {
    Said(Vec<Word>),
    Ended(ExitStatus),
}

/// What became of a build.
enum Built {
    Yes,
    No(String),
    /// Somebody wants an end.
    Stopped,
}

/// What became of a start.
enum Started {
    Up(Box<Cluster>),
    Ended,
    /// Somebody wanted an end while it came up, and nothing of it runs.
    Stopped,
}

/// What ends a wait for the next build.
enum Next {
    Build,
    End,
}

impl Dev {
    /// The game of a setup.
    ///
    /// # Errors
    /// [`DevError::NoPackage`], [`DevError::Toolchain`].
    pub fn new(setup: DevSetup) -> Result<Self, DevError> {
        let DevSetup { config, master, folder, colour, signals, chance } = setup;
        let of_config = config.parent().unwrap_or(Path::new("/"));
        let package = of_config.ancestors().find(|folder| folder.join("Cargo.toml").is_file());
        let package = package.ok_or_else(|| DevError::NoPackage(of_config.to_owned()))?.to_owned();
        let env = |name: &str| std::env::var_os(name);
        toolchain::check(&package, &env)?;
        Ok(Self {
            config,
            package,
            cargo: toolchain::cargo(&env),
            master,
            signals,
            chance,
            terminal: Terminal::of_this_process(colour),
            status: GameStatus::default(),
            notice: NoticeFile::in_folder(&folder),
        })
    }

    /// Builds, starts, looks, until somebody wants an end, or the cluster was stopped in order. Nothing of it runs then.
    ///
    /// # Errors
    /// [`DevError`].
    pub async fn run(mut self) -> Result<(), DevError> {
        let mut cluster = None;
        let outcome = self.develop(&mut cluster).await;
        // Also after an error: nobody else knows of the cluster.
        let ended = self.end(cluster).await;
        outcome.and(ended)
    }

    /// Builds, starts and looks, until the cluster, if it runs, is to be ended.
    async fn develop(&mut self, cluster: &mut Option<Cluster>) -> Result<(), DevError> {
        let mut files = Watched::of(&self.package);
        loop {
            let begun = Instant::now();
            match (self.build().await?, &*cluster) {
                (Built::Stopped, _) => return Ok(()),
                (Built::No(why), running) => {
                    self.status.does_not_build(why);
                    match running {
                        Some(_) => warn!("it does not build: the last program that did serves on"),
                        None => warn!("it does not build: waiting for a change"),
                    }
                }
                (Built::Yes, Some(running)) => {
                    info!("built in {} ms: reload", begun.elapsed().as_millis());
                    if self.status.is_built() {
                        signal(&running.master, Signal::SIGHUP);
                    }
                }
                (Built::Yes, None) => match self.start().await? {
                    Started::Up(started) => {
                        *cluster = Some(*started);
                        self.status.begins_anew();
                    }
                    Started::Ended => {}
                    Started::Stopped => return Ok(()),
                },
            }
            match self.wait(&mut files, cluster).await? {
                Next::Build => {}
                Next::End => return Ok(()),
            }
        }
    }

    /// Tells the pages how it stands.
    fn tell(&mut self) {
        let notice = self.status.notice(&std::process::id().to_string());
        self.notice.write(notice);
    }

    /// Waits for a change, or for the end.
    async fn wait(&mut self, files: &mut Watched, cluster: &mut Option<Cluster>) -> Result<Next, DevError> {
        loop {
            self.tell();
            tokio::select! {
                changed = files.changed() => {
                    if let [path, more @ ..] = changed.as_slice() {
                        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                        info!("{}{more} has changed", path.display());
                    }
                    if changed.iter().any(|path| is_of_page(path)) {
                        self.status.page_has_changed();
                    }
                    return Ok(Next::Build);
                }
                news = news(cluster) => match news? {
                    News::Said(words) => self.hear(words, cluster.as_ref()),
                    News::Ended(how) => {
                        *cluster = None;
                        self.status.begins_anew();
                        if how.success() {
                            return Ok(Next::End);
                        }
                        warn!("the cluster has ended ({how}): waiting for a change");
                    }
                },
                // SIGHUP, too: its terminal was closed.
                _ = self.signals.next() => return Ok(Next::End),
            }
        }
    }

    /// What the master says of reloads.
    fn hear(&mut self, words: Vec<Word>, cluster: Option<&Cluster>) {
        for word in words {
            let Word::Reloaded(outcome) = word else { continue };
            match &outcome {
                Ok(()) => info!("the change is live"),
                Err(why) => warn!("the change is not live, what ran before serves on: {why}"),
            }
            if self.status.is_reloaded(outcome)
                && let Some(running) = cluster
            {
                signal(&running.master, Signal::SIGHUP);
            }
        }
    }

    /// As a person does it; what cargo and the compiler say is in the terminal.
    async fn build(&mut self) -> Result<Built, DevError> {
        self.status.builds();
        self.tell();
        let mut build = Build::begin(&self.cargo, &self.package, self.terminal).map_err(DevError::NoCargo)?;
        tokio::select! {
            built = build.ended() => Ok(match built {
                Ok(()) => Built::Yes,
                Err(why) => Built::No(why),
            }),
            _ = self.signals.next() => {
                build.stop().await;
                Ok(Built::Stopped)
            }
        }
    }

    /// Starts the cluster, and waits until it is up: the master bounds that by `limits.start_s` of each node.
    async fn start(&mut self) -> Result<Started, DevError> {
        let heard = NotifyListener::open(&self.chance).map_err(DevError::Start)?;
        let (program, arguments) = &self.master;
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.config);
        command.env(notify::ENV, heard.env_value()).env(DEV_ENV, self.notice.path());
        // Ctrl-C is for this program, which ends the cluster in order.
        command.stdin(Stdio::null()).process_group(0);
        let master = command.spawn().map_err(DevError::Start)?;
        let mut cluster = Some(Cluster { master, heard });
        let is_up = loop {
            tokio::select! {
                news = news(&mut cluster) => match news? {
                    News::Said(words) if words.contains(&Word::Ready) => break true,
                    News::Said(_) => {}
                    News::Ended(how) => {
                        warn!("the cluster has not come up ({how}): waiting for a change");
                        return Ok(Started::Ended);
                    }
                },
                _ = self.signals.next() => break false,
            }
        };
        match cluster.take_if(|_| is_up) {
            Some(cluster) => Ok(Started::Up(Box::new(cluster))),
            None => self.end(cluster).await.map(|()| Started::Stopped),
        }
    }

    /// The cluster's end, in order; who asks again has every node killed.
    async fn end(&mut self, mut cluster: Option<Cluster>) -> Result<(), DevError> {
        let Some(running) = &cluster else { return Ok(()) };
        signal(&running.master, Signal::SIGTERM);
        loop {
            tokio::select! {
                news = news(&mut cluster) => if let News::Ended(how) = news? {
                    if !how.success() {
                        error!("the cluster has ended with {how}");
                    }
                    return Ok(());
                },
                command = self.signals.next() => if let (SignalCommand::Kill, Some(running)) = (command, &cluster) {
                    signal(&running.master, Signal::SIGTERM);
                }
            }
        }
    }
}

/// The next news of the cluster; without one they never come. Cancel-safe.
async fn news(cluster: &mut Option<Cluster>) -> Result<News, DevError> {
    let Some(Cluster { master, heard }) = cluster else { return std::future::pending().await };
    tokio::select! {
        words = heard.next() => words.map(News::Said).map_err(DevError::Start),
        ended = master.wait() => Ok(News::Ended(ended.unwrap_or_default())),
    }
}

/// It may have ended a moment ago.
fn signal(process: &Child, signal: Signal) {
    if let Some(pid) = process.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

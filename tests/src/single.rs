//! A node that a `master single` of its own supervises, as one on another host.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::{RAN, RUN};
use crate::{bins, wait};

/// A `master single`, which is killed with this value.
pub struct Single {
    process: Child,
    log: PathBuf,
}

impl Single {
    /// `master single NODE CONFIG`. What it prints is in `single.NODE.log` beside the config.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(node: &str, config: &Path) -> Result<Self> {
        Self::start_by(&[], node, config)
    }

    /// The same by another program, such as `ip netns exec HOST`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_by(program: &[&str], node: &str, config: &Path) -> Result<Self> {
        let path = config.with_file_name(format!("single.{node}.log"));
        let log = File::create(&path)?;
        let master = bins::folder()?.join("master");
        let mut command = match program {
            [] => Command::new(master),
            [first, more @ ..] => {
                let mut command = Command::new(first);
                command.args(more).arg(master);
                command
            }
        };
        let text = std::fs::read_to_string(config)?;
        command.args(["single", node]).arg(config);
        if !bins::names_program(&text) {
            command.arg("--appmain").arg(bins::folder()?.join(bins::node_program(&text)));
        }
        command.env("FF_RUN_DIR", config.with_file_name(RUN)).env("FF_TRIAL_RAN", config.with_file_name(RAN));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        Ok(Self { process: command.spawn().with_context(|| format!("{command:?}"))?, log: path })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Everything that it and its node have printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has the text.
    ///
    /// # Errors
    /// It does not.
    pub async fn until_logged(&self, text: &str) -> Result<()> {
        wait::until(&format!("`{text}` in {}", self.log.display()), async || {
            if self.log().contains(text) { Ok(()) } else { Err(self.log()) }
        })
        .await
    }

    /// Waits until it leaves, and gives its exit code.
    ///
    /// # Errors
    /// It stays.
    pub async fn exit_code(mut self) -> Result<Option<i32>> {
        Ok(timeout(wait::PATIENCE, self.process.wait()).await.context("`master single` stays")??.code())
    }

    /// Waits until it leaves because its node was told to stop with the cluster.
    ///
    /// # Errors
    /// It stays, or something failed.
    pub async fn stopped_with_the_cluster(self) -> Result<()> {
        let log = self.log();
        let code = self.exit_code().await?;
        ensure!(code == Some(0), "`master single` was not told to stop with the cluster: {code:?}\n{log}");
        Ok(())
    }
}

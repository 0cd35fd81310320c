//! A node that a `master single` of its own supervises, as one on another host.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{bins, wait};

/// A `master single`, which is killed with this value.
pub struct Single(Child);

impl Single {
    /// `master single NODE CONFIG`. What it prints is in `single.log` beside the config.
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
        let log = File::create(config.with_file_name("single.log"))?;
        let master = bins::folder()?.join("master");
        let mut command = match program {
            [] => Command::new(master),
            [first, more @ ..] => {
                let mut command = Command::new(first);
                command.args(more).arg(master);
                command
            }
        };
        command.args(["single", node]).arg(config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    /// Waits until it leaves because its node was told to stop with the cluster.
    ///
    /// # Errors
    /// It stays, or something failed.
    pub async fn stopped_with_the_cluster(mut self) -> Result<()> {
        let ended = timeout(wait::PATIENCE, self.0.wait()).await.context("`master single` stays")??;
        ensure!(ended.code() == Some(0), "`master single` was not told to stop with the cluster: {ended}");
        Ok(())
    }
}

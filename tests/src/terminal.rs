//! A program in a pseudo-terminal, as a person starts it; and the same program in a pipe.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::pty::{OpenptyResult, openpty};
use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::wait;

/// A program whose standard output and error are a terminal or a pipe. It is killed with this value.
pub struct Shown {
    process: Child,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Shown {
    /// Starts a program in a terminal of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn in_terminal(command: Command) -> Result<Self> {
        let OpenptyResult { master, slave } = openpty(None, None)?;
        Self::start(command, slave.try_clone()?.into(), slave.into(), File::from(master))
    }

    /// Starts a program that writes to a pipe.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn in_pipe(command: Command) -> Result<Self> {
        let (output, input): (PipeReader, _) = std::io::pipe()?;
        Self::start(command, input.try_clone()?.into(), input.into(), output)
    }

    fn start(
        mut command: Command,
        stdout: Stdio,
        stderr: Stdio,
        mut from: impl Read + Send + 'static,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        // The command has the other ends as well: they close with it.
        drop(command);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user has left gives EIO.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                kept.lock().extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
        });
        Ok(Self { process, output })
    }

    /// Everything that it has shown.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock()).into_owned()
    }

    /// Waits until it shows this text.
    ///
    /// # Errors
    /// It does not.
    pub async fn until_shown(&self, text: &str) -> Result<()> {
        wait::until(&format!("`{text}` is shown"), async || {
            let shown = self.text();
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        })
        .await
    }

    /// Waits until it leaves; its exit code.
    ///
    /// # Errors
    /// It stays.
    pub async fn exit_code(&mut self) -> Result<Option<i32>> {
        Ok(timeout(wait::PATIENCE, self.process.wait()).await.context("it stays")??.code())
    }

    /// Asks it to stop by SIGTERM and waits until it has left; its exit code.
    ///
    /// # Errors
    /// It stays.
    pub async fn stop(&mut self) -> Result<Option<i32>> {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        }
        self.exit_code().await
    }
}

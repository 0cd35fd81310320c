//! A real terminal that tests type into: a `tmux` server of its own for each.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{skip, wait};

/// A terminal with a shell in it. It ends with this value.
pub struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// Opens one of that size, with a shell in that folder; `None` when there is no `tmux`, which is said.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn open(folder: &Path, columns: u16, rows: u16) -> Result<Option<Self>> {
        if Command::new("tmux").arg("-V").output().await.is_err() {
            skip::lacks_server("tmux is not installed: tests/run installs it");
            return Ok(None);
        }
        let tmux = Self { folder: tempfile::Builder::new().prefix("tmux-").tempdir()? };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let at = folder.to_str().context("no name")?;
        // A shell without anybody's settings, whose prompt is known.
        let shell = "env -i PATH=\"$PATH\" TERM=\"$TERM\" LANG=C.UTF-8 PS1='ready> ' sh";
        tmux.tmux(&[
            "-u",
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "-c",
            at,
            shell,
        ])
        .await?;
        tmux.until("a shell", |screen| screen.contains("ready>")).await?;
        Ok(Some(tmux))
    }

    async fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("socket")).args(arguments);
        let output = command.env_remove("TMUX").output().await.context("tmux")?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types keys, by tmux's names for them: `Enter`, `C-c`, `PageDown`.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).await.map(drop)
    }

    /// Types a line and Enter.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).await?;
        self.press(&["Enter"]).await
    }

    /// Makes the terminal another size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).await.map(drop)
    }

    /// What is to be seen now.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"]).await
    }

    /// A property of the terminal, as tmux calls it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn property(&self, name: &str) -> Result<String> {
        let told = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]).await?;
        Ok(told.trim().to_owned())
    }

    /// Waits until what is to be seen is as wanted, and returns it.
    ///
    /// # Errors
    /// It does not become so, with what was to be seen last.
    pub async fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait::until(what, async || match self.screen().await {
            Ok(screen) if wanted(&screen) => Ok(screen),
            Ok(screen) => Err(screen),
            Err(error) => Err(error.to_string()),
        })
        .await
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.folder.path().join("socket");
        let _ = std::process::Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

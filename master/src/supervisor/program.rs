//! The program that runs nodes: who names it, and what it says of its apps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ffconfig::{AppFinding, AppFindingPlace, UnknownAppFinding};
use ffproto::NodeName;
use fftelemetry::colour::visible;
use tokio::process::Command;

use super::process::exit_of;

/// The environment variable that names the program, as `--appmain`.
pub const ENV: &str = "FF_APPMAIN";
/// The program beside the master, when nobody names one.
const BESIDE: &str = "appmain";
/// How long `appmain --apps` and `--check-apps` may take.
const APPS_MAX: Duration = Duration::from_secs(10);

/// What a master knows of the program before it has read a config.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// As `--appmain` names it.
    pub argument: Option<PathBuf>,
    /// As the environment names it.
    pub environment: Option<PathBuf>,
    /// The master's own, whose neighbour is meant when nobody names one.
    pub own: PathBuf,
}

impl Programs {
    /// With that one, whatever a config says.
    pub fn only(argument: PathBuf) -> Self {
        Self { argument: Some(argument), ..Self::default() }
    }

    /// The program, where a config names that one: the command line wins over the environment, that over the config, and the
    /// config over the master's neighbour.
    pub fn of(&self, config: Option<&Path>) -> Program {
        let named = [
            (NamedBy::Argument, self.argument.as_deref()),
            (NamedBy::Environment, self.environment.as_deref()),
            (NamedBy::Config, config),
        ];
        let named = named.into_iter().find_map(|(by, path)| Some((by, path?.to_owned())));
        let (by, path) = named.unwrap_or_else(|| (NamedBy::Nobody, self.own.with_file_name(BESIDE)));
        Program { path, by }
    }
}

/// The program that runs nodes. Displays with who has named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Who has named it.
    pub by: NamedBy,
}

/// Who has named a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The command line.
    Argument,
    /// The environment.
    Environment,
    /// The config.
    Config,
    /// Nobody: it stands beside the master.
    Nobody,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            NamedBy::Argument => "named by --appmain",
            NamedBy::Environment => "named by FF_APPMAIN",
            NamedBy::Config => "named by the config's `appmain`",
            NamedBy::Nobody => "beside the master",
        };
        write!(f, "{} ({by})", self.path.display())
    }
}

/// Why the names of the apps are not known.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// There is no such program.
    #[error("{program} is not there{hint}", program = .0, hint = hint(.0.by))]
    Missing(Program),
    /// The program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: Program,
        /// Why.
        source: io::Error,
    },
    /// The program has failed, or is another one.
    #[error("{program} does not tell its apps, as a program of `ffserver::main` does: {option}: {how}")]
    Failed {
        /// The program.
        program: Program,
        /// What it was asked.
        option: &'static str,
        /// How it ended, and its last line.
        how: String,
    },
}

fn hint(by: NamedBy) -> &'static str {
    match by {
        NamedBy::Nobody => {
            ": build it with `cargo build --workspace`, or name another one (--appmain PATH, FF_APPMAIN, or `appmain` in the config)"
        }
        NamedBy::Argument | NamedBy::Environment | NamedBy::Config => "",
    }
}

impl Program {
    /// The names of all apps that its nodes can run.
    ///
    /// # Errors
    /// The program is not there, or is none that runs nodes.
    pub async fn apps(&self) -> Result<Vec<String>, AppsError> {
        const OPTION: &str = "--apps";
        let mut apps = self.answer(OPTION, Command::new(&self.path).arg(OPTION)).await?;
        // No config can name another; and a program that runs no nodes prints what it likes.
        apps.retain(|app| NodeName::try_from(app.as_str()).is_ok());
        if apps.is_empty() { Err(self.failed(OPTION, "it names no app".into())) } else { Ok(apps) }
    }

    /// What the program says about the apps of a sound config, without connecting to anything.
    ///
    /// # Errors
    /// The program is not there or does not know the question, as one of an earlier release.
    pub async fn check_apps(&self, config: &Path) -> Result<Vec<AppFinding>, AppsError> {
        const OPTION: &str = "--check-apps";
        let lines = self.answer(OPTION, Command::new(&self.path).arg(OPTION).arg(config)).await?;
        let read = |line: &String| {
            let unknown = |_: UnknownAppFinding| self.failed(OPTION, format!("not understood: {line}"));
            let finding: AppFinding = line.parse().map_err(unknown)?;
            // What an app has written is shown in the operator's terminal.
            let shown = |text: &str| visible(text).into_owned();
            let at = finding.at.map(|at| AppFindingPlace { path: shown(&at.path), ..at });
            Ok(AppFinding { found: shown(&finding.found), at, ..finding })
        };
        lines.iter().map(read).collect()
    }

    fn failed(&self, option: &'static str, how: String) -> AppsError {
        AppsError::Failed { program: self.clone(), option, how: visible(&how).into_owned() }
    }

    /// The lines that the program prints when it is asked for something; it has a few seconds.
    async fn answer(&self, option: &'static str, command: &mut Command) -> Result<Vec<String>, AppsError> {
        let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let Ok(output) = tokio::time::timeout(APPS_MAX, run).await else {
            return Err(self.failed(option, format!("no answer within {} s", APPS_MAX.as_secs())));
        };
        let output = output.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => AppsError::Missing(self.clone()),
            _ => AppsError::Start { program: self.clone(), source },
        })?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().last().unwrap_or("it said nothing");
            return Err(self.failed(option, format!("{}: {last}", exit_of(output.status))));
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        let lines = stdout.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_command_line_wins_over_the_environment_that_over_the_config_and_that_over_the_neighbour() {
        let path = |name: &str| Some(PathBuf::from(name));
        let mut programs =
            Programs { argument: path("/a"), environment: path("/e"), own: "/bin/master".into() };
        let mut shown = vec![];
        for name in ["a", "e"] {
            shown.push(programs.of(Some(Path::new("/c"))).to_string());
            if name == "a" { programs.argument = None } else { programs.environment = None }
        }
        shown.extend([programs.of(Some(Path::new("/c"))).to_string(), programs.of(None).to_string()]);
        let expected = [
            "/a (named by --appmain)",
            "/e (named by FF_APPMAIN)",
            "/c (named by the config's `appmain`)",
            "/bin/appmain (beside the master)",
        ];
        assert_eq!(shown, expected);
    }

    /// What a shell script in the place of the program says, or why that is nothing.
    async fn apps_of(body: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("game");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let program = Programs::default().of(Some(&path));
        // A fork of another test may still have the file open for writing.
        let busy = |found: &Result<_, AppsError>| match found {
            Err(AppsError::Start { source, .. }) => source.kind() == io::ErrorKind::ExecutableFileBusy,
            _ => false,
        };
        loop {
            let found = program.apps().await;
            if !busy(&found) {
                return found.map_err(|error| error.to_string());
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_is_asked_for_its_apps_and_one_that_runs_no_nodes_is_told_apart() {
        let apps = apps_of("[ $1 = --apps ] && echo gateserver && echo netserver").await;
        assert_eq!(apps.unwrap(), ["gateserver", "netserver"]);
        for (body, how) in [
            ("echo broken >&2; exit 1", "--apps: exit code 1: broken"),
            ("exit 0", "--apps: it names no app"),
            ("echo $1", "--apps: it names no app"),
            ("kill -9 $$", "--apps: signal 9 (SIGKILL): it said nothing"),
        ] {
            let why = apps_of(body).await.unwrap_err();
            let told = format!(
                "game (named by the config's `appmain`) does not tell its apps, as a program of `ffserver::main` does: {how}"
            );
            assert!(why.ends_with(&told), "{why}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_none_is_said_with_who_has_named_it() {
        let programs = Programs { own: "/nowhere/master".into(), ..Programs::default() };
        let beside = programs.of(None).apps().await.unwrap_err().to_string();
        let hint = "build it with `cargo build --workspace`, or name another one (--appmain PATH, FF_APPMAIN, or `appmain` in the config)";
        assert_eq!(beside, format!("/nowhere/appmain (beside the master) is not there: {hint}"));
        let named = programs.of(Some(Path::new("/nowhere/game"))).apps().await.unwrap_err().to_string();
        assert_eq!(named, "/nowhere/game (named by the config's `appmain`) is not there");
        let none = Programs::only("/etc/passwd".into()).of(None).apps().await.unwrap_err().to_string();
        assert!(none.starts_with("/etc/passwd (named by --appmain) cannot be started: "), "{none}");
    }
}

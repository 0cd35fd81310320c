//! A build by cargo: its progress goes to the terminal as ever, and what the compiler says comes as messages, for the terminal and for
//! the page of the game.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fftelemetry::Colour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Errors that are kept of one build: whoever has that many looks into the terminal.
const ERRORS_MAX: usize = 50;

/// How a terminal is written to beside cargo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    colour: Colour,
    /// Whether lines have colours.
    coloured: bool,
    /// Whether cargo shows a line of progress, which a line of ours takes the place of until the next one.
    progress: bool,
}

impl Terminal {
    pub(super) fn of_this_process(colour: Colour) -> Self {
        let progress = io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { colour, coloured: colour.on_stdout(), progress }
    }

    fn show(self, rendered: &str) {
        let erase = if self.progress { "\r\x1b[K" } else { "" };
        let text = if self.coloured { rendered.to_owned() } else { plain(rendered) };
        let mut out = io::stdout().lock();
        // A terminal that is gone is no reason to stop.
        let _ = write!(out, "{erase}{text}").and_then(|()| out.flush());
    }

    /// What cargo is told of it.
    fn word(self) -> &'static str {
        match self.colour {
            Colour::Auto => "auto",
            Colour::Always => "always",
            Colour::Never => "never",
        }
    }
}

/// A build that runs. It is killed with this value.
#[derive(Debug)]
pub(super) struct Build {
    package: PathBuf,
    cargo: Child,
    program: Box<OsStr>,
    said: Lines<BufReader<ChildStdout>>,
    errors: Vec<String>,
    terminal: Terminal,
}

impl Build {
    /// Begins to build a package.
    ///
    /// # Errors
    /// Cargo cannot be started.
    pub(super) fn begin(cargo: &OsStr, package: &Path, terminal: Terminal) -> io::Result<Self> {
        let mut command = Command::new(cargo);
        command.args(["build", "--message-format=json-diagnostic-rendered-ansi", "--color", terminal.word()]);
        command.current_dir(package).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut cargo_runs = command.spawn()?;
        let stdout = cargo_runs.stdout.take().ok_or_else(|| io::Error::other("cargo has no output"))?;
        Ok(Self {
            package: package.to_owned(),
            cargo: cargo_runs,
            program: cargo.into(),
            said: BufReader::new(stdout).lines(),
            errors: Vec::new(),
            terminal,
        })
    }

    /// Waits for the end of the build; cancel-safe. Why there is no program, if there is none, as text without colours.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        while let Ok(Some(line)) = self.said.next_line().await {
            let Some(said) = of_compiler(&line) else { continue };
            self.terminal.show(&said.rendered);
            if said.is_error && self.errors.len() < ERRORS_MAX {
                self.errors.push(plain(&said.rendered));
            }
        }
        match self.cargo.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(_) if !self.errors.is_empty() => Err(self.errors.concat()),
            _ => Err(self.fault_of_manifest().await),
        }
    }

    /// Ends the build.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.cargo.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended a moment ago.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.cargo.wait().await;
    }

    /// What cargo itself says goes to the terminal alone. Of a Cargo.toml it says it again.
    async fn fault_of_manifest(&self) -> String {
        let mut command = Command::new(&self.program);
        command.args(["metadata", "--no-deps", "--format-version", "1", "--color", "never"]);
        command.current_dir(&self.package).stdin(Stdio::null()).kill_on_drop(true);
        match command.output().await {
            Ok(output) if !output.status.success() => plain(&String::from_utf8_lossy(&output.stderr)),
            _ => "cargo has failed: the terminal says why\n".into(),
        }
    }
}

/// What the compiler has said.
struct CompilerMessage {
    is_error: bool,
    /// As a terminal shows it, with colours.
    rendered: String,
}

/// A line of cargo's, when it is the compiler's.
fn of_compiler(line: &str) -> Option<CompilerMessage> {
    #[derive(Deserialize)]
    struct Line {
        message: Option<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        rendered: Option<String>,
        level: String,
        message: String,
    }
    let Message { rendered, level, message } = serde_json::from_str::<Line>(line).ok()?.message?;
    // Cargo says how many errors there were.
    let summary = message.starts_with("aborting due to ");
    let rendered = rendered.filter(|rendered| !rendered.is_empty() && !summary)?;
    Some(CompilerMessage { is_error: level.starts_with("error"), rendered })
}

/// The same text without the escape codes of a terminal, and with any other control character made readable.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_code(&mut chars),
            c => shown.push(c),
        }
    }
    fftelemetry::colour::visible(&shown).into_owned()
}

/// Passes over an escape code whose first character is read: `[` up to a letter, as colours are; `]` up to a bell or `\`, as links are;
/// else one character.
fn skip_code(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => drop(chars.find(|c| ('\x40'..='\x7e').contains(c))),
        Some(']') => drop(chars.find(|c| matches!(c, '\x07' | '\\'))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_page_has_no_code_of_a_terminal() {
        let rendered = "\x1b[1m\x1b[91merror\x1b[0m: no\n --> \x1b]8;;file:///x\x1b\\src/room.rs\x1b]8;;\x07:7:9\n\tx\u{7}";
        assert_eq!(plain(rendered), "error: no\n --> src/room.rs:7:9\n\tx\\x07");
        assert_eq!(plain("\x1b[31"), "");
    }

    #[test]
    fn what_the_compiler_says_is_told_from_what_cargo_says() {
        let line = |level: &str, message: &str| {
            format!(
                r#"{{"reason":"compiler-message","message":{{"rendered":"{message}\n","level":"{level}","message":"{message}"}}}}"#
            )
        };
        let read = |line: &str| of_compiler(line).map(|said| (said.is_error, said.rendered));
        assert_eq!(read(&line("error", "no")), Some((true, "no\n".into())));
        assert_eq!(read(&line("error: internal compiler error", "no")), Some((true, "no\n".into())));
        assert_eq!(read(&line("warning", "odd")), Some((false, "odd\n".into())));
        for other in [
            line("error", "aborting due to 2 previous errors"),
            r#"{"reason":"build-finished","success":false}"#.into(),
            r#"{"reason":"compiler-artifact","target":{}}"#.into(),
            "what a build prints".into(),
        ] {
            assert_eq!(read(&other), None, "{other}");
        }
    }
}

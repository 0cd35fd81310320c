//! Logs of the master and of the nodes: one call at the edge, `tracing` everywhere else.
//!
//! Lines go to standard output and, when the config names a file, to that file as well. A thread of its
//! own writes them, so a slow terminal or a full pipe can never block a node; lines that do not fit its
//! queue are dropped. `FF_LOG` chooses what is shown, in the syntax of `RUST_LOG` (default `info`).
//!
//! Lines are made without colours; the terminal's copy gets them where it is written ([`colour`]), so the file's has none.

pub mod colour;
mod tag;
pub mod metrics;

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

pub use colour::Colour;
pub use tag::{Tag, tagged, tagged_as};

/// Lines that may wait to be written; a line is some 150 bytes, so a few MiB at most.
const LINES_MAX: usize = 16 * 1024;

/// What [`init`] needs to know.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A file to append to, besides standard output.
    pub file: Option<PathBuf>,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// When standard output has colours.
    pub colour: Colour,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log file cannot be opened.
    #[error("the log file {} cannot be opened", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Logging has been set up before in this process.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the writing thread; dropping it writes what is queued.
#[must_use = "dropping it ends the log"]
pub struct Guard(#[allow(dead_code)] WorkerGuard);

/// Sets up the log of this process. Call it once, in `main`, before anything that logs.
///
/// # Errors
/// [`InitError`]; nothing is set up then.
pub fn init(options: Options) -> Result<Guard, InitError> {
    let file = match options.file {
        None => None,
        Some(path) => Some(open(path)?),
    };
    let tee = Tee { terminal: io::stdout(), file, colour: options.colour.on_stdout() && !options.json };
    let (writer, guard): (NonBlocking, _) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(tee);
    let filter = EnvFilter::try_from_env("FF_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,rocket=off,_=off,sqlx=warn"));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    let base = base.with_ansi(false);
    let done =
        if options.json { base.json().try_init() } else { base.map_event_format(tag::WithTag).try_init() };
    done.map(|()| Guard(guard)).map_err(|_| InitError::Twice)
}

fn open(path: PathBuf) -> Result<std::fs::File, InitError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    match made.and_then(|()| OpenOptions::new().create(true).append(true).open(&path)) {
        Ok(file) => Ok(file),
        Err(source) => Err(InitError::File { path, source }),
    }
}

/// Writes to standard output, in colours when it may, and to the file; an output that fails (a closed pipe, a full disk) is
/// passed over, because a log must not end what it describes.
struct Tee<T> {
    terminal: T,
    file: Option<std::fs::File>,
    colour: bool,
}

impl<T: Write> Write for Tee<T> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = colour::visible(&text);
        let shown = if self.colour { colour::by_level(&text) } else { Cow::Borrowed(&*text) };
        let _ = self.terminal.write_all(shown.as_bytes());
        if let Some(file) = &mut self.file {
            let _ = file.write_all(text.as_bytes());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.terminal.flush();
        Ok(())
    }
}

/// Prints what a program answers to its command line. A reader that has read enough (`| head -1`) is no failure.
///
/// # Errors
/// Standard output takes nothing, for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes an error with all its causes, each once: `what: because: because`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_has_colours_and_the_file_no_escape_byte() {
        let path = std::env::temp_dir().join(format!("fftelemetry-{}.log", std::process::id()));
        let mut tee = Tee { terminal: Vec::new(), file: Some(open(path.clone()).unwrap()), colour: true };
        tee.write_all(b"2026-11-30T04:23:12.000000Z  WARN client \x1b[2J refused\n").unwrap();
        let file = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file, "2026-11-30T04:23:12.000000Z  WARN client \\x1b[2J refused\n");
        let terminal = String::from_utf8(tee.terminal).unwrap();
        assert!(terminal.contains("\x1b[33mWARN\x1b[0m client \\x1b[2J refused"), "{terminal:?}");
    }
}

//! Logs of the master and of the nodes: one call at the edge, `tracing` everywhere else.
//!
//! Lines go to standard output and, when the config names files, to those as well. A thread of its own writes them, so a slow
//! terminal or a full pipe can never block a node; lines that do not fit its queue are dropped, counted, and said.
//! `FF_LOG` chooses what is shown, in the syntax of `RUST_LOG` (default `info`); [`Log::set_levels`] does while a process runs.
//!
//! What others have sent may stand in a line: control characters are made readable where a line is made, and long values are cut
//! ([`escape`], [`mod@line`]). An event with a field `peer` is limited: each place in the sources writes so many lines of one peer's
//! address, and then how many more there were ([`limit`]). A field `limited_by`, which is not shown, says of which kind an event is:
//! each kind has a limit of its own. Alone it limits what has no peer.
//!
//! ```
//! # let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
//! tracing::warn!(peer = %address, "no child: it proves nothing");
//! tracing::warn!(limited_by = "gateHandle", "handler gateHandle: no such room");
//! ```
//!
//! Lines are made without colours; the terminal's copy gets them where it is written ([`colour`]), so the files have none.

pub mod colour;
pub mod escape;
mod files;
mod levels;
pub mod limit;
pub mod line;
mod log;
pub mod metrics;
mod queue;
pub mod request;
mod tag;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use ffambient::Clock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use colour::Colour;
pub use files::Rotation;
pub use levels::LevelsError;
pub use log::Log;
pub use tag::{Tag, tagged, tagged_as};

use files::LogFile;
use line::Format;
use log::{LogLayer, Output, Outputs};

/// What [`init`] needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time of day that lines have.
    pub clock: Clock,
    /// A file to append to, besides standard output.
    pub file: Option<PathBuf>,
    /// A file for WARN and ERROR alone, besides that.
    pub errors: Option<PathBuf>,
    /// When files are begun anew.
    pub rotation: Rotation,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// The node's name, for JSON.
    pub node: Option<String>,
    /// What is shown, unless `FF_LOG` is set.
    pub levels: Option<String>,
    /// When standard output has colours.
    pub colour: Colour,
}

impl Options {
    /// Lines of text on standard output, with the time of that clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (file, errors, node, levels) = (None, None, None, None);
        let (rotation, colour) = (Rotation::default(), Colour::default());
        Self { clock, file, errors, rotation, json: false, node, levels, colour }
    }
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
    /// The levels of the config are not understood.
    #[error(transparent)]
    Levels(#[from] LevelsError),
    /// There is no thread to write the log.
    #[error("the log has no thread")]
    Thread(#[source] io::Error),
    /// Logging has been set up before in this process.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the writing thread; dropping it writes what is queued.
#[must_use = "dropping it ends the log"]
#[derive(Debug)]
pub struct Guard(Log);

impl Guard {
    /// The log, for what changes it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.queue().end();
    }
}

/// The log of this process, once it is set up.
#[must_use]
pub fn current() -> Option<&'static Log> {
    CURRENT.get()
}

static CURRENT: OnceLock<Log> = OnceLock::new();

/// Sets up the log of this process, and what is said of its panics. Call it once, in `main`, before anything that logs.
///
/// # Errors
/// [`InitError`]; nothing is set up then.
pub fn init(options: Options) -> Result<Guard, InitError> {
    let env = std::env::var("FF_LOG").ok();
    let (guard, layers, fault) = start(options, env.as_deref(), io::stdout())?;
    layers.try_init().map_err(|_| InitError::Twice)?;
    if let Some(fault) = fault {
        tracing::warn!("FF_LOG: {fault}");
    }
    let log = guard.0.clone();
    // There is none before: `try_init` has succeeded.
    let _ = CURRENT.set(log.clone());
    std::panic::set_hook(Box::new(move |about| log.write_panic(about, io::stderr())));
    Ok(guard)
}

/// The log with its thread and what hears for it; and what is wrong with `FF_LOG`, which is no reason not to run.
fn start(
    options: Options,
    env: Option<&str>,
    terminal: impl Write + Send + 'static,
) -> Result<(Guard, impl SubscriberInitExt, Option<LevelsError>), InitError> {
    let Options { clock, file, errors, rotation, json, node, levels, colour } = options;
    let open = |path: Option<PathBuf>| {
        let opened = path.map(|path| LogFile::open(path.clone(), rotation.clone()).map_err(|e| (path, e)));
        opened
            .transpose()
            .map(|file| file.map(Output::new))
            .map_err(|(path, source)| InitError::File { path, source })
    };
    let (file, errors) = (open(file)?, open(errors)?);
    let (filter, levels, fault) = levels::filter(levels.as_deref(), env);
    let fault = match fault {
        Some(fault) if env.is_none() => return Err(fault.into()),
        fault => fault,
    };
    let has_colour = colour.on_stdout() && !json;
    let log = Log::new(clock, Format { json, node }, levels);
    let queue = log.queue().clone();
    let outputs = Outputs { log: log.clone(), terminal, has_colour, file, errors };
    let thread = std::thread::Builder::new().name("log".into());
    thread.spawn(move || queue.write_all(outputs)).map_err(InitError::Thread)?;
    let layers = tracing_subscriber::registry().with(filter).with(LogLayer(log.clone()));
    Ok((Guard(log), layers, fault))
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
mod tests;

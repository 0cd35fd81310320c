//! Logs of the master and of the nodes: one call at the edge, `tracing` everywhere else.
//!
//! Lines go to standard output and, when the config names a file, to that file as well. A thread of its
//! own writes them, so a slow terminal or a full pipe can never block a node; lines that do not fit its
//! queue are dropped. `FF_LOG` chooses what is shown, in the syntax of `RUST_LOG` (default `info`).

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written; a line is some 150 bytes, so a few MiB at most.
const LINES_MAX: usize = 16 * 1024;

/// What [`init`] needs to know.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A file to append to, besides standard output.
    pub file: Option<PathBuf>,
    /// One JSON object a line instead of text.
    pub json: bool,
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
    let (writer, guard): (NonBlocking, _) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(Tee { file });
    let filter = EnvFilter::try_from_env("FF_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,rocket=off,_=off,sqlx=warn"));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    let done = if options.json {
        base.json().try_init()
    } else {
        base.with_ansi(io::stdout().is_terminal()).try_init()
    };
    done.map(|()| Guard(guard)).map_err(|_| InitError::Twice)
}

fn open(path: PathBuf) -> Result<std::fs::File, InitError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    match made.and_then(|()| OpenOptions::new().create(true).append(true).open(&path)) {
        Ok(file) => Ok(file),
        Err(source) => Err(InitError::File { path, source }),
    }
}

/// Writes to standard output and to the file; an output that fails (a closed pipe, a full disk) is
/// passed over, because a log must not end what it describes.
struct Tee {
    file: Option<std::fs::File>,
}

impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stdout().write_all(line);
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stdout().flush();
        Ok(())
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

//! One thing that is wrong with a config, with its place, and the error that lists them all.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A fault or a warning, with its place. Displays as one line:
/// ``config.json:5:15: servers.net1.netprot: unknown key; did you mean `netport`?``
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was named by whoever loads it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key: `servers.net1.remoteport[0].rootname`; empty when it is the text as a whole.
    pub path: String,
    /// What is wrong, without its place.
    pub message: String,
    /// The nearest text that would have been right.
    pub nearest: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// Why a config cannot be used. Displays whole: every fault on its line, then their number.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable {
        /// The file, as it was named.
        file: PathBuf,
        /// What the system said; it is part of the display, so it is not a `source`.
        reason: io::Error,
    },
    /// The text has these faults, at least one, sorted by place.
    Faults(Vec<Finding>),
}

impl LoadError {
    /// The faults; none when the file could not be read.
    pub fn faults(&self) -> &[Finding] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Faults(faults) => faults,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = match self {
            Self::Unreadable { file, reason } => {
                return write!(f, "{}: cannot be read: {reason}", file.display());
            }
            Self::Faults(faults) => faults,
        };
        for fault in faults {
            writeln!(f, "{fault}")?;
        }
        match faults.as_slice() {
            [only] => write!(f, "1 fault in {}", only.file.display()),
            [first, ..] => write!(f, "{} faults in {}", faults.len(), first.file.display()),
            [] => f.write_str("no fault"),
        }
    }
}

impl std::error::Error for LoadError {}

//! What does not fit between an app and its nodes, as the line in which it travels from the program that has the apps to
//! the one that reads the config.

use std::fmt;
use std::str::FromStr;

use crate::finding::Finding;

/// Something about the app of an entry under `servers` that shows without connecting anywhere. Travels as a line: `fault` or
/// `warning`, the entry's key, a sentence and perhaps its place in the config (line, column, path), with tabs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFinding {
    /// The key under `servers`.
    pub key: String,
    /// One sentence.
    pub found: String,
    /// Whether its nodes cannot start.
    pub fault: bool,
    /// Where in the config, when that is not the entry's `app`.
    pub at: Option<AppFindingPlace>,
}

/// Where in the config an [`AppFinding`] belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFindingPlace {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key: `servers.hall.conf.rounds`.
    pub path: String,
}

impl AppFinding {
    /// A finding of an entry's that knows its place.
    #[doc(hidden)] // The framework finds: authors read the fields.
    pub fn at(key: &str, finding: Finding, fault: bool) -> Self {
        let Finding { file: _, line, column, path, message, nearest } = finding;
        let found = match nearest {
            Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
            None => message,
        };
        Self { key: key.to_owned(), found, fault, at: Some(AppFindingPlace { line, column, path }) }
    }
}

/// A line that is no [`AppFinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownAppFinding;

const FAULT: &str = "fault";
const WARNING: &str = "warning";

impl fmt::Display for AppFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A sentence that an app has written may hold what separates lines and fields.
        let plain = |text: &str| text.replace(['\n', '\t'], " ");
        let (level, found) = (if self.fault { FAULT } else { WARNING }, plain(&self.found));
        write!(f, "{level}\t{}\t{found}", self.key)?;
        match &self.at {
            Some(AppFindingPlace { line, column, path }) => write!(f, "\t{line}\t{column}\t{}", plain(path)),
            None => Ok(()),
        }
    }
}

impl FromStr for AppFinding {
    type Err = UnknownAppFinding;

    fn from_str(line: &str) -> Result<Self, UnknownAppFinding> {
        let parts: Vec<&str> = line.split('\t').collect();
        let (level, key, found, at) = match parts.as_slice() {
            [level, key, found] => (*level, *key, *found, None),
            [level, key, found, line, column, path] => {
                let number = |text: &str| text.parse().map_err(|_| UnknownAppFinding);
                let (line, column) = (number(line)?, number(column)?);
                (*level, *key, *found, Some(AppFindingPlace { line, column, path: (*path).to_owned() }))
            }
            _ => return Err(UnknownAppFinding),
        };
        let fault = match level {
            FAULT => true,
            WARNING => false,
            _ => return Err(UnknownAppFinding),
        };
        Ok(Self { key: key.to_owned(), found: found.to_owned(), fault, at })
    }
}

impl fmt::Display for UnknownAppFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not `fault` or `warning`, a key, a sentence and perhaps its place, with tabs between them",
        )
    }
}

impl std::error::Error for UnknownAppFinding {}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(found: &str, fault: bool) -> AppFinding {
        AppFinding { key: "game".into(), found: found.into(), fault, at: None }
    }

    #[test]
    fn a_finding_is_read_as_it_was_written() {
        for one in [finding("command 7 has two handlers: `a`, `b`", true), finding("", false)] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        let path = "servers.game.conf.rounds".to_owned();
        let at = Some(AppFindingPlace { line: 3, column: 14, path });
        let placed = AppFinding { at, ..finding("expected u32, found null", true) };
        assert_eq!(placed.to_string().parse(), Ok(placed));
        // Releases of both programs mix.
        assert_eq!(finding("it is late", false).to_string(), "warning\tgame\tit is late");
    }

    #[test]
    fn a_finding_stays_one_line_whatever_its_sentence_holds() {
        let line = finding("two\nlines\tand a tab", true).to_string();
        assert_eq!(line.parse(), Ok(finding("two lines and a tab", true)));
    }

    #[test]
    fn a_line_that_is_no_finding_is_an_error() {
        for line in [
            "",
            "fault",
            "fault\tgame",
            "note\tgame\tit is late",
            "fault\tgame\tlate\tx\t1\tp",
            "fault\tgame\tlate\t1",
            "error: unexpected argument",
        ] {
            assert_eq!(line.parse::<AppFinding>(), Err(UnknownAppFinding), "{line:?}");
        }
    }
}

//! What does not fit between an app and its nodes, as the line in which it travels from the program that has the apps to
//! the one that reads the config.

use std::fmt;
use std::str::FromStr;

/// Something about the app of an entry under `servers` that shows without connecting anywhere. Travels as a line: `fault` or
/// `warning`, the entry's key and a sentence, with tabs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFinding {
    /// The key under `servers`.
    pub key: String,
    /// One sentence.
    pub found: String,
    /// Whether its nodes cannot start.
    pub fault: bool,
}

/// A line that is no [`AppFinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownAppFinding;

const FAULT: &str = "fault";
const WARNING: &str = "warning";

impl fmt::Display for AppFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A sentence that an app has written may hold what separates lines and fields.
        let found = self.found.replace(['\n', '\t'], " ");
        write!(f, "{}\t{}\t{found}", if self.fault { FAULT } else { WARNING }, self.key)
    }
}

impl FromStr for AppFinding {
    type Err = UnknownAppFinding;

    fn from_str(line: &str) -> Result<Self, UnknownAppFinding> {
        let mut parts = line.splitn(3, '\t');
        let mut next = || parts.next().ok_or(UnknownAppFinding);
        let (level, key, found) = (next()?, next()?, next()?);
        let fault = match level {
            FAULT => true,
            WARNING => false,
            _ => return Err(UnknownAppFinding),
        };
        Ok(Self { key: key.to_owned(), found: found.to_owned(), fault })
    }
}

impl fmt::Display for UnknownAppFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not `fault` or `warning`, a key and a sentence, with tabs between them")
    }
}

impl std::error::Error for UnknownAppFinding {}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(found: &str, fault: bool) -> AppFinding {
        AppFinding { key: "game".into(), found: found.into(), fault }
    }

    #[test]
    fn a_finding_is_read_as_it_was_written() {
        for one in [finding("command 7 has two handlers: `a`, `b`", true), finding("", false)] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
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
        for line in ["", "fault", "fault\tgame", "note\tgame\tit is late", "error: unexpected argument"] {
            assert_eq!(line.parse::<AppFinding>(), Err(UnknownAppFinding), "{line:?}");
        }
    }
}

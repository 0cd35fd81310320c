//! Colours of log lines in a terminal: whether there are any, which one a level has, and that no other escape code passes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use crate::escape::{acts, write_readable};

/// When lines have colours: the command line's `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    /// In a terminal, unless `NO_COLOR` is set (<https://no-color.org>) or the terminal is a `dumb` one.
    #[default]
    Auto,
    /// In pipes and files that the shell opens, too.
    Always,
    /// Nowhere.
    Never,
}

impl FromStr for Colour {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("`auto`, `always` or `never` is meant"),
        }
    }
}

impl Colour {
    /// Whether what this process writes to standard output has colours.
    #[must_use]
    pub fn on_stdout(self) -> bool {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        self.is_on(io::stdout().is_terminal(), no_color.as_deref(), term.as_deref())
    }

    fn is_on(self, terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let unwanted = no_color.is_some_and(|value| !value.is_empty());
                terminal && !unwanted && term.is_none_or(|term| term != "dumb")
            }
        }
    }
}

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The levels as `tracing` writes them, and their colours: red, yellow, green, blue, magenta.
const LEVELS: [(&str, &str); 5] = [
    ("ERROR", "\x1b[31m"),
    ("WARN", "\x1b[33m"),
    ("INFO", "\x1b[32m"),
    ("DEBUG", "\x1b[34m"),
    ("TRACE", "\x1b[35m"),
];

/// A log line with its level in the level's colour and its time dimmed; any other line as it is. A line of a node that came
/// through a pipe is recognised by its form, so it needs no colours of its own.
#[must_use]
pub fn by_level(line: &str) -> Cow<'_, str> {
    let Some((time, rest)) = line.split_once(' ') else { return line.into() };
    let spaces = rest.len() - rest.trim_start_matches(' ').len();
    let (indent, rest) = rest.split_at(spaces);
    let level = LEVELS.iter().find_map(|(level, colour)| Some((level, colour, rest.strip_prefix(level)?)));
    match level {
        Some((level, colour, text)) if is_time(time) && text.starts_with(' ') => {
            format!("{DIM}{time}{PLAIN} {indent}{colour}{level}{PLAIN}{text}").into()
        }
        _ => line.into(),
    }
}

/// Whether this is a time as `tracing` writes it: `2026-11-30T04:23:12.000000Z`.
fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.contains('T') && text.starts_with(|first: char| first.is_ascii_digit())
}

/// The same text with every control character but tab and line break made readable (`\x1b`): what a client has sent may stand
/// in a log line, and must not command the terminal that shows it.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| acts(c) && c != '\n' && c != '\t';
    if !text.contains(hidden) {
        return text.into();
    }
    let mut readable = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) {
            write_readable(&mut readable, c);
        } else {
            readable.push(c);
        }
    }
    readable.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        let on = |colour: Colour, terminal, no_color: Option<&str>, term: &str| {
            colour.is_on(terminal, no_color.map(OsStr::new), Some(OsStr::new(term)))
        };
        assert!(on(Colour::Auto, true, None, "xterm"));
        assert!(on(Colour::Auto, true, Some(""), "xterm"), "an empty NO_COLOR says nothing");
        assert!(!on(Colour::Auto, true, Some("1"), "xterm"));
        assert!(!on(Colour::Auto, true, None, "dumb"));
        assert!(!on(Colour::Auto, false, None, "xterm"));
        assert!(
            on(Colour::Always, false, Some("1"), "dumb"),
            "the command line is nearer than the environment"
        );
        assert!(!on(Colour::Never, true, None, "xterm"));
        assert_eq!(
            ["auto", "always", "never"].map(str::parse),
            [Colour::Auto, Colour::Always, Colour::Never].map(Ok)
        );
        assert!("sometimes".parse::<Colour>().is_err());
    }

    #[test]
    fn a_log_line_has_its_levels_colour_and_others_stay_as_they_are() {
        let at = "2026-11-30T04:23:12.000000Z";
        assert_eq!(
            by_level(&format!("{at}  WARN it is late")),
            format!("\x1b[2m{at}\x1b[0m  \x1b[33mWARN\x1b[0m it is late")
        );
        assert_eq!(
            by_level(&format!("{at} ERROR it fails\n")),
            format!("\x1b[2m{at}\x1b[0m \x1b[31mERROR\x1b[0m it fails\n")
        );
        for other in ["", "WARN", "the INFO desk", "  INFO x", "a WARN b", &format!("{at} INFORMED of it")] {
            assert_eq!(by_level(other), other);
        }
    }

    #[test]
    fn an_escape_code_is_shown_and_does_not_act() {
        assert_eq!(visible("two\tlines\nof café"), "two\tlines\nof café");
        assert_eq!(visible("\x1b[2J\x07\r\u{9b}2J\x7f"), "\\x1b[2J\\x07\\r\\x9b2J\\x7f");
    }
}

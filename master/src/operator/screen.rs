//! The screen: whether standard output is a terminal, how large it is, and lines that are drawn again in their place.

use std::io::{IsTerminal, stdout};

use fftelemetry::Colour;
use rustix::termios::tcgetwinsize;

use super::{AskError, print};

/// Standard output as a person sees it.
pub(super) struct Screen {
    pub(super) is_terminal: bool,
    pub(super) colours: bool,
}

impl Screen {
    pub(super) fn of_stdout(colour: Colour) -> Self {
        Self { is_terminal: stdout().is_terminal(), colours: colour.on_stdout() }
    }

    /// Columns and rows, now: people resize. `None` when it is no terminal, or one that does not say.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        let size = self.is_terminal.then(|| tcgetwinsize(stdout()).ok()).flatten()?;
        (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
    }

    pub(super) fn width(&self) -> Option<usize> {
        self.size().map(|(columns, _)| columns)
    }
}

/// Lines that are drawn again where they stand.
#[derive(Default)]
pub(super) struct Redrawn {
    lines: usize,
}

impl Redrawn {
    /// Draws; each line must fit the terminal's width, and all of them its height.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<(), AskError> {
        let text = again(self.lines, lines);
        self.lines = lines.len();
        print(&text)
    }
}

/// What a terminal needs to show lines in the place of so many others. Pure.
fn again(before: usize, lines: &[String]) -> String {
    let mut text = if before > 0 { format!("\x1b[{before}F") } else { String::new() };
    for line in lines {
        text.push_str("\x1b[2K");
        text.push_str(line);
        text.push('\n');
    }
    // What is left of a longer list.
    text + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_over_those_of_before() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(again(0, &lines(&["a"])), "\x1b[2Ka\n\x1b[J");
        assert_eq!(again(2, &lines(&["a"])), "\x1b[2F\x1b[2Ka\n\x1b[J");
    }
}

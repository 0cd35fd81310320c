//! The terminal of `master top`: raw and on its other screen for as long as this lives, and the codes that draw.

use std::io::{self, IsTerminal, Write, stdin, stdout};

use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color, Modifier};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::super::client::AskError;

/// The other screen, without a cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// The screen of before, as it was.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// A terminal that is given back when this is dropped, also by a panic.
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    pub(super) fn enter() -> Result<Self, AskError> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            let why = "`master top` needs a terminal; `master status --watch` does without";
            return Err(AskError::Usage(why.into()));
        }
        let failed = |error: rustix::io::Errno| AskError::Output(error.into());
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).map_err(failed)?;
        let entered = Self { before };
        write(ENTER).map_err(AskError::Output)?;
        Ok(entered)
    }

    /// Gives it back.
    pub(super) fn leave(self) {}
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.before);
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Draws cells by the codes that every terminal of today knows.
#[derive(Default)]
pub(super) struct Ansi {
    out: Vec<u8>,
}

impl Ansi {
    fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// The code of a cell's style.
fn style(cell: &Cell) -> String {
    let mut code = "\x1b[0".to_owned();
    for (modifier, number) in [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2"), (Modifier::REVERSED, ";7")] {
        if cell.modifier.contains(modifier) {
            code.push_str(number);
        }
    }
    code.push_str(match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        _ => "",
    });
    code + "m"
}

impl Backend for Ansi {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let (mut next, mut worn) = (None, String::new());
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                self.push(&format!("\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1));
            }
            let wanted = style(cell);
            if wanted != worn {
                self.push(&wanted);
                worn = wanted;
            }
            self.push(cell.symbol());
            next = Some((x.saturating_add(1), y));
        }
        self.push("\x1b[0m");
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.push("\x1b[?25l");
        Ok(())
    }

    /// It comes back with the screen of before.
    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing here asks where it is.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        self.push(&format!("\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1));
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.push("\x1b[0m\x1b[2J");
        Ok(())
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.push(match region {
            ClearType::All => "\x1b[2J",
            ClearType::AfterCursor => "\x1b[J",
            ClearType::BeforeCursor => "\x1b[1J",
            ClearType::CurrentLine => "\x1b[2K",
            ClearType::UntilNewLine => "\x1b[K",
        });
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        let size = tcgetwinsize(stdout())?;
        // One that does not say is as large as the first ones were.
        match (size.ws_col, size.ws_row) {
            (0, _) | (_, 0) => Ok(Size::new(80, 24)),
            (columns, rows) => Ok(Size::new(columns, rows)),
        }
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = write(&self.out);
        self.out.clear();
        written
    }
}

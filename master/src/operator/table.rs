//! The table that people read: rows of cells become aligned lines, as wide as the terminal at most. Pure.

use fftelemetry::colour::visible;

/// The space between two columns.
const GAP: usize = 2;
/// The narrowest last column that is cut; a terminal that is too narrow for it wraps instead.
const LAST_MIN: usize = 12;

/// How a cell is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// In order.
    Good,
    /// On its way.
    Busy,
    /// Wrong.
    Bad,
    /// By the way.
    Faint,
}

impl Tone {
    /// A text in the tone's colour.
    pub(super) fn paint(self, text: &str, colours: bool) -> String {
        let code = match self {
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Plain => return text.to_owned(),
        };
        if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A cell: what control characters it brings are readable and do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = visible(text.as_ref()).replace(['\n', '\t'], " ");
        Self { text, tone, right: false }
    }

    /// A number, which stands at the right of its column.
    pub(super) fn number(number: impl ToString) -> Self {
        Self { right: true, ..Self::new(number.to_string()) }
    }
}

/// A table with a line of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    names: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, each with its end. A column in which no row has anything is left out.
    pub(super) fn text(&self, width: Option<usize>, colours: bool) -> String {
        let cell = |row: &[Cell], at: usize| row.get(at).cloned().unwrap_or_else(|| Cell::new(""));
        let used: Vec<usize> = (0..self.names.len())
            .filter(|&at| self.rows.is_empty() || self.rows.iter().any(|row| !cell(row, at).text.is_empty()))
            .collect();
        let names: Vec<Cell> = self
            .names
            .iter()
            .enumerate()
            .map(|(at, name)| Cell {
                right: self.rows.iter().any(|row| row.get(at).is_some_and(|cell| cell.right)),
                ..Cell::toned(name, Tone::Faint)
            })
            .collect();
        let lines: Vec<Vec<Cell>> = std::iter::once(&names)
            .chain(&self.rows)
            .map(|row| used.iter().map(|&at| cell(row, at)).collect())
            .collect();
        let widths: Vec<usize> = (0..used.len())
            .map(|at| lines.iter().map(|line| line[at].text.chars().count()).max().unwrap_or(0))
            .collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let last = width.map(|width| width.saturating_sub(before).max(LAST_MIN));
        lines.iter().map(|line| line_of(line, &widths, last, colours)).collect()
    }
}

fn line_of(cells: &[Cell], widths: &[usize], last_max: Option<usize>, colours: bool) -> String {
    let mut line = String::new();
    for (at, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let is_last = at + 1 == cells.len();
        let text = match last_max {
            Some(max) if is_last => cut(&cell.text, max),
            _ => cell.text.clone(),
        };
        let room = if is_last { width.min(last_max.unwrap_or(width)) } else { width };
        let pad = " ".repeat(room.saturating_sub(text.chars().count()));
        let painted = cell.tone.paint(&text, colours && !text.is_empty());
        match (cell.right, is_last) {
            (true, _) => line.extend([pad.as_str(), &painted]),
            (false, true) => line.push_str(&painted),
            (false, false) => line.extend([&painted, pad.as_str()]),
        }
        if !is_last {
            line.push_str(&" ".repeat(GAP));
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// A text of at most so many characters; one that is longer ends with an ellipsis.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NODE", "EMPTY", "PID", "NOTE"]);
        table.row([Cell::toned("gate", Tone::Good), Cell::new(""), Cell::number(7), Cell::new("")]);
        table.row([
            Cell::new("game12"),
            Cell::new(""),
            Cell::number(1234),
            Cell::new("it has ended and ended"),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_numbers_at_the_right_and_empty_ones_left_out() {
        let text = table().text(None, false);
        assert_eq!(text, "NODE     PID  NOTE\ngate       7\ngame12  1234  it has ended and ended\n");
    }

    #[test]
    fn the_last_column_is_cut_at_the_terminals_width() {
        let text = table().text(Some(30), false);
        assert!(text.contains("game12  1234  it has ended an…\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = table().text(None, true);
        assert!(coloured.contains("\x1b[32mgate\x1b[0m       7\n"), "{coloured:?}");
    }

    #[test]
    fn control_characters_do_not_command_the_terminal() {
        let mut table = Table::new(&["A"]);
        table.row([Cell::new("\x1b[2J\nb")]);
        assert_eq!(table.text(None, true), "\x1b[2mA\x1b[0m\n\\x1b[2J b\n");
    }

    #[test]
    fn a_table_without_rows_has_its_names() {
        assert_eq!(Table::new(&["A", "B"]).text(Some(80), false), "A  B\n");
    }
}

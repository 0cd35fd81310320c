//! The picture of `master top`: a model becomes cells. Pure.

use fftelemetry::colour::visible;
use ratatui_core::buffer::Buffer;
use ratatui_core::style::{Color, Modifier, Style};

use super::super::table::{Tone, cut};
use super::model::{Model, Row};

/// Lines that are no rows: two above, one below.
const AROUND: u16 = 3;
/// The columns.
const COLUMNS: [&str; 11] =
    ["NODE", "KIND", "STATE", "PID", "SESSIONS", "MSGS/S", "P99", "LAG", "CPU", "MEMORY", "NOTE"];
/// The first column whose texts stand at the right, and the first behind those.
const RIGHT: std::ops::Range<usize> = 3..10;

/// Draws the whole screen.
pub(super) fn draw(model: &mut Model, colours: bool, buffer: &mut Buffer) {
    let area = buffer.area;
    model.fit(area.height.saturating_sub(AROUND).into());
    let shown: Vec<&Row> = model.rows.iter().skip(model.first).take(model.room).collect();
    let widths = widths(&model.rows);
    line(buffer, 0, &head(model), head_style(model, colours));
    let names: Vec<String> = COLUMNS.iter().map(|name| (*name).to_owned()).collect();
    cells(buffer, 1, &names, &widths, |_| Style::new().add_modifier(Modifier::REVERSED));
    for (at, row) in shown.iter().enumerate() {
        let y = u16::try_from(at + 2).unwrap_or(u16::MAX);
        let dim = model.gone.is_some();
        cells(buffer, y, &texts(row), &widths, |column| row_style(row, column, colours, dim));
    }
    let (first, last) = (model.first + usize::from(!shown.is_empty()), model.first + shown.len());
    let foot = format!(
        "q quit · ↑ ↓ PgUp PgDn scroll · s sort: {} · nodes {first}–{last} of {}",
        model.sort.name(),
        model.rows.len()
    );
    line(buffer, area.height.saturating_sub(1), &foot, Style::new().add_modifier(Modifier::DIM));
}

fn head(model: &Model) -> String {
    match &model.gone {
        Some((why, _)) => format!("no master answers: {why}; looking for it · before that: {}", model.head),
        None => model.head.clone(),
    }
}

fn head_style(model: &Model, colours: bool) -> Style {
    let tone = if model.gone.is_some() { Tone::Bad } else { Tone::Plain };
    toned(tone, colours).add_modifier(Modifier::BOLD)
}

fn toned(tone: Tone, colours: bool) -> Style {
    match tone {
        Tone::Good if colours => Style::new().fg(Color::Green),
        Tone::Busy if colours => Style::new().fg(Color::Yellow),
        Tone::Bad if colours => Style::new().fg(Color::Red),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}

fn row_style(row: &Row, column: usize, colours: bool, dim: bool) -> Style {
    match COLUMNS.get(column) {
        _ if dim => Style::new().add_modifier(Modifier::DIM),
        Some(&"STATE" | &"NOTE") => toned(row.tone, colours),
        _ => Style::new(),
    }
}

/// The texts of a row, in the order of the columns.
fn texts(row: &Row) -> Vec<String> {
    let some = |value: Option<f64>, shown: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), shown);
    vec![
        row.name.clone(),
        row.kind.clone(),
        row.state.clone(),
        row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        row.sessions.to_string(),
        some(row.rate, |rate| format!("{rate:.0}")),
        some(row.p99_s, time),
        some(row.lag_s, time),
        some(row.cpu, |cpu| format!("{:.0}%", cpu * 100.0)),
        some(row.memory_bytes, memory),
        row.note.clone(),
    ]
}

/// Seconds as people read them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1}s"),
        s if s >= 0.001 => format!("{:.1}ms", s * 1e3),
        s => format!("{:.0}µs", s * 1e6),
    }
}

/// Bytes as people read them.
fn memory(bytes: f64) -> String {
    let mib = bytes / 1_048_576.0;
    if mib >= 1024.0 { format!("{:.1}G", mib / 1024.0) } else { format!("{mib:.0}M") }
}

/// How wide each column is: of all rows, so that it stays while somebody scrolls.
fn widths(rows: &[Row]) -> Vec<usize> {
    let mut widths: Vec<usize> = COLUMNS.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(texts(row)) {
            *width = (*width).max(text.chars().count());
        }
    }
    widths
}

/// A line of cells, on a ground of the first one's style.
fn cells(buffer: &mut Buffer, y: u16, texts: &[String], widths: &[usize], style: impl Fn(usize) -> Style) {
    let mut x = 0u16;
    for (column, (text, &width)) in texts.iter().zip(widths).enumerate() {
        let padded =
            if RIGHT.contains(&column) { format!("{text:>width$}  ") } else { format!("{text:<width$}  ") };
        put(buffer, x, y, &padded, style(column));
        x = x.saturating_add(u16::try_from(width + 2).unwrap_or(u16::MAX));
    }
}

fn line(buffer: &mut Buffer, y: u16, text: &str, style: Style) {
    let text = cut(text, buffer.area.width.into());
    put(buffer, 0, y, &text, style);
}

/// A text at a place, as far as it fits; what control characters it has are readable.
fn put(buffer: &mut Buffer, x: u16, y: u16, text: &str, style: Style) {
    if y < buffer.area.bottom() && x < buffer.area.right() {
        buffer.set_string(x, y, visible(text).replace(['\n', '\t'], " "), style);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ratatui_core::layout::Rect;
    use tokio::time::Instant;

    use super::*;

    fn model(nodes: usize) -> Model {
        let node = |at| {
            format!(
                r#"{{"name": "game{at}", "kind": "game", "state": "ready", "pid": {at}, "reason": "\u001b[2J"}}"#
            )
        };
        let nodes: Vec<String> = (0..nodes).map(node).collect();
        let status = format!(r#"{{"cluster": "demo", "state": "up", "nodes": [{}]}}"#, nodes.join(","));
        let mut model = Model::default();
        model.seen(serde_json::from_str(&status).unwrap(), BTreeMap::new(), Instant::now());
        model
    }

    fn drawn(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw(model, true, &mut buffer);
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn a_cluster_is_a_head_a_row_for_each_node_and_a_foot() {
        let lines = drawn(&mut model(6), 100, 24);
        assert_eq!(lines[0], "demo is up · 6 of 6 nodes ready · 0 sessions · 0 msgs/s");
        assert!(
            lines[1].starts_with("NODE   KIND  STATE  PID  SESSIONS  MSGS/S  P99  LAG  CPU  MEMORY  NOTE"),
            "{lines:#?}"
        );
        assert!(
            lines[2].starts_with("game0  game  ready    0         0       -    -    -    -       -"),
            "{lines:#?}"
        );
        assert!(lines[2].ends_with("\\x1b[2J"), "{lines:#?}");
        assert!(lines[7].starts_with("game5 ") && lines[8].is_empty(), "{lines:#?}");
        assert!(lines[23].ends_with("nodes 1–6 of 6"), "{lines:#?}");
    }

    #[test]
    fn two_hundred_nodes_and_a_small_terminal_are_drawn_as_far_as_they_fit() {
        let mut model = model(200);
        let lines = drawn(&mut model, 200, 24);
        assert!(lines[22].starts_with("game20 ") && lines[23].ends_with("nodes 1–21 of 200"), "{lines:#?}");
        for (width, height) in [(1, 1), (5, 2), (20, 3), (0, 0)] {
            drawn(&mut model, width, height);
        }
        model.gone("refused".into(), Instant::now());
        assert!(drawn(&mut model, 200, 24)[0].starts_with("no master answers: refused"));
    }

    #[test]
    fn times_and_sizes_are_short() {
        assert_eq!([0.000_25, 0.0123, 2.5].map(time), ["250µs", "12.3ms", "2.5s"]);
        assert_eq!([1e6, 12e6, 5e9].map(memory), ["1M", "11M", "4.7G"]);
    }
}

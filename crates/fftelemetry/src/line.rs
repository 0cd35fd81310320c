//! The form of a line, as text and as JSON: time, level, message, fields, and from WARN up where in the sources it stands.

use std::fmt::{self, Write};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use crate::escape::Readable;
use crate::tag::Tag;

/// The bytes of a message; of what is longer the line says how much is missing.
pub const MESSAGE_BYTES_MAX: usize = 2048;
/// The bytes of one field's value.
pub const VALUE_BYTES_MAX: usize = 512;
/// The bytes after which a line has no further fields.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The form of the lines of a process.
#[derive(Debug, Clone, Default)]
pub struct Format {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// The node's name, for JSON. A line of a process of several nodes has its node's, by [`tagged`](crate::tagged), in either form.
    pub node: Option<String>,
}

/// Where in the sources a line comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    file: &'a str,
    line: u32,
}

impl<'a> At<'a> {
    #[cfg(test)]
    pub(crate) fn new(file: &'a str, line: u32) -> Self {
        Self { file, line }
    }

    /// Of WARN and ERROR; a path of the machine that has built the program says nothing elsewhere.
    pub(crate) fn of(metadata: &Metadata<'a>) -> Option<Self> {
        let file = metadata.file().filter(|file| !file.starts_with('/'))?;
        (*metadata.level() <= Level::WARN).then_some(Self { file, line: metadata.line()? })
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Format {
    /// A line with a message and fields whose values are texts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fftelemetry::line::Format;
    ///
    /// let line = Format::default().line(Duration::ZERO, tracing::Level::INFO, "hello\n", &[("from", "ann")]);
    /// assert_eq!(line, "1970-01-01T00:00:00.000000Z  INFO hello\\n from=ann\n");
    /// ```
    #[must_use]
    pub fn line(&self, now: Duration, level: Level, message: &str, fields: &[(&str, &str)]) -> String {
        let mut draft = self.begin(now, level);
        draft.value("message", format_args!("{message}"));
        fields.iter().for_each(|(name, value)| draft.value(name, format_args!("{value}")));
        draft.end(None, "", &[], None)
    }

    pub(crate) fn begin(&self, now: Duration, level: Level) -> Draft<'_> {
        let (time, mut line) = (Utc(now), String::with_capacity(160));
        // Writes into a String cannot fail.
        let _ = if self.json {
            write!(line, "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"fields\":{{")
        } else {
            write!(line, "{time} {level:>5}")
        };
        Draft { format: self, line, is_first: true }
    }
}

/// A line that is being written; the fields of an event write themselves into it.
pub(crate) struct Draft<'a> {
    format: &'a Format,
    line: String,
    is_first: bool,
}

impl Draft<'_> {
    /// The fields of a span as a text: `a=1 b=2`.
    pub(crate) fn fields(record: impl FnOnce(&mut Draft<'_>)) -> String {
        let format = Format::default();
        let mut draft = Draft { format: &format, line: String::new(), is_first: true };
        record(&mut draft);
        draft.line.trim_start().to_owned()
    }

    /// The spans around an event stand before its message.
    pub(crate) fn spans(&mut self, spans: &[String]) {
        if !self.format.json {
            spans.iter().for_each(|span| {
                self.line.push(' ');
                self.line.push_str(span);
                self.line.push(':');
            });
        }
    }

    /// Begins a field; `false` when the line is too long for another one.
    fn name(&mut self, name: &str) -> bool {
        if self.line.len() > LINE_BYTES_MAX {
            return false;
        }
        if self.format.json {
            let comma = if self.is_first { "" } else { "," };
            let _ = write!(self.line, "{comma}\"{name}\":");
        } else if name == "message" {
            self.line.push(' ');
        } else {
            let _ = write!(self.line, " {name}=");
        }
        self.is_first = false;
        true
    }

    /// A field whose value is a text, of others perhaps.
    pub(crate) fn value(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if !self.name(name) {
            return;
        }
        let bytes_max = if name == "message" { MESSAGE_BYTES_MAX } else { VALUE_BYTES_MAX };
        if self.format.json {
            let mut readable = Readable::new(String::new(), bytes_max);
            let _ = readable.write_fmt(value);
            write_json(&mut self.line, &readable.end());
        } else {
            let mut readable = Readable::new(std::mem::take(&mut self.line), bytes_max);
            let _ = readable.write_fmt(value);
            self.line = readable.end();
        }
    }

    /// A field whose value is a number, true or false.
    fn plain(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if self.name(name) {
            let _ = self.line.write_fmt(value);
        }
    }

    pub(crate) fn end(mut self, at: Option<At<'_>>, target: &str, spans: &[String], tag: Tag) -> String {
        let line = &mut self.line;
        if !self.format.json {
            if let Some(at) = at {
                let _ = write!(line, " at={at}");
            }
            if let Some(tag) = tag {
                let _ = write!(line, " node={tag}");
            }
            line.push('\n');
            return self.line;
        }
        line.push('}');
        let node = tag.or(self.format.node.as_deref());
        let texts = [("node", node), ("target", Some(target).filter(|it| !it.is_empty()))];
        for (name, text) in texts {
            if let Some(text) = text {
                let _ = write!(line, ",\"{name}\":");
                write_json(line, text);
            }
        }
        if let Some(At { file, line: number }) = at {
            let _ = write!(line, ",\"filename\":\"{file}\",\"line_number\":{number}");
        }
        for (n, span) in spans.iter().enumerate() {
            line.push_str(if n == 0 { ",\"spans\":[" } else { "," });
            write_json(line, span);
        }
        line.push_str(if spans.is_empty() { "}\n" } else { "]}\n" });
        self.line
    }
}

impl Visit for Draft<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if is_shown(field) {
            self.value(raw(field.name()), format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match (is_shown(field), self.format.json || field.name() == "message") {
            (false, _) => {}
            (true, true) => self.value(raw(field.name()), format_args!("{value}")),
            (true, false) => self.value(raw(field.name()), format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.value(raw(field.name()), format_args!("{}", crate::chain(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if is_shown(field) {
            self.plain(raw(field.name()), format_args!("{value}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(raw(field.name()), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(raw(field.name()), format_args!("{value}"));
    }
}

/// A name that had to be written `r#type`.
fn raw(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// The crate `log` writes its own facts as fields; and what an event is limited by may be a field for that alone.
fn is_shown(field: &Field) -> bool {
    !field.name().starts_with("log.") && field.name() != LIMITED_BY
}

/// The field that says of which kind an event is: each has a limit of its own. It is not shown.
pub(crate) const LIMITED_BY: &str = "limited_by";

/// The value of one field of an event.
pub(crate) struct Pick<'a> {
    name: &'a str,
    pub(crate) found: Option<String>,
}

impl<'a> Pick<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self { name, found: None }
    }
}

impl Visit for Pick<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.name == field.name() {
            let mut readable = Readable::new(String::new(), VALUE_BYTES_MAX);
            let _ = write!(readable, "{value:?}");
            self.found = Some(readable.end());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Writes a text that has no control characters any more.
fn write_json(to: &mut String, text: &str) {
    to.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            to.push('\\');
        }
        to.push(c);
    }
    to.push('"');
}

/// A time since 1970 as lines have it: `2026-11-30T04:23:12.000000Z`.
struct Utc(Duration);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.as_secs(), self.0.subsec_micros());
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar whose years begin in March here.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "ann\"\\\r\n2026-11-30T00:00:00.000000Z ERROR all is lost\x1b[2J\u{9b}\u{202e}";

    #[test]
    fn a_time_is_of_the_calendar() {
        let at = |seconds, micros: u32| Utc(Duration::new(seconds, micros * 1_000)).to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_399, 1), "2000-02-28T23:59:59.000001Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_796_012_592, 999_999), "2026-11-30T04:23:12.999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn a_hostile_value_makes_no_second_line_and_no_control_character_in_either_form() {
        for json in [false, true] {
            let format = Format { json, node: Some("net".into()) };
            let line = format.line(Duration::ZERO, Level::WARN, HOSTILE, &[("name", HOSTILE)]);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(char::is_control) && !body.contains('\u{202e}'), "{line:?}");
        }
    }

    #[test]
    fn json_is_an_object_with_all_that_a_program_asks_for() {
        let format = Format { json: true, node: Some("net".into()) };
        let mut draft = format.begin(Duration::ZERO, Level::WARN);
        draft.value("message", format_args!("{HOSTILE}"));
        draft.plain("n", format_args!("7"));
        let line = draft.end(Some(At::new("a.rs", 3)), "a", &["s{x=1}".into()], None);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["fields"]["n"], 7);
        let shown = value["fields"]["message"].as_str().unwrap();
        assert!(
            shown.starts_with("ann\"\\\\r\\n2026") && shown.ends_with("\\x1b[2J\\x9b\\u{202e}"),
            "{shown:?}"
        );
        assert_eq!(
            (&value["node"], &value["target"], &value["filename"], &value["line_number"], &value["spans"][0]),
            (&"net".into(), &"a".into(), &"a.rs".into(), &3.into(), &"s{x=1}".into())
        );
    }

    #[test]
    fn a_line_is_bounded_however_much_a_peer_says() {
        let (long, format) = ("é".repeat(100_000), Format::default());
        let fields: Vec<(&str, &str)> = (0..1_000).map(|_| ("x", &*long)).collect();
        let line = format.line(Duration::ZERO, Level::INFO, &long, &fields);
        assert!(line.len() < LINE_BYTES_MAX + 2 * VALUE_BYTES_MAX, "{}", line.len());
        let missing = 200_000 - MESSAGE_BYTES_MAX;
        assert!(line.contains(&format!("é…({missing} more bytes) x=é")), "{line}");
    }
}

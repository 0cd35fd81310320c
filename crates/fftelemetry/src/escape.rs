//! Texts of others on their way into a line: control characters made readable, and what is too long cut.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character could end a line, command a terminal, or show a line in another order than it is written: the control
/// characters, the separators of lines and paragraphs, and those that turn the direction of writing.
pub(crate) fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a character as it may stand in a line.
pub(crate) fn write_readable(to: &mut String, c: char) {
    let written = match c {
        '\n' => to.write_str("\\n"),
        '\r' => to.write_str("\\r"),
        '\t' => to.write_str("\\t"),
        c if !acts(c) => to.write_char(c),
        c if u32::from(c) < 0x100 => write!(to, "\\x{:02x}", u32::from(c)),
        c => write!(to, "\\u{{{:x}}}", u32::from(c)),
    };
    // A write into a String cannot fail.
    debug_assert!(written.is_ok());
}

/// A text of a peer for a line: one line without a control character, and no longer than `bytes_max` and a note of how much is
/// missing.
///
/// ```
/// use fftelemetry::escape::readable;
///
/// assert_eq!(readable("ann\n2026 ERROR all is lost\x1b[2J", 100), "ann\\n2026 ERROR all is lost\\x1b[2J");
/// assert_eq!(readable("a long name", 6), "a long…(5 more bytes)");
/// ```
#[must_use]
pub fn readable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max && !text.contains(acts) {
        return text.into();
    }
    let mut readable = Readable::new(String::with_capacity(text.len().min(bytes_max) + 8), bytes_max);
    readable.push(text);
    readable.end().into()
}

/// A value that is being written into a line. What it is written is made readable, and cut where it is too long.
pub(crate) struct Readable {
    line: String,
    room: usize,
    missing: usize,
}

impl Readable {
    /// Goes on with `line`; the value may have `bytes_max`.
    pub(crate) fn new(line: String, bytes_max: usize) -> Self {
        Self { line, room: bytes_max, missing: 0 }
    }

    fn push(&mut self, text: &str) {
        for (at, c) in text.char_indices() {
            let before = self.line.len();
            if self.missing == 0 {
                write_readable(&mut self.line, c);
                let took = self.line.len() - before;
                if took <= self.room {
                    self.room -= took;
                    continue;
                }
                self.line.truncate(before);
            }
            self.missing += text.len() - at;
            return;
        }
    }

    /// The line, with a note of what is missing.
    pub(crate) fn end(mut self) -> String {
        if self.missing > 0 {
            // A write into a String cannot fail.
            let _ = write!(self.line, "…({} more bytes)", self.missing);
        }
        self.line
    }
}

impl Write for Readable {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_that_acts_is_left_and_what_is_harmless_stays_as_it_is() {
        assert_eq!(readable("café 日本 {\"a\": 1} \\n", 100), "café 日本 {\"a\": 1} \\n");
        assert_eq!(
            readable("a\nb\r\tc\0\x1b]0;x\x07\x7f\u{9b}2J", 100),
            "a\\nb\\r\\tc\\x00\\x1b]0;x\\x07\\x7f\\x9b2J"
        );
        assert_eq!(readable("\u{202e}nimda\u{2069}\u{2028}", 100), "\\u{202e}nimda\\u{2069}\\u{2028}");
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            assert!(!readable(&text, 100).contains(acts), "{c:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters_and_the_rest_is_counted() {
        assert_eq!(readable("0123456789", 10), "0123456789");
        assert_eq!(readable("0123456789é", 10), "0123456789…(2 more bytes)");
        assert_eq!(readable("aéé", 4), "aé…(2 more bytes)");
        // Not half of what stands for a control character.
        assert_eq!(readable("ab\x1bcd", 5), "ab…(3 more bytes)");
        let mut pieces = Readable::new("x=".to_owned(), 4);
        for piece in ["abc", "de", "f", "é"] {
            pieces.write_str(piece).unwrap();
        }
        assert_eq!(pieces.end(), "x=abcd…(4 more bytes)");
    }
}

//! A line of the log that has texts of others in it.

use std::time::Duration;

use fftelemetry::escape::readable;
use fftelemetry::limit;
use fftelemetry::line::{Format, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};

/// The text that stands for what is missing has a number of at most 20 digits.
const NOTE_BYTES_MAX: usize = 40;

/// `message, 0, value`: a line is one line without a control character, bounded, and as JSON an object with these texts; a text that
/// was made readable stays as it is.
///
/// # Panics
/// One of these does not hold.
pub fn log(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (message, value) = text.split_once('\0').unwrap_or((&text, ""));
    for json in [false, true] {
        let format =
            Format { json, node: Some(value.chars().take(8).filter(|c| c.is_alphanumeric()).collect()) };
        let line = format.line(Duration::from_secs(1), tracing::Level::WARN, message, &[("peer", value)]);
        let body = line.strip_suffix('\n').unwrap_or_else(|| panic!("no line break: {line:?}"));
        assert!(!body.contains(char::is_control), "a control character: {line:?}");
        // In JSON each character may be escaped once more.
        assert!(line.len() < 2 * (MESSAGE_BYTES_MAX + VALUE_BYTES_MAX) + 400, "{} bytes", line.len());
        if json {
            let object: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
            assert_eq!(object["fields"]["message"], *readable(message, MESSAGE_BYTES_MAX));
            assert_eq!(object["fields"]["peer"], *readable(value, VALUE_BYTES_MAX));
        }
    }
    let shown = readable(message, 100);
    assert!(shown.len() <= 100 + NOTE_BYTES_MAX);
    assert_eq!(readable(&shown, 100 + NOTE_BYTES_MAX), shown, "made readable twice");
    assert!(limit::address(value).len() <= 64 + NOTE_BYTES_MAX);
}

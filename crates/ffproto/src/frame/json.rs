//! A message as a JSON object, for the text messages of a WebSocket:
//!
//! ```text
//! {"command": 100, "body": "text"}          the body is that text in UTF-8
//! {"command": 100, "body": {"any": "JSON"}} from clients only: the body is that JSON, as it was written
//! {"command": 100, "base64": "AP8="}        the body is those bytes; from the server if they are no UTF-8
//! {"command": 100, "error": {"code": "no_route", "message": "…", "executed": "no"}}   from the server only
//! ```

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, CommandId, Executed, Fault, NodeName};

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// The text is no JSON, or not such an object.
    #[error("no message in JSON: {0}")]
    Json(String),
    /// Two bodies.
    #[error("both `body` and `base64`")]
    TwoBodies,
    /// `base64` is none.
    #[error("`base64` is no base64 with padding (RFC 4648)")]
    Base64,
}

impl From<serde_json::Error> for JsonFault {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incoming<'a> {
    command: CommandId,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a client's message. Neither `body` nor `base64`, or a `body` of `null`, is an empty body.
///
/// # Errors
/// [`JsonFault`].
pub fn read(text: &str) -> Result<(CommandId, Cow<'_, [u8]>), JsonFault> {
    // An array of the fields in order would do for serde.
    if !text.trim_start().starts_with('{') {
        return Err(JsonFault::Json("expected an object".to_owned()));
    }
    let Incoming { command, body, base64 } = serde_json::from_str(text)?;
    let body = match (body.map(RawValue::get), base64) {
        (None, None) => Cow::Borrowed(&[][..]),
        (Some(_), Some(_)) => return Err(JsonFault::TwoBodies),
        (Some(text), None) if text.starts_with('"') => match serde_json::from_str(text)? {
            Text(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Text(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        },
        (Some(json), None) => Cow::Borrowed(json.as_bytes()),
        (None, Some(text)) => Cow::Owned(BASE64.decode(text.as_bytes()).map_err(|_| JsonFault::Base64)?),
    };
    Ok((command, body))
}

#[derive(Serialize)]
struct Message<'a> {
    command: CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// A message of the server.
pub fn message(command: CommandId, body: &[u8]) -> Vec<u8> {
    let (body, base64) = match std::str::from_utf8(body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64.encode(body))),
    };
    written(&Message { command, body, base64 })
}

#[derive(Serialize, Deserialize)]
struct ErrorBody<'a> {
    command: CommandId,
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    executed: Executed,
}

/// The body of an error frame: `{"command": …, "code": …, "message": …, "executed": …}`.
pub fn error_body(command: CommandId, fault: &Fault) -> Vec<u8> {
    let Fault { code, message, executed, .. } = fault;
    let (code, message) = (code.name().into(), message.as_str().into());
    written(&ErrorBody { command, code, message, executed: *executed })
}

/// Reads what [`error_body`] has written, `None` when it is something else. Which node noticed the fault is not in it, nor told
/// to clients: the master stands for it.
pub(crate) fn read_error(body: &[u8]) -> Option<(CommandId, Fault)> {
    let ErrorBody { command, code, message, executed } = serde_json::from_slice(body).ok()?;
    let code = Code::from_name(&code);
    Some((command, Fault { code, at: NodeName::master(), executed, message: message.into_owned() }))
}

#[derive(Serialize)]
struct ErrorMessage<'a> {
    command: CommandId,
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    executed: Executed,
}

/// The error of a request as a text message.
pub fn error(command: CommandId, fault: &Fault) -> Vec<u8> {
    let Fault { code, message, executed, .. } = fault;
    written(&ErrorMessage { command, error: Error { code: code.name(), message, executed: *executed } })
}

/// Numbers and texts always have a JSON form, and a vector takes every byte.
fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Vec<u8>, JsonFault> {
        read(text).map(|(command, body)| {
            assert_eq!(command, CommandId(7));
            body.into_owned()
        })
    }

    #[test]
    fn a_body_is_a_text_or_json_as_it_was_written_or_base64() {
        assert_eq!(body(r#"{"command":7}"#).unwrap(), b"");
        assert_eq!(body(r#"{"command":7,"body":null}"#).unwrap(), b"");
        assert_eq!(body(r#"{"command":7,"body":""}"#).unwrap(), b"");
        assert_eq!(body(r#"{"body":"h\u00e9\n","command":7}"#).unwrap(), "hé\n".as_bytes());
        assert_eq!(body(r#"{"command":7,"body":{"b" : [1,2.50]}}"#).unwrap(), br#"{"b" : [1,2.50]}"#);
        assert_eq!(body(r#"{"command":7,"body":12}"#).unwrap(), b"12");
        assert_eq!(body(r#"{"command":7,"base64":"AP8="}"#).unwrap(), [0, 255]);
    }

    #[test]
    fn a_text_that_is_no_message_is_a_value() {
        assert_eq!(body(r#"{"command":7,"body":"a","base64":""}"#), Err(JsonFault::TwoBodies));
        assert_eq!(body(r#"{"command":7,"base64":"A"}"#), Err(JsonFault::Base64));
        let unknown = "unknown field `boby`, expected one of `command`, `body`, `base64`";
        for (text, why) in [
            (r#"{"command":7,"boby":"a"}"#, unknown),
            (r#"{"body":"a"}"#, "missing field `command`"),
            (r#"{"command":7,"command":7}"#, "duplicate field `command`"),
            (r#"{"command":-1}"#, "expected u32"),
            (r#"{"command":4294967296}"#, "expected u32"),
            (r#"{"command":7} x"#, "trailing characters"),
            (r#"{"command":7"#, "EOF"),
            (r#"[7,"a"]"#, "expected an object"),
            ("", "expected an object"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_no_utf8_is_sent_as_base64() {
        assert_eq!(message(CommandId(7), b"a\"\n"), br#"{"command":7,"body":"a\"\n"}"#);
        assert_eq!(message(CommandId(7), b""), br#"{"command":7,"body":""}"#);
        assert_eq!(message(CommandId(7), &[0, 255]), br#"{"command":7,"base64":"AP8="}"#);
    }
}

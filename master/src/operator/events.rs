//! What happens, as it happens: the reader of `/events`, and `master events`.

use std::collections::VecDeque;
use std::mem::take;

use fftelemetry::colour::visible;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::signal::ctrl_c;

use super::client::{AskError, Client};
use super::{exit, print};

/// The longest line that is kept: a `/status` of 200 nodes has some 300 KB.
const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// An event of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) data: String,
}

impl Event {
    /// The data as a value; nothing when it is none.
    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_default()
    }
}

/// Makes events of the bytes of a stream (server-sent events), whatever their pieces. Pure.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    next: Event,
    /// The line is too long; what comes of it is dropped.
    cut: bool,
}

impl Parser {
    fn push(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = take(&mut self.line);
                let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
                if !take(&mut self.cut) {
                    self.line(&line, events);
                }
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            } else {
                self.cut = true;
            }
        }
    }

    fn line(&mut self, line: &str, events: &mut VecDeque<Event>) {
        if line.is_empty() {
            let event = take(&mut self.next);
            if !event.data.is_empty() {
                events.push_back(event);
            }
            return;
        }
        // One that begins with `:` only shows that the connection lives.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.next.kind),
            "data" => {
                if !self.next.data.is_empty() {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            _ => {}
        }
    }
}

/// The events of a master, from a whole `/status` on.
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    pub(super) async fn of(client: &Client) -> Result<Self, AskError> {
        let body = client.stream("/events").await?;
        Ok(Self { body, parser: Parser::default(), ready: VecDeque::new() })
    }

    /// The next one; `None` at the stream's end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, AskError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            // A connection that breaks ends the stream as well as one that is closed.
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            if let Some(bytes) = frame.data_ref() {
                self.parser.push(bytes, &mut self.ready);
            }
        }
    }

    /// What the end of the stream means.
    pub(super) fn ended(&self, client: &Client) -> AskError {
        AskError::NoMaster { url: client.url(), why: "it has left".into(), hint: String::new() }
    }
}

/// Shows events until Ctrl-C.
pub(super) async fn show(client: &Client, json: bool) -> Result<u8, AskError> {
    let mut events = Events::of(client).await?;
    loop {
        let next = tokio::select! {
            next = events.next() => next?,
            _ = ctrl_c() => return Ok(exit::INTERRUPTED),
        };
        match next {
            Some(event) if json => print(&as_json(&event))?,
            Some(event) => print(&as_line(&event))?,
            None => return Err(events.ended(client)),
        }
    }
}

/// An event as one object, with its kind as `event`.
fn as_json(event: &Event) -> String {
    let mut object = Map::from_iter([("event".to_owned(), event.kind.as_str().into())]);
    match event.value() {
        Value::Object(what) => object.extend(what),
        other => drop(object.insert("data".into(), other)),
    }
    format!("{}\n", Value::Object(object))
}

/// An event as a line for people: when, what kind, and what is not empty of it.
fn as_line(event: &Event) -> String {
    let Value::Object(what) = event.value() else { return String::new() };
    if event.kind == "status" {
        let cluster = what.get("cluster").and_then(Value::as_str).unwrap_or_default();
        let state = what.get("state").and_then(Value::as_str).unwrap_or_default();
        return format!("{} is {}\n", visible(cluster), visible(state));
    }
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let at = what.get("at").map(shown).unwrap_or_default();
    let mut line = format!("{at} {:<8}", event.kind);
    for (name, value) in what.iter().filter(|(name, value)| *name != "at" && !value.is_null()) {
        line.push_str(&match (event.kind.as_str(), name.as_str()) {
            ("report", "text") => format!(" {}", shown(value)),
            _ => format!(" {name}={}", shown(value)),
        });
    }
    visible(&line.replace('\n', " ")).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&str]) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), VecDeque::new());
        for piece in pieces {
            parser.push(piece.as_bytes(), &mut events);
        }
        events.into()
    }

    #[test]
    fn events_come_whole_whatever_the_pieces() {
        let of = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        let stream = "event: step\r\nid: 4\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n:\n\ndata:x\n\n";
        let wanted = [of("step", "{\"a\":\n1}"), of("", "x")];
        assert_eq!(events(&[stream]), wanted);
        let single: Vec<String> = stream.chars().map(String::from).collect();
        assert_eq!(events(&single.iter().map(String::as_str).collect::<Vec<_>>()), wanted);
        assert_eq!(events(&["data: not ended\n"]), []);
    }

    #[test]
    fn an_event_is_a_line_for_people_and_an_object_for_scripts() {
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        let step = event("step", r#"{"at": "T", "node": "gate", "outcome": null, "stage": "\u001b[2J"}"#);
        assert_eq!(as_line(&step), "T step     node=gate stage=\\x1b[2J\n");
        assert_eq!(as_json(&event("skipped", r#"{"events": 3}"#)), "{\"event\":\"skipped\",\"events\":3}\n");
        let report = event("report", r#"{"at": "T", "level": "warn", "text": "two\nlines"}"#);
        assert_eq!(as_line(&report), "T report   level=warn two lines\n");
    }
}

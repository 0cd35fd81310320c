//! A protocol of lines, for people with a terminal.
//!
//! ```text
//! LINES 1                    the client begins
//! LINES 1 OK                 and is answered
//! COMMAND[#ID] BODY          a request; without an id it has the next number of the connection
//! COMMAND#ID BODY            its answer
//! !COMMAND#ID CODE MESSAGE   its error
//! COMMAND BODY               a push
//! BYE WHY                    the end
//! ```

use std::borrow::Cow;

use ffserver::protocol::{
    Begins, ClientProtocol, Decoder, Ending, FaultSaid, Next, ProtocolFault, Received, ReplyTo,
};
use ffserver::{CommandId, Fault};

const OPENING: &[u8] = b"LINES 1\n";

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

/// The requests of a connection that had no id.
#[derive(Default)]
struct LinesDecoder {
    numbered: u32,
}

impl ClientProtocol for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
        let seen = bytes.len().min(OPENING.len());
        Ok(match bytes.get(..seen) == OPENING.get(..seen) {
            false => Begins::Not,
            true if seen < OPENING.len() => Begins::More,
            true => Begins::Here { bytes: seen, answer: b"LINES 1 OK\n".to_vec() },
        })
    }

    fn opening_bytes_max(&self) -> usize {
        OPENING.len()
    }

    fn decoder(&self, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        let numbered = match state {
            [] => 0,
            state => {
                u32::from_le_bytes(state.try_into().map_err(|_| ProtocolFault::new("no state of lines"))?)
            }
        };
        Ok(Box::new(LinesDecoder { numbered }))
    }

    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        line(&command.to_string(), body, out);
    }

    fn reply(&self, to: ReplyTo, body: &[u8], out: &mut Vec<u8>) {
        line(&format!("{}#{}", to.command, to.request), body, out);
    }

    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        let text = format!("{} {}", fault.code, fault.message);
        line(&format!("!{}#{}", to.command, to.request), text.as_bytes(), out);
        FaultSaid::Told
    }
}

/// Appends a line; a break in what it says becomes a space.
fn line(begin: &str, rest: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(begin.as_bytes());
    out.push(b' ');
    out.extend(rest.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    out.push(b'\n');
}

impl Decoder for LinesDecoder {
    fn next<'a>(&self, bytes: &'a [u8], message_bytes_max: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= message_bytes_max => {
                Ok(Some(Next::Frame { bytes: end + 1, is_message: true }))
            }
            None if bytes.len() <= message_bytes_max => Ok(None),
            _ => Err(wrong("a line is too long")),
        }
    }

    fn take<'a>(&mut self, frame: &'a [u8], _: &'a mut Vec<u8>) -> Result<Received<'a>, ProtocolFault> {
        let line = frame.trim_ascii_end();
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (head, body) = line.split_at(end);
        let head = std::str::from_utf8(head).map_err(|_| wrong("a line begins with COMMAND[#ID]"))?;
        let (command, request) = match head.split_once('#') {
            Some((command, id)) => (command, id.parse().ok()),
            None => {
                self.numbered += 1;
                (head, Some(self.numbered))
            }
        };
        let (Ok(command), Some(request)) = (command.parse().map(CommandId), request) else {
            return Err(wrong("a line begins with COMMAND[#ID]"));
        };
        let body = Cow::Borrowed(body.strip_prefix(b" ").unwrap_or(body));
        Ok(Received::Message { to: ReplyTo { command, request }, body, spoken: None })
    }

    fn farewell(&self, why: Ending<'_>) -> Option<Vec<u8>> {
        match why {
            Ending::Closed(why) | Ending::Policy(why) | Ending::Stopping(why) => Some(bye(why)),
            Ending::ByClient => None,
        }
    }

    fn state(&self) -> Vec<u8> {
        self.numbered.to_le_bytes().to_vec()
    }
}

fn wrong(text: &str) -> ProtocolFault {
    ProtocolFault::new(text).with_farewell(bye(text))
}

fn bye(why: &str) -> Vec<u8> {
    let mut out = Vec::new();
    line("BYE", why.as_bytes(), &mut out);
    out
}

//! The fault of a failed call: a code, the node where it failed, and whether the handler may have run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// The code of a fault, by what the caller can do about it. The number travels on links, the [`name`](Code::name)
/// travels to clients; both are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No such node is configured, or it is not connected. Nothing ran; try again later.
    NoNode,
    /// The node has no handler of that name. Nothing ran; trying again does not help.
    NoMethod,
    /// No handler and no route for a client's command. Nothing ran.
    NoRoute,
    /// The link broke after the call had been sent. The handler may have run.
    LinkLost,
    /// No answer within the deadline. The handler may have run unless `executed` says otherwise.
    Timeout,
    /// A queue on the way is full. Nothing ran; back off.
    Overloaded,
    /// An argument could not be read (bad JSON, too short, …). The handler did not run.
    BadRequest,
    /// The handler returned an error.
    Handler,
    /// The handler panicked; the node goes on.
    Panic,
    /// The node is stopping and starts nothing new.
    Stopping,
    /// A client's message has crossed `limits.hops_max` links: the routes on its way send it in a circle. Nothing
    /// ran.
    TooManyHops,
    /// The node that asks has no right to: the config's tree, or `rights`, does not give it. Nothing ran.
    Forbidden,
    /// The login was refused, or the user may not have another session. The connection is closed.
    Refused,
    /// A message before the client has logged in. Nothing ran; the connection is closed.
    NotLoggedIn,
    /// The user has another session, which goes on. The connection is closed.
    Kicked,
    /// A node told something that this version does not know.
    Unknown(u16),
}

impl Code {
    const NAMES: [(Code, u16, &'static str); 15] = [
        (Code::NoNode, 1, "no_node"),
        (Code::NoMethod, 2, "no_method"),
        (Code::NoRoute, 3, "no_route"),
        (Code::LinkLost, 4, "link_lost"),
        (Code::Timeout, 5, "timeout"),
        (Code::Overloaded, 6, "overloaded"),
        (Code::BadRequest, 7, "bad_request"),
        (Code::Handler, 8, "handler"),
        (Code::Panic, 9, "panic"),
        (Code::Stopping, 10, "stopping"),
        (Code::TooManyHops, 11, "too_many_hops"),
        (Code::Forbidden, 12, "forbidden"),
        (Code::Refused, 16, "refused"),
        (Code::NotLoggedIn, 17, "not_logged_in"),
        (Code::Kicked, 18, "kicked"),
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Code::Unknown(n) => n,
            known => Self::NAMES.iter().find(|row| row.0 == known).map_or(0, |row| row.1),
        }
    }

    /// The code of a number on the wire.
    pub fn from_number(number: u16) -> Self {
        Self::NAMES.iter().find(|row| row.1 == number).map_or(Code::Unknown(number), |row| row.0)
    }

    /// The code of a name in a client's error frame.
    pub fn from_name(name: &str) -> Self {
        Self::NAMES.iter().find(|row| row.2 == name).map_or(Code::Unknown(0), |row| row.0)
    }

    /// The name in a client's error frame and in logs.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|row| row.0 == self).map_or("unknown", |row| row.2)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether the handler ran. `No` is a promise: sending the call again cannot run it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executed {
    /// The handler surely did not run.
    No,
    /// The handler may have run, in part or in full.
    Unknown,
}

impl Executed {
    /// `"no"` or `"unknown"`, as clients read it.
    pub fn name(self) -> &'static str {
        match self {
            Executed::No => "no",
            Executed::Unknown => "unknown",
        }
    }
}

/// A failed call as it travels: everything that the caller and, at the end, the client needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The code of what went wrong.
    pub code: Code,
    /// The node that noticed the failure.
    pub at: NodeName,
    /// Whether the handler may have run.
    pub executed: Executed,
    /// One sentence that a client may see. What only the log may see stays in the log of `at`.
    pub message: String,
}

/// The longest message on the wire, in bytes; longer ones are cut at a character.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes that are no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body of a fault frame is malformed")]
pub struct BadFault;

impl Fault {
    /// Appends the body of a fault frame: `executed u8, at_len u8, at, message` (the code stands in the
    /// frame's header).
    #[doc(hidden)] // The wire's: authors read the fields.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        let mut end = self.message.len().min(MESSAGE_BYTES_MAX);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        let at = self.at.as_str().as_bytes();
        out.push(match self.executed {
            Executed::No => 0,
            Executed::Unknown => 1,
        });
        out.push(at.len() as u8); // A name has at most 64 bytes.
        out.extend_from_slice(at);
        out.extend_from_slice(&self.message.as_bytes()[..end]);
    }

    /// Reads what [`write_body`](Self::write_body) wrote. An unknown `executed` means `unknown`.
    ///
    /// # Errors
    /// [`BadFault`] when a length or a text is wrong.
    #[doc(hidden)] // The wire's: authors read the fields.
    pub fn read_body(code: Code, body: &[u8]) -> Result<Self, BadFault> {
        let (&[executed, at_len], rest) = body.split_first_chunk::<2>().ok_or(BadFault)?;
        let (at, message) = rest.split_at_checked(usize::from(at_len)).ok_or(BadFault)?;
        let at = std::str::from_utf8(at).ok().and_then(|at| NodeName::try_from(at).ok()).ok_or(BadFault)?;
        let message = message.get(..MESSAGE_BYTES_MAX).unwrap_or(message);
        let message = String::from_utf8_lossy(message).into_owned();
        Ok(Self { code, at, executed: if executed == 0 { Executed::No } else { Executed::Unknown }, message })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {} (executed: {})", self.code, self.at, self.message, self.executed.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_back_as_it_was_sent() {
        let fault = Fault {
            code: Code::Timeout,
            at: NodeName::try_from("game.1").unwrap(),
            executed: Executed::Unknown,
            message: "no answer from `game.1` in 5 s — ü".into(),
        };
        let mut body = Vec::new();
        fault.write_body(&mut body);
        assert_eq!(Fault::read_body(Code::Timeout, &body), Ok(fault));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut body = Vec::new();
        let fault = Fault {
            code: Code::Handler,
            at: NodeName::master(),
            executed: Executed::No,
            message: "ü".repeat(900),
        };
        fault.write_body(&mut body);
        let read = Fault::read_body(Code::Handler, &body).unwrap();
        assert_eq!(read.message, "ü".repeat(512));
    }

    #[test]
    fn malformed_bodies_are_values() {
        for body in [&b""[..], b"\0", b"\0\x05gat", b"\0\x01\xff", b"\0\x00"] {
            assert_eq!(Fault::read_body(Code::Panic, body), Err(BadFault), "{body:?}");
        }
    }

    #[test]
    fn every_code_has_its_number_and_its_name() {
        for (code, number, name) in Code::NAMES {
            assert_eq!((Code::from_number(number), code.number(), code.name()), (code, number, name));
        }
        assert_eq!(Code::from_number(999), Code::Unknown(999));
    }
}

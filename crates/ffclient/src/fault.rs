//! The fault of a request, as the server's error frame tells it.

use std::borrow::Cow;

use ffproto::{Code, CommandId, Executed};
use serde::Deserialize;

/// The error of one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("command {command} failed: {code}: {message}")]
pub struct Fault {
    /// The command of the request.
    pub command: CommandId,
    /// What went wrong, for programs; [`Code::Unknown`] for a code of a later version.
    pub code: Code,
    /// What went wrong, for people; the words may change.
    pub message: String,
    /// Whether the handler may have run.
    pub executed: Executed,
}

/// The body of an error frame that is not the JSON object of docs/protocol.md.
#[derive(Debug, thiserror::Error)]
#[error("the body of an error frame is malformed: {0}")]
pub struct BadFault(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Body<'a> {
    command: CommandId,
    #[serde(borrow)]
    code: Cow<'a, str>,
    message: String,
    #[serde(borrow)]
    executed: Cow<'a, str>,
}

impl Fault {
    /// Reads the body of an error frame.
    ///
    /// # Errors
    /// [`BadFault`].
    pub fn read(body: &[u8]) -> Result<Self, BadFault> {
        let Body { command, code, message, executed } = serde_json::from_slice(body)?;
        // What a later version may say is not taken for a promise.
        let executed = if executed == Executed::No.name() { Executed::No } else { Executed::Unknown };
        Ok(Self { command, code: Code::from_name(&code), message, executed })
    }

    /// Whether the server closes the connection after this error frame.
    pub fn is_last(&self) -> bool {
        matches!(self.code, Code::Refused | Code::NotLoggedIn | Code::Kicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_frame_of_the_page_is_read() {
        let body = br#"{"command":4711,"code":"no_route","message":"no handler","executed":"no"}"#;
        let fault = Fault::read(body).unwrap();
        let want = (CommandId(4711), Code::NoRoute, "no handler", Executed::No);
        assert_eq!((fault.command, fault.code, fault.message.as_str(), fault.executed), want);
        assert!(!fault.is_last());
    }

    #[test]
    fn a_later_versions_code_is_unknown_and_its_outcome_no_promise() {
        let body = br#"{"command":1,"code":"eaten","message":"","executed":"half","more":[1]}"#;
        let fault = Fault::read(body).unwrap();
        assert_eq!((fault.code, fault.executed), (Code::Unknown(0), Executed::Unknown));
    }

    #[test]
    fn what_is_no_such_object_is_no_fault() {
        for body in ["", "7", "{}", r#"{"command":-1,"code":"x","message":"","executed":"no"}"#] {
            assert!(Fault::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}

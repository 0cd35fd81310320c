//! The verdict of a handler that decides over logins.

use ffproto::login::{self, MARK};

use crate::app::handler::{IntoReply, Outcome};
use crate::cluster::payload::{decode, encode};

/// The answer of the handler of `login.command`: who the client is, or why it may not come in. The handler is one
/// of the net node, or of the node that the net node's `route` leads to.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(100)]
/// async fn logs_in(Body(name): Body<String>) -> Verdict {
///     if name.is_empty() {
///         return Verdict::refuse("say who you are");
///     }
///     Verdict::accept(&name).attribute("rank", "guest").greeting(format!("welcome, {name}"))
/// }
/// # let _ = App::new("door").handlers(handlers![logs_in]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict does nothing unless the handler returns it"]
pub struct Verdict(login::Verdict);

impl Verdict {
    /// Accepts the client as this user: its session has the user from now on, as with
    /// [`Session::bind`](crate::Session::bind). The name must not be empty.
    pub fn accept(user: impl Into<String>) -> Self {
        let (user, greeting, attributes) = (user.into(), Vec::new(), Vec::new());
        Self(login::Verdict::Accept { user, greeting, attributes })
    }

    /// Refuses the client: it gets an error frame with the code `refused` and this reason, and is disconnected.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self(login::Verdict::Refuse { reason: reason.into() })
    }

    /// Sets the body of the answer to the login, which is empty else. Does nothing when the client is refused.
    pub fn greeting(mut self, body: impl Into<Vec<u8>>) -> Self {
        if let login::Verdict::Accept { greeting, .. } = &mut self.0 {
            *greeting = body.into();
        }
        self
    }

    /// Notes an attribute of the session, as [`Session::set`](crate::Session::set) does. Does nothing when the client
    /// is refused.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        if let login::Verdict::Accept { attributes, .. } = &mut self.0 {
            attributes.push((key.into(), value.into()));
        }
        self
    }

    /// Notes several attributes.
    pub fn attributes<K: Into<String>, V: Into<String>>(self, all: impl IntoIterator<Item = (K, V)>) -> Self {
        all.into_iter().fold(self, |verdict, (key, value)| verdict.attribute(key, value))
    }
}

impl IntoReply for Verdict {
    fn into_reply(self) -> Outcome {
        let mut body = MARK.to_vec();
        body.extend(encode(&self.0));
        Ok(Some(body.into()))
    }
}

/// The verdict in a handler's answer; `None` when it is another answer.
pub(crate) fn read(body: &[u8]) -> Option<login::Verdict> {
    decode(body.strip_prefix(&MARK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_back_as_the_handler_gave_it_and_no_other_answer_is_one() {
        let accepted = Verdict::accept("ann").attributes([("rank", "guest")]).greeting("welcome");
        for verdict in [accepted, Verdict::refuse("who?").greeting("nobody reads this")] {
            let body = verdict.clone().into_reply().unwrap().unwrap();
            assert_eq!(read(&body), Some(verdict.0));
            assert_eq!(read(&body[..body.len() - 1]), None);
        }
        for other in [&b""[..], b"ok", b"{}", &MARK] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}

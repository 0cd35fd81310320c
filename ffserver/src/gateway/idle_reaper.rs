//! Clients that say nothing for too long, and those that do not read what they were told last.

use std::time::Duration;

use ffproto::{Code, Executed};

use crate::identity::counters::count;
use crate::node::Node;
use crate::session::local::Stage;

impl Node {
    /// Ends the sessions that have been silent for too long, and cuts off those that were closed and whose
    /// clients do not read the rest. Called once a second.
    pub(crate) fn end_silent_sessions(&self) {
        const LINGER: Duration = Duration::from_secs(5);
        let limits = &self.config().limits;
        for session in self.local_sessions() {
            session.cut_after(LINGER);
            if let Some(login) = &self.config().login
                && session.stage() != Stage::In
                && session.opened().elapsed() > login.timeout
            {
                let fault =
                    self.fault(Code::Timeout, Executed::Unknown, "not logged in within login.timeout_s");
                if session.close_with(login.command, &fault) {
                    count(&self.counters().logins_late);
                }
                continue;
            }
            let (first, silent) = session.silence();
            if first && limits.first_message.is_some_and(|max| silent > max) {
                count(&self.counters().clients_silent);
                session.close("no first message: limits.first_message_s");
            } else if !first && limits.idle.is_some_and(|max| silent > max) {
                count(&self.counters().clients_silent);
                session.close("idle: limits.idle_s");
            }
        }
    }
}

//! The idle reaper: ends the sessions of clients that are silent for too long, and of those that do not read what they
//! were sent last.

use std::time::Duration;

use ffproto::{Code, Executed};

use crate::identity::Identity;
use crate::identity::counters::count;
use crate::session::local::{LocalSession, Stage};
use crate::session::registry::Registry;

/// The time for a client whose session was closed to read the rest.
const LINGER: Duration = Duration::from_secs(5);

/// Ends the sessions that have been silent for too long, and cuts off those that were closed and whose clients do not
/// read the rest. Called once a second.
pub(crate) fn reap(registry: &Registry, identity: &Identity) {
    for session in registry.all() {
        session.cut_after(LINGER);
        if !ended_before_login(&session, identity) {
            end_silent(&session, identity);
        }
    }
}

fn ended_before_login(session: &LocalSession, identity: &Identity) -> bool {
    let Some(login) = &identity.config().login else { return false };
    if session.stage() == Stage::In || session.opened().elapsed() <= login.timeout {
        return false;
    }
    let fault = identity.fault(Code::Timeout, Executed::Unknown, "not logged in within login.timeout_s");
    if session.close_with(login.command.into(), &fault) {
        count(&identity.counters().logins_late);
    }
    true
}

fn end_silent(session: &LocalSession, identity: &Identity) {
    let limits = identity.limits();
    let (first, silent) = session.silence();
    if first && limits.first_message.is_some_and(|max| silent > max) {
        count(&identity.counters().clients_silent);
        session.close("no first message: limits.first_message_s");
    } else if !first && limits.idle.is_some_and(|max| silent > max) {
        count(&identity.counters().clients_silent);
        session.close("idle: limits.idle_s");
    }
}

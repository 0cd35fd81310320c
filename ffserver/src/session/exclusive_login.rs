//! Exclusive login: a user has one session in the whole cluster. Net nodes ask each other before a session gets its
//! user, tell each other the claims that they have missed when a link is back, and close the sessions that have lost
//! their user.

use std::sync::Arc;

use ffconfig::SecondLogin;
use ffproto::relay::{CLAIMS_MAX, Claim, Op, SessionChange, SessionState};
use ffproto::{NodeNumber, SessionId};
use futures_util::future::join_all;

use super::Sessions;
use crate::cluster::payload::encode;
use crate::identity::lifecycle::Phase;
use crate::session::errors::SessionError;
use crate::session::local::{LocalSession, StateTooLarge};
use crate::session::user_directory::ClaimStart;

/// Why a session does not get its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimError {
    /// Another session has the user, and keeps it.
    Taken,
    /// A later login of the same user has won.
    Lost,
}

/// The guard of a claim that is not agreed to yet: the claim's user is free again when the guard is dropped.
struct ClaimGuard<'a> {
    sessions: &'a Sessions,
    user: &'a str,
    id: SessionId,
    settled: bool,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.sessions.users().free(self.user, self.id);
        }
    }
}

/// Claims, cut into lists that fit in a frame: of at most [`CLAIMS_MAX`], and of little more than 64 KiB of names.
fn pieces(claims: &[Claim]) -> Vec<&[Claim]> {
    const NAMES_BYTES: usize = 64 * 1024;
    let (mut pieces, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, claim) in claims.iter().enumerate() {
        bytes += claim.user.len();
        if bytes >= NAMES_BYTES || at + 1 - begin == CLAIMS_MAX || at + 1 == claims.len() {
            pieces.push(&claims[begin..=at]);
            (begin, bytes) = (at + 1, 0);
        }
    }
    pieces
}

impl Sessions {
    /// Gives a session its user, when every net node that can be reached has agreed. Older sessions of the user are
    /// closed, or this one is refused. Cancel-safe: when the future is dropped the user is free again.
    async fn claim_user(&self, session: &LocalSession, user: &str) -> Result<(), ClaimError> {
        let (users, id) = (self.users(), session.id());
        let stamp = match users.begin(user, id, self.identity().now_ms()) {
            ClaimStart::Already => return Ok(()),
            ClaimStart::Taken => return Err(ClaimError::Taken),
            ClaimStart::Claims { stamp, loser } => {
                loser.into_iter().for_each(|loser| self.kick(loser, user));
                stamp
            }
        };
        let mut begun = ClaimGuard { sessions: self, user, id, settled: false };
        let claim = Claim { session: id, stamp, held: false, user: user.to_owned() };
        let payload = encode(&vec![claim]);
        let asked =
            users.others().into_iter().map(async |number| (number, self.ask_net(number, &payload).await));
        let mut agreed = true;
        for (number, answer) in join_all(asked).await {
            match answer {
                Some(losers) => agreed &= !losers.contains(&id),
                // The node is told of the claim when it is reached again.
                None => users.owe(number, stamp),
            }
        }
        if agreed && users.settle(user, id) {
            begun.settled = true;
            return Ok(());
        }
        drop(begun);
        Err(match users.policy() {
            SecondLogin::KickOld => ClaimError::Lost,
            SecondLogin::RefuseNew => ClaimError::Taken,
        })
    }

    /// Changes the state of a session of this node, and tells this node's app of its first user; a user in the change has
    /// to be the session's alone. The session does not leave for a successor meanwhile.
    pub(crate) async fn bind_session(
        &self,
        session: &LocalSession,
        change: SessionChange,
        but: Option<NodeNumber>,
    ) -> Result<Arc<SessionState>, SessionError> {
        let _pin = session.pin();
        let state = self.bind_quietly(session, change, but).await?;
        if session.becomes_verified() {
            self.spawn_verified(session.id());
        }
        Ok(state)
    }

    /// Changes the state of a session as [`Sessions::bind_session`] does, for a caller that tells this node's app of its
    /// user, and that keeps the session from leaving.
    pub(crate) async fn bind_quietly(
        &self,
        session: &LocalSession,
        change: SessionChange,
        but: Option<NodeNumber>,
    ) -> Result<Arc<SessionState>, SessionError> {
        // A handler that outlives its client must not take the user from the session that came after it.
        if session.is_ending() || session.is_gone() {
            return Err(SessionError::Gone);
        }
        let Some(user) = change.user.clone() else {
            return Ok(self.change(session, change, but)?);
        };
        let max = self.identity().limits().session_state_bytes_max;
        StateTooLarge::check(&session.state().with(change.clone()), max)?;
        match self.claim_user(session, &user).await {
            Ok(()) => {}
            Err(ClaimError::Taken) => return Err(SessionError::UserTaken),
            Err(ClaimError::Lost) => {
                self.kick(session.id(), &user);
                return Err(SessionError::Gone);
            }
        }
        let before = session.state().user.clone();
        let changed = self.change(session, change, but);
        self.free_replaced(session, before, Some(user), changed.is_ok());
        Ok(changed?)
    }

    /// Frees users after a change of a session: those that it did not get, and those that it has no longer.
    fn free_replaced(
        &self,
        session: &LocalSession,
        before: Option<String>,
        now: Option<String>,
        changed: bool,
    ) {
        let free = |user: Option<&String>| {
            if let Some(user) = user {
                self.users().free(user, session.id());
            }
        };
        if before != now {
            free(if changed { before.as_ref() } else { now.as_ref() });
        }
        if session.is_gone() {
            // The session ended meanwhile, and nothing else would free its user.
            free(now.as_ref());
        }
    }

    /// Judges other nodes' claims. Returns the sessions of theirs that lose, u64 each.
    pub(crate) fn judge(&self, claims: &[Claim]) -> Vec<u8> {
        let is_here = |id| self.local(id).is_some();
        let judged = self.users().judge(claims, is_here);
        for id in judged.ours {
            let user = self.local(id).and_then(|session| session.state().user.clone());
            self.kick(id, &user.unwrap_or_default());
        }
        self.kick_staying();
        judged.theirs.iter().flat_map(|id| id.0.to_le_bytes()).collect()
    }

    /// Notes which net nodes are reached, and sends each the claims that it has missed.
    pub(crate) fn tell_claims(&self) {
        let identity = self.identity();
        if identity.config().netport.is_none() || identity.lifecycle().phase() == Phase::HandedOver {
            return;
        }
        let users = self.users();
        let others = self.transit().membership().others_meant(|node| node.net).into_iter();
        users.reached(identity.incarnation(), others.map(|node| (node.number, node.incarnation)).collect());
        for (number, from, claims) in users.take_owed() {
            let sessions = self.clone();
            drop(
                identity
                    .tasks()
                    .calls()
                    .spawn(async move { sessions.tell_owed(number, from, &claims).await }),
            );
        }
    }

    async fn tell_owed(&self, number: NodeNumber, from: u64, claims: &[Claim]) {
        for some in pieces(claims) {
            let Some(losers) = self.ask_net(number, &encode(&some)).await else {
                return self.users().owe(number, from);
            };
            for lost in some.iter().filter(|claim| losers.contains(&claim.session)) {
                let had = self.users().free(&lost.user, lost.session).is_some();
                // A claim that has only begun finds out when it settles.
                if had && lost.held {
                    self.kick(lost.session, &lost.user);
                }
            }
        }
    }

    /// Asks a net node which of the claims lose; `None` when the node cannot be asked.
    async fn ask_net(&self, number: NodeNumber, payload: &[u8]) -> Option<Vec<SessionId>> {
        let answer = self.transit().ask_node(number, Op::Claim, payload).await.ok()?;
        let (ids, _) = answer.as_chunks::<8>();
        Some(ids.iter().map(|id| SessionId(u64::from_le_bytes(*id))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_in_lists_that_are_bounded_in_count_and_bytes() {
        let claim =
            |bytes: usize| Claim { session: SessionId(1), stamp: 1, held: true, user: "x".repeat(bytes) };
        let lengths = |claims: &[Claim]| pieces(claims).into_iter().map(<[Claim]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&vec![claim(3); CLAIMS_MAX]), [CLAIMS_MAX]);
        assert_eq!(lengths(&vec![claim(3); CLAIMS_MAX + 2]), [CLAIMS_MAX, 2]);
        assert_eq!(lengths(&[claim(40_000), claim(40_000), claim(70_000), claim(1)]), [2, 1, 1]);
    }
}

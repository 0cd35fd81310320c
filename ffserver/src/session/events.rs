//! The events of sessions, as a trait: what this room tells the rooms that run authors' code and keep authors' rows.

use std::pin::Pin;

use ffproto::SessionId;
use ffproto::relay::MoveOrder;

/// The end of an event's handling.
pub(crate) type Handled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The listener to what happens to sessions, which a later room implements.
pub(crate) trait SessionEvents: Send + Sync {
    /// Whether [`SessionEvents::verified`] does anything.
    fn wants_verified(&self) -> bool;

    /// The session has a user: called once for each session, where the first user of it is found.
    fn verified(&self, session: SessionId) -> Handled;

    /// The session of this node has stayed, although a move of it had begun.
    fn not_moved(&self, session: SessionId, order: MoveOrder) -> Handled;

    /// The session has ended: nothing may be kept for it any more.
    fn ended(&self, session: SessionId);
}

//! Session events: what a session tells the rooms that run authors' code and keep authors' rows.

use std::pin::Pin;

use ffproto::SessionId;
use ffproto::relay::MoveOrder;

/// The end of an event's handling.
pub(crate) type Handled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What happens to sessions and has to be told outside of this room.
pub(crate) trait SessionEvents: Send + Sync {
    /// Whether anybody wants to hear [`SessionEvents::verified`].
    fn wants_verified(&self) -> bool;

    /// The session has a user: called once for each session, by whoever has found that it is the first time.
    fn verified(&self, session: SessionId) -> Handled;

    /// The session of this node has stayed, although a move of it had begun.
    fn not_moved(&self, session: SessionId, order: MoveOrder) -> Handled;

    /// Nothing may be kept for the session any more: it has ended.
    fn ended(&self, session: SessionId);
}

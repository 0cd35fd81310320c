//! Answers and pushes that one read of a link has brought, for many clients: written when all of it is handled, one
//! write for each client, and without a turn of the client's connection. With a thousand clients that turn would find
//! its memory cold again, which costs as much as the rest of what is ours in a message.

use std::cell::RefCell;
use std::sync::Arc;

use super::Inner;

#[derive(Default)]
struct Gathered {
    on: bool,
    /// Each stands here once.
    sessions: Vec<Arc<Inner>>,
}

thread_local! {
    static GATHERED: RefCell<Gathered> = RefCell::default();
}

/// From now on what is queued on this thread for a connection at rest waits for [`write_gathered`]. Between the two
/// nothing may wait.
pub(crate) fn gather() {
    GATHERED.with_borrow_mut(|gathered| gathered.on = true);
}

/// Writes what was queued since [`gather`].
pub(crate) fn write_gathered() {
    let mut sessions = GATHERED.with_borrow_mut(|gathered| {
        gathered.on = false;
        std::mem::take(&mut gathered.sessions)
    });
    sessions.drain(..).for_each(|session| session.write_at_rest());
    // So that the next read finds room for as many.
    GATHERED.with_borrow_mut(|gathered| gathered.sessions = sessions);
}

/// Adds a client to those that are written to then; false when nobody gathers on this thread.
pub(super) fn add(session: &Arc<Inner>) -> bool {
    GATHERED.with_borrow_mut(|gathered| {
        if gathered.on {
            gathered.sessions.push(session.clone());
        }
        gathered.on
    })
}

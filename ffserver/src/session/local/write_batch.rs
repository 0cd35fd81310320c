//! The write batch: answers and pushes for many clients that one read of a link has brought. They are written when all
//! of it is handled, in one write for each client, and without a turn of the client's connection. With a thousand
//! clients that turn would find its memory cold again, which costs as much as the rest of what is ours in a message.

use std::cell::RefCell;
use std::sync::Arc;

use super::Inner;

#[derive(Default)]
struct WriteBatch {
    on: bool,
    /// The sessions of the batch, each once.
    sessions: Vec<Arc<Inner>>,
}

thread_local! {
    static GATHERED: RefCell<WriteBatch> = RefCell::default();
}

/// Begins a batch: what is queued on this thread for a connection at rest waits for [`end_write_batch`]. No future may
/// wait between the two.
pub(crate) fn begin_write_batch() {
    GATHERED.with_borrow_mut(|gathered| gathered.on = true);
}

/// Ends the batch: writes what was queued since [`begin_write_batch`].
pub(crate) fn end_write_batch() {
    let mut sessions = GATHERED.with_borrow_mut(|gathered| {
        gathered.on = false;
        std::mem::take(&mut gathered.sessions)
    });
    sessions.drain(..).for_each(|session| session.write_at_rest());
    // The list goes back, so that the next read finds room for as many.
    GATHERED.with_borrow_mut(|gathered| gathered.sessions = sessions);
}

/// Adds a session to the batch; false when no batch has begun on this thread.
pub(super) fn add(session: &Arc<Inner>) -> bool {
    GATHERED.with_borrow_mut(|gathered| {
        if gathered.on {
            gathered.sessions.push(session.clone());
        }
        gathered.on
    })
}

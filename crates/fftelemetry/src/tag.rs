//! The tag of log lines: which of a process's nodes a line is of. What a tagged future logs has it, and what it spawns by
//! [`tagged`] as well.
//!
//! A span of `tracing` would do so, too, at the price of a look into its registry at every poll, and polls are on the way of a
//! message: here one is two words that are swapped.

use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;

/// A tag, which lives as long as the process: a process has a handful of nodes.
pub type Tag = Option<&'static str>;

task_local! {
    /// The tag of the future that is being polled.
    static TAG: Tag;
}

pub(crate) fn current() -> Tag {
    TAG.try_with(|tag| *tag).unwrap_or_default()
}

/// Gives a future the tag that whoever makes it has: for what is spawned.
pub fn tagged<F: Future>(future: F) -> TaskLocalFuture<Tag, F> {
    TAG.scope(current(), future)
}

/// Gives a future a tag of its own, which stays in memory for as long as the process lives.
///
/// ```
/// # async fn serve() { tracing::info!("gate is ready") }
/// // Its lines end with `node=gate`.
/// let serving = fftelemetry::tagged_as("gate", serve());
/// ```
pub fn tagged_as<F: Future>(tag: &str, future: F) -> TaskLocalFuture<Tag, F> {
    TAG.scope(Some(Box::leak(tag.into())), future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_no_tag_behind() {
        let tagged = tagged_as("gate", async { panic!("a fault") });
        let panicked = std::panic::catch_unwind(|| poll(tagged));
        assert!(panicked.is_err() && current().is_none());
    }

    fn poll(future: impl Future<Output = ()>) {
        let _ = std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    }
}

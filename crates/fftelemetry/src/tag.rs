//! The tag of log lines: which of a process's nodes a line is of. What a tagged future logs has it, and what it spawns by
//! [`tagged`] as well.
//!
//! A span of `tracing` would do so, too, at the price of a look into its registry at every poll, and polls are on the way of a
//! message: here one is two words that are swapped.

use std::fmt;

use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A tag, which lives as long as the process: a process has a handful of nodes.
pub type Tag = Option<&'static str>;

task_local! {
    /// The tag of the future that is being polled.
    static TAG: Tag;
}

fn current() -> Tag {
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

/// Writes each line as another format does, and the tag behind it.
pub(crate) struct WithTag<F>(pub(crate) F);

impl<S, N, F> FormatEvent<S, N> for WithTag<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(tag) = current() else { return self.0.format_event(cx, to, event) };
        let mut line = String::new();
        self.0.format_event(cx, Writer::new(&mut line), event)?;
        writeln!(to, "{} node={tag}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Waker};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged by `log`, without their times.
    fn logged(log: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let base = tracing_subscriber::fmt().with_ansi(false).with_target(false).without_time();
        let base = base.with_writer(move || writer.clone()).map_event_format(WithTag);
        tracing::subscriber::with_default(base.finish(), log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    fn poll(future: impl Future<Output = ()>) {
        let _ = std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn a_line_has_the_tag_of_the_future_that_writes_it_and_of_who_has_spawned_that() {
        let lines = logged(|| {
            tracing::info!("before");
            poll(tagged_as("gate", async {
                tracing::info!(n = 1, "of the gate");
                poll(tagged_as("net", async { tracing::info!("of net") }));
                tracing::info!("of the gate again");
                let spawned = tagged(async { tracing::info!("spawned") });
                poll(tagged_as("net", spawned));
            }));
            poll(tagged(async { tracing::info!("behind") }));
        });
        assert_eq!(
            lines,
            [
                "INFO before",
                "INFO of the gate n=1 node=gate",
                "INFO of net node=net",
                "INFO of the gate again node=gate",
                "INFO spawned node=gate",
                "INFO behind"
            ]
        );
    }

    #[test]
    fn a_panic_leaves_no_tag_behind() {
        let panicked = std::panic::catch_unwind(|| poll(tagged_as("gate", async { panic!("a fault") })));
        assert!(panicked.is_err() && current().is_none());
    }
}

//! Panics of authors' code: each is caught, and knows its place in the author's source.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::pin::{Pin, pin};

use fftelemetry::escape::readable;
use fftelemetry::line::MESSAGE_BYTES_MAX;

thread_local! {
    /// Whether what this thread runs now is caught here.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// The panic that this thread is about to catch. Only the hook of a panic knows its place.
    static LATEST: RefCell<Option<CaughtPanic>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Debug, Default)]
pub(crate) struct CaughtPanic {
    /// File, line and column, as the compiler names them; `None` where [`note_places`] was not called.
    place: Option<String>,
    /// What it said.
    text: String,
}

/// For the log: `src/room.rs:40:9: no such seat`.
impl fmt::Display for CaughtPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.text.as_str()) {
            (Some(place), "") => f.write_str(place),
            (Some(place), text) => write!(f, "{place}: {text}"),
            (None, "") => f.write_str("it did not say why"),
            (None, text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CaughtPanic {}

/// Lets every panic that is caught here know its place, for this whole process: to be called in `main`, and after another hook was set. Such a panic is then
/// told once, by who catches it, and not on standard error as well; any other is told there as ever, and with `RUST_BACKTRACE=full` each
/// is, with its backtrace.
pub(crate) fn note_places() {
    let as_ever = take_hook();
    let backtraces = std::env::var_os("RUST_BACKTRACE").is_some_and(|asked| asked == "full");
    set_hook(Box::new(move |panic| {
        // Nobody catches where a panic aborts.
        let caught = cfg!(panic = "unwind") && CATCHES.try_with(Cell::get).unwrap_or(false);
        if !caught || !note(panic) || backtraces {
            as_ever(panic);
        }
    }));
}

/// False when another panic is on its way already: the process may end with both, and who reads why needs the first one.
#[allow(clippy::print_stderr, reason = "where Rust tells of panics, and the log may not be written any more")]
fn note(panic: &PanicHookInfo<'_>) -> bool {
    let noted = CaughtPanic { place: panic.location().map(ToString::to_string), text: text(panic.payload()) };
    let before = LATEST.try_with(|latest| latest.borrow_mut().replace(noted)).ok().flatten();
    if let Some(before) = &before {
        // In one line, whatever a client has made it say.
        eprintln!("panicked at {}", readable(&before.to_string(), MESSAGE_BYTES_MAX));
    }
    before.is_none()
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs code of an author.
///
/// # Errors
/// Its panic.
#[inline]
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
    // One node's code may run inside of another's, in one process.
    let outer = CATCHES.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(code));
    CATCHES.set(outer);
    ended.map_err(|payload| {
        LATEST.take().unwrap_or_else(|| CaughtPanic { text: text(&*payload), ..CaughtPanic::default() })
    })
}

/// Runs a future of an author.
///
/// # Errors
/// Its panic.
pub(crate) async fn caught_future<T>(future: impl Future<Output = T>) -> Result<T, CaughtPanic> {
    let mut future = pin!(future);
    poll_fn(|cx| match caught(|| Pin::new(&mut future).poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Err(panic).into(),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_by_its_place_and_what_it_said_as_far_as_they_are_known() {
        let shown = |place: Option<&str>, text: &str| {
            CaughtPanic { place: place.map(str::to_owned), text: text.into() }.to_string()
        };
        assert_eq!(shown(Some("src/room.rs:4:9"), "no seat"), "src/room.rs:4:9: no seat");
        assert_eq!(shown(Some("src/room.rs:4:9"), ""), "src/room.rs:4:9");
        assert_eq!(shown(None, "no seat"), "no seat");
        assert_eq!(shown(None, ""), "it did not say why");
    }

    #[tokio::test]
    async fn what_panics_while_it_is_polled_or_called_is_caught() {
        let text = |caught: Result<(), CaughtPanic>| caught.unwrap_err().text;
        assert_eq!(text(caught(|| panic!("called"))), "called");
        assert_eq!(text(caught_future(async { panic!("polled {}", 1) }).await), "polled 1");
        assert_eq!(text(caught(|| std::panic::panic_any(1))), "");
        assert_eq!(caught(|| caught(|| panic!("inner")).is_err()).ok(), Some(true));
        assert!(!CATCHES.get());
    }
}

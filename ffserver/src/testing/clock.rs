//! The paused clock of a test: time stands, until the test moves it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Poll, Waker};
use std::time::Duration;

use ffambient::Clock;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The time of day at which a paused clock begins, since 1970: the 15th of January 2027, 08:00.
const START: Duration = Duration::from_secs(1_800_000_000);

/// How long, by the clock on the wall, a paused clock stands or waits for a database before its test is taken for one that never
/// ends.
const STANDS_MAX: Duration = Duration::from_secs(60);

/// The pause between two looks at a database for which a moving clock waits.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Looks in a row at which nothing is to be done before everything is at rest: what a socket of this process has just been given
/// shows at the next look.
const LOOKS: u32 = 3;

tokio::task_local! {
    static CURRENT: PausedClock;
}

/// What a clock may not move under: something that works outside of the test's runtime.
type Work = Box<dyn Fn() -> bool + Send>;

/// A clock that stands until [`advance`](PausedClock::advance). Cheap to clone. [`paused`] makes it.
#[derive(Clone)]
pub struct PausedClock(Arc<Inner>);

struct Inner {
    state: Mutex<ClockState>,
    /// Rings when the clock has stood, or waited, for too long.
    stuck: Notify,
    /// Taken by who moves the clock.
    turn: tokio::sync::Mutex<()>,
    begun: Instant,
    time_of_day: Clock,
}

#[derive(Default)]
struct ClockState {
    /// While this is here, time stands: a task waits for its end on a thread of its own, and meanwhile tokio moves no time.
    hold: Option<mpsc::Sender<()>>,
    /// Who moves the clock now.
    mover: Option<Waker>,
    /// Who waits until everything is at rest.
    waiter: Option<Waker>,
    /// Looks in a row at which nothing was to be done.
    looks: u32,
    /// Looks in a row at which the moving clock has waited for a database.
    waits: u32,
    work: Vec<Work>,
}

/// Runs a test on one thread and on a clock that stands: deadlines, time-outs, back-off and the time of day of every node move when
/// the test says so, with [`PausedClock::advance`], and at no other time.
///
/// Everything that is due on the way happens in its order. While a database of the cluster works, or anything that runs as a
/// blocking task, time stands also within `advance`. What the kit does not know of, another program behind a socket, say, is to be
/// awaited before time is moved.
///
/// ```
/// use std::time::Duration;
/// use ffserver::prelude::*;
/// use ffserver::testing::{Cluster, paused};
///
/// # const CONFIG: &str = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
/// #     "net": { "app": "net", "netport": 3 } } }"#;
/// #[net_handle(1)]
/// async fn forever() -> String {
///     std::future::pending().await
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // #[test] fn a_handler_that_does_not_end_is_dropped_at_its_deadline() …
/// paused(async |clock| {
///     let apps = || vec![App::new("net").handlers(handlers![forever])];
///     let cluster = Cluster::start_text(CONFIG, apps).await?;
///     let mut ann = cluster.client("net")?;
///     let (late, ()) = tokio::join!(ann.call(1, ""), clock.advance(Duration::from_secs(5)));
///     assert_eq!(late.unwrap_err().code(), Some(ffserver::Code::Timeout));
///     Ok(())
/// })
/// # }
/// ```
///
/// # Panics
/// The system has no thread or descriptor left; this runs on a runtime already (the test is a `#[test]`, not a `#[tokio::test]`); or
/// the test awaits what only `advance` brings, for a minute by the clock on the
/// wall.
pub fn paused<T>(test: impl AsyncFnOnce(PausedClock) -> T) -> T {
    let parking: Arc<Mutex<Option<PausedClock>>> = Arc::default();
    let looked_at = parking.clone();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || looked_at.lock().clone().into_iter().for_each(|clock| clock.look()))
        .build()
        .unwrap_or_else(|error| panic!("no runtime for the test: {error}"));
    let clock = {
        let _entered = runtime.enter();
        PausedClock::new()
    };
    *parking.lock() = Some(clock.clone());
    // Before the runtime ends, which waits for its blocking tasks; also when the test panics.
    let _released = Released(&clock);
    runtime.block_on(CURRENT.scope(clock.clone(), async {
        clock.hold();
        tokio::select! {
            biased;
            ended = test(clock.clone()) => ended,
            () = clock.0.stuck.notified() => panic!(
                "nothing has happened for {STANDS_MAX:?}: the test awaits what only PausedClock::advance brings, \
                 or a database that does not answer"
            ),
        }
    }))
}

struct Released<'a>(&'a PausedClock);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Has the clock stand again when who moves it is dropped.
struct Moving<'a>(&'a PausedClock);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().mover = None;
        // A test that panics ends its runtime.
        if !std::thread::panicking() && Handle::try_current().is_ok() {
            self.0.hold();
        }
    }
}

impl PausedClock {
    fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            stuck: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            begun: Instant::now(),
            time_of_day: Clock::starting_at(START),
        }))
    }

    /// The clock of the test that polls this; `None` on a clock that goes.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The time of day, which moves with the clock.
    pub(super) fn time_of_day(&self) -> Clock {
        self.0.time_of_day.clone()
    }

    /// Has time stand while that works.
    pub(super) fn stands_while(&self, works: impl Fn() -> bool + Send + 'static) {
        self.0.state.lock().work.push(Box::new(works));
    }

    /// Moves time on: first everything that the test has begun comes to rest, then what is due happens in its order, and when this
    /// returns its effects have come to rest, too. To the millisecond.
    ///
    /// Dropped before its end, it leaves the clock where it is then.
    pub async fn advance(&self, time: Duration) {
        let _turn = self.0.turn.lock().await;
        self.at_rest().await;
        self.moves_while(sleep_until(Instant::now() + time)).await;
        self.at_rest().await;
    }

    /// Has time move, to what is due next whenever nothing else is to be done, for as long as that takes.
    pub(super) async fn moves_while<T>(&self, moved: impl Future<Output = T>) -> T {
        let mut moved = std::pin::pin!(moved);
        let (moving, mut is_released) = (Moving(self), false);
        let outcome = poll_fn(|cx| {
            self.0.state.lock().mover = Some(cx.waker().clone());
            // Only now, with the mover known to who looks.
            if !std::mem::replace(&mut is_released, true) {
                self.release();
            }
            moved.as_mut().poll(cx)
        })
        .await;
        drop(moving);
        outcome
    }

    /// How far the clock has been moved.
    pub fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Waits until nothing is to be done without time moving on. Cancel-safe.
    pub async fn at_rest(&self) {
        let mut begun = false;
        poll_fn(|cx| {
            let mut state = self.0.state.lock();
            if !std::mem::replace(&mut begun, true) {
                state.looks = 0;
            }
            if state.looks >= LOOKS {
                return Poll::Ready(());
            }
            state.waiter = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Has time stand.
    fn hold(&self) {
        let (hold, held) = mpsc::channel::<()>();
        self.0.state.lock().hold = Some(hold);
        let clock = self.clone();
        tokio::task::spawn_blocking(move || {
            if held.recv_timeout(STANDS_MAX) == Err(RecvTimeoutError::Timeout) {
                clock.0.stuck.notify_one();
            }
        });
    }

    /// Lets tokio move time, to what is due next whenever nothing else is to be done.
    fn release(&self) {
        self.0.state.lock().hold = None;
    }

    /// A look at the test's runtime, which has nothing to do and is about to sleep.
    #[allow(
        clippy::disallowed_methods,
        reason = "the loop has nothing to do but to wait for a database's thread"
    )]
    fn look(&self) {
        let mut state = self.0.state.lock();
        let works = state.work.iter().any(|works| works());
        if !works {
            state.waits = 0;
            state.looks += 1;
            // Those that wait look again, or go on: either way the loop does not sleep.
            state.waiter.take().into_iter().for_each(Waker::wake);
            return;
        }
        state.looks = 0;
        // A loop that is woken before it sleeps does not move time.
        if let Some(mover) = state.mover.clone() {
            state.waits += 1;
            if LOOK_AGAIN * state.waits > STANDS_MAX {
                self.0.stuck.notify_one();
            }
            drop(state);
            std::thread::sleep(LOOK_AGAIN);
            mover.wake();
        }
    }
}

impl std::fmt::Debug for PausedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PausedClock(+{:?})", self.elapsed())
    }
}

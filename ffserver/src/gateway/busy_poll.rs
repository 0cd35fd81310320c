//! The busy poll: when the thread of a process that hosts a whole cluster stays awake for the next message of its
//! clients.
//!
//! A sleeping thread is woken over an interrupt of another processor, which takes longer than all that the nodes of one
//! process do for a request. So a wait that will likely be shorter than that is spent awake, as Linux does it for idle
//! virtual processors (Documentation/virt/guest-halt-polling.rst). Nodes in processes of their own do not: their neighbours
//! need the processor.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The time for which the thread stays awake after a message.
const AWAKE: Duration = Duration::from_micros(50);
/// The distance of messages up to which the thread stays awake: a client that asks once in a while costs nothing.
const CLOSE: Duration = Duration::from_micros(100);

thread_local! {
    static MESSAGES: Cell<u64> = const { Cell::new(0) };
}

/// Notes that a client has sent something.
pub(crate) fn note_message() {
    MESSAGES.set(MESSAGES.get().wrapping_add(1));
}

/// The decision to stay awake, as a value.
#[derive(Debug, Default)]
struct BusyPoll {
    messages: u64,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl BusyPoll {
    /// Whether the thread, which has nothing to do, stays awake; `messages` counts what clients have sent so far.
    fn stays_awake(&mut self, messages: u64, now: impl FnOnce() -> Instant) -> bool {
        if self.messages == messages && self.until.is_none() {
            return false;
        }
        let now = now();
        if self.messages != messages {
            let close = self.last.is_some_and(|last| now.saturating_duration_since(last) < CLOSE);
            self.messages = messages;
            self.last = Some(now);
            self.until = close.then(|| now + AWAKE);
        }
        self.until = self.until.filter(|until| now < *until);
        self.until.is_some()
    }
}

/// Builds the runtime of one thread so that it stays awake when that is worth it.
pub(crate) fn build(mut builder: Builder) -> io::Result<Runtime> {
    let awake = Arc::new(Notify::new());
    let (again, busy_poll) = (awake.clone(), Mutex::new(BusyPoll::default()));
    builder.on_thread_park(move || {
        let mut busy_poll = busy_poll.lock().unwrap_or_else(PoisonError::into_inner);
        if busy_poll.stays_awake(MESSAGES.get(), Instant::now) {
            again.notify_one();
        }
    });
    let runtime = builder.build()?;
    runtime.spawn(async move {
        loop {
            awake.notified().await;
            // The loop looks at its sockets without waiting for them before this task goes on.
            tokio::task::yield_now().await;
        }
    });
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn it_stays_awake_for_a_moment_after_messages_that_follow_each_other_closely() {
        let (mut busy_poll, start) = (BusyPoll::default(), Instant::now());
        let mut stays = |messages, us| busy_poll.stays_awake(messages, || start + Duration::from_micros(us));
        assert!(!stays(0, 0), "nobody has said anything");
        assert!(!stays(1, 1_000), "the first message");
        assert!(stays(2, 1_040), "another one soon after it");
        assert!(stays(2, 1_089));
        assert!(!stays(2, 1_090), "nothing for 50 us");
        assert!(stays(3, 1_130));
        assert!(!stays(4, 1_300), "later than 100 us after the last one");
        assert!(!stays(4, 1_301));
    }

    #[test]
    fn a_runtime_that_stays_awake_sees_its_sockets_and_its_clock() {
        const ROUNDS: u32 = 1000;
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let other = std::thread::spawn(move || {
            let mut one = [0];
            for _ in 0..ROUNDS {
                far.read_exact(&mut one).unwrap();
                far.write_all(&one).unwrap();
            }
        });
        build(builder).unwrap().block_on(async {
            let mut near = tokio::net::UnixStream::from_std(near).unwrap();
            for _ in 0..ROUNDS {
                near.write_u8(7).await.unwrap();
                let answer = tokio::time::timeout(Duration::from_secs(30), near.read_u8()).await;
                assert_eq!(answer.expect("the loop looks at its sockets").unwrap(), 7);
                note_message();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        });
        other.join().unwrap();
    }
}

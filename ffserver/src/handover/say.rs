//! What one process of a hand-over says to the other through the door: the other takes it in time, or is given up.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ffnet::door::Passage;
use serde::Serialize;
use tokio::time::timeout;

/// How long the other process may take for a message. A process that lives does nothing but take messages then, which is a
/// matter of milliseconds on one host; one that hangs, or that is stopped (SIGSTOP), leaves the door open and would hold
/// this one up for ever. As long as a successor may take to serve: a host that is slower than that loses the hand-over
/// anyway.
pub(super) const SAY_MAX: Duration = Duration::from_secs(10);

/// Says something, with copies of `sockets`. After an error nothing more can be said: a part of the message may have gone.
pub(super) async fn say<In, Out: Serialize>(
    passage: &Passage<In, Out>,
    message: &Out,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("it took nothing for {SAY_MAX:?}"));
    timeout(SAY_MAX, passage.send(message, sockets)).await.map_err(late)?
}

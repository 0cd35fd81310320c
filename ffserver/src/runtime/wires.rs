//! Wires: what the links in memory of a test's cluster go over, which the test cuts and delays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ffproto::NodeName;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What is read from a link at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that are on their way at a time, each way: 4 MiB, what a fast line of 100 ms holds.
const CHUNKS_MAX: usize = 256;

/// The wires between the nodes of one process. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Wires(Arc<Mutex<BTreeMap<WireEnds, watch::Sender<Wire>>>>);

/// The two ends of a wire, the lesser name first.
type WireEnds = (NodeName, NodeName);

/// The state of one wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Whether nothing crosses: links over it have ended, and no new one begins.
    pub(crate) is_cut: bool,
    /// How long a byte is on its way, either way.
    pub(crate) delay: Duration,
}

impl Wires {
    /// Changes the wire between two nodes, with the links that are over it.
    pub(crate) fn change(&self, one: &NodeName, other: &NodeName, change: impl FnOnce(&mut Wire)) {
        self.between(one, other).send_modify(change);
    }

    /// The two ends of a new connection, once the wire is whole. Cancel-safe.
    pub(crate) async fn connect(
        &self,
        child: &NodeName,
        parent: &NodeName,
        bytes_max: usize,
    ) -> (DuplexStream, DuplexStream) {
        let wire = self.between(child, parent);
        // The sender is this function's.
        let _ = wire.subscribe().wait_for(|wire| !wire.is_cut).await;
        let (ours, left) = tokio::io::duplex(bytes_max);
        let (theirs, right) = tokio::io::duplex(bytes_max);
        tokio::spawn(carry(left, right, wire.subscribe()));
        (ours, theirs)
    }

    fn between(&self, one: &NodeName, other: &NodeName) -> watch::Sender<Wire> {
        let ends = if one < other { (one, other) } else { (other, one) };
        self.0.lock().entry((ends.0.clone(), ends.1.clone())).or_default().clone()
    }
}

/// Carries what both ends send, until both have ended or the wire is cut; then both ends see the end.
async fn carry(left: DuplexStream, right: DuplexStream, mut wire: watch::Receiver<Wire>) {
    let delays = wire.clone();
    let ((from_left, to_left), (from_right, to_right)) = (tokio::io::split(left), tokio::io::split(right));
    let both =
        async { tokio::join!(one_way(from_left, to_right, &delays), one_way(from_right, to_left, &delays)) };
    tokio::select! {
        _ = wire.wait_for(|wire| wire.is_cut) => {}
        _ = both => {}
    }
}

async fn one_way(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    wire: &watch::Receiver<Wire>,
) {
    let mut wire = wire.clone();
    let (sender, mut under_way) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            if !matches!(from.read_buf(&mut chunk).await, Ok(1..)) {
                return;
            }
            if sender.send((Instant::now(), chunk.freeze())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((sent, chunk)) = under_way.recv().await {
            arrived(sent, &mut wire).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The end has arrived behind all that was sent.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Waits until what was sent then arrives, by the delay that the wire has meanwhile.
async fn arrived(sent: Instant, wire: &mut watch::Receiver<Wire>) {
    loop {
        let due = sent + wire.borrow_and_update().delay;
        if due <= Instant::now() {
            return;
        }
        tokio::select! {
            () = sleep_until(due) => return,
            changed = wire.changed() => if changed.is_err() {
                return sleep_until(due).await;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (NodeName, NodeName) {
        (NodeName::try_from("gate").unwrap(), NodeName::try_from("net").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_is_on_its_way_as_long_as_the_wire_says_and_bytes_keep_their_order() {
        let (wires, (gate, net)) = (Wires::default(), ends());
        let (mut child, mut parent) = wires.connect(&net, &gate, 1024).await;
        let begun = Instant::now();
        wires.change(&gate, &net, |wire| wire.delay = Duration::from_millis(80));
        child.write_all(b"slow").await.unwrap();
        let mut heard = [0; 4];
        parent.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard, begun.elapsed()), (b"slow", Duration::from_millis(80)));
        wires.change(&gate, &net, |wire| wire.delay = Duration::from_secs(3_600));
        child.write_all(b"late").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        wires.change(&gate, &net, |wire| wire.delay = Duration::ZERO);
        parent.read_exact(&mut heard).await.unwrap();
        assert_eq!(
            (&heard, begun.elapsed()),
            (b"late", Duration::from_millis(100)),
            "under way, and sped up"
        );
        drop(child);
        assert_eq!(parent.read(&mut heard).await.unwrap(), 0, "its end arrives, too");
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_cut_wire_ends_both_ends_and_takes_no_connection_until_it_is_whole() {
        let (wires, (gate, net)) = (Wires::default(), ends());
        let (mut child, mut parent) = wires.connect(&net, &gate, 1024).await;
        wires.change(&net, &gate, |wire| wire.is_cut = true);
        assert_eq!(child.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(parent.read(&mut [0; 1]).await.unwrap(), 0);
        let again = tokio::spawn({
            let wires = wires.clone();
            let (gate, net) = ends();
            async move { wires.connect(&net, &gate, 1024).await }
        });
        tokio::task::yield_now().await;
        assert!(!again.is_finished());
        wires.change(&gate, &net, |wire| wire.is_cut = false);
        let (mut child, mut parent) = again.await.unwrap();
        child.write_all(b"x").await.unwrap();
        assert_eq!(parent.read_u8().await.unwrap(), b'x');
    }
}

//! A connection as facts, over a socket whose other end the test holds.

use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Waker;
use std::time::Duration;

use ffnet::transport::tcp::TcpClient;
use ffproto::frame::Firefly;
use ffproto::protocol::{Begins, ClientProtocol, Decoder, FaultSaid};
use ffproto::{CommandId, Fault, NodeName};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::runtime::server::bare_speaking;

/// Ten thousand idle clients have one each: `bench idle` asks for less than 2 KiB for all that a client has.
#[test]
fn a_connection_is_small() {
    assert!(size_of::<Connection>() <= 256, "{}", size_of::<Connection>());
}

/// A node without anything, whose clients speak `protocols`.
fn node(protocols: &str) -> Arc<Executor> {
    speaking(protocols, &[])
}

/// As [`node`], with protocols of its app's own.
fn speaking(protocols: &str, own: &[Arc<dyn ClientProtocol>]) -> Arc<Executor> {
    let config = format!(
        r#"{{ "master": {{ "rootport": 1, "webport": 2 }},
              "servers": {{ "net": {{ "netport": 3, "app": "net", "client": {{ "protocols": {protocols} }} }} }} }}"#
    );
    let cluster = ffconfig::parse(&config, Path::new("config.json"), &|_| None).unwrap().cluster;
    bare_speaking(&cluster, "net", own).unwrap()
}

/// A connection of a node without anything, and the client's end of it.
async fn connection() -> (Connection, TcpStream) {
    connected(node(r#"["firefly", "websocket-binary", "websocket-json"]"#)).await
}

async fn connected(executor: Arc<Executor>) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, address) = listener.accept().await.unwrap();
    stream.writable().await.unwrap();
    let session = executor.node.all_sessions().registry().open(address).unwrap();
    (Connection::new(Arc::new(TcpClient::new(stream).unwrap()), session, executor), client)
}

/// The wait for the client's first bytes, which a greeting has, must not use up the timer of the hook that greets.
#[tokio::test(start_paused = true)]
async fn a_hook_at_the_opening_meets_its_deadline_although_it_greets_a_silent_client() {
    let (mut connection, _client) = connection().await;
    let (session, limit) = (connection.session().clone(), Duration::from_secs(1));
    let handler = Execution::hook(pending());
    connection.running = Some(RunningHandler { handler, request: None, deadline: Instant::now() + limit });
    session.set_running(true);
    session.push(CommandId(1), b"welcome").unwrap();
    let served = tokio::spawn(connection);
    tokio::time::sleep(limit / 2).await;
    assert!(session.is_at_work());
    tokio::time::sleep(limit).await;
    assert!(!session.is_at_work(), "the hook still runs");
    served.abort();
}

/// A node whose clients all have an opening cannot settle for a protocol, and must not wait for one either when it ends a
/// session.
#[tokio::test(start_paused = true)]
async fn a_silent_client_that_was_pushed_to_is_closed_although_its_protocol_is_not_known() {
    for closes in [(|session| session.close("enough")) as fn(&LocalSession), |session| {
        assert!(session.close_with(CommandId(7).into(), &fault()))
    }] {
        let (connection, _client) = connected(node(r#"["websocket-json"]"#)).await;
        let session = connection.session().clone();
        session.push(CommandId(1), b"welcome").unwrap();
        let served = tokio::spawn(connection);
        tokio::time::sleep(Duration::from_secs(1)).await;
        closes(&session);
        let closed = timeout(Duration::from_secs(1), served).await.expect("the session is not ended");
        assert!(matches!(closed.unwrap(), Closed::Here(_)));
    }
}

fn fault() -> Fault {
    Fault { code: Code::Timeout, at: NodeName::master(), executed: Executed::No, message: "late".into() }
}

/// A transport that takes everything and sends nothing until it is told to.
#[derive(Debug, Default)]
struct Taking(Mutex<TakingState>);

#[derive(Debug, Default)]
struct TakingState {
    from_client: Vec<u8>,
    taken: Vec<u8>,
    sends: bool,
    flushes: Option<Waker>,
}

impl ClientStream for Taking {
    fn peer(&self) -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    fn poll_read(&self, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        room.put_slice(&std::mem::take(&mut self.0.lock().from_client));
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn has_unsent(&self) -> bool {
        let state = self.0.lock();
        !state.sends && !state.taken.is_empty()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.sends {
            return Poll::Ready(Ok(()));
        }
        state.flushes = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end_sending(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection does not end before its transport has sent what it has taken, and what is queued behind that.
#[tokio::test]
async fn the_last_answers_are_sent_by_a_transport_that_takes_more_than_it_sends() {
    let (executor, stream) = (node(r#"["firefly"]"#), Arc::new(Taking::default()));
    let framing = Firefly::default();
    framing.write(CommandId(7), b"no route", &mut stream.0.lock().from_client);
    let session = executor.node.all_sessions().registry().open(stream.peer()).unwrap();
    let mut served = tokio::spawn(Connection::new(stream.clone(), session.clone(), executor));
    let early = timeout(Duration::from_millis(100), &mut served).await;
    assert!(early.is_err(), "it has ended with bytes that its transport has not sent");
    session.push(CommandId(8), b"behind").unwrap();
    let flushes = {
        let mut state = stream.0.lock();
        state.sends = true;
        state.flushes.take()
    };
    flushes.unwrap().wake();
    assert!(matches!(served.await.unwrap(), Closed::ByPeer));
    let taken = std::mem::take(&mut stream.0.lock().taken);
    let first = framing.read(&taken, u32::MAX).unwrap().unwrap().bytes;
    assert_eq!(framing.read(&taken[first..], u32::MAX).unwrap().unwrap().command, CommandId(8));
}

/// A protocol of an author that never says that its opening, or a frame, is whole.
#[derive(Debug)]
struct Endless {
    opens: bool,
}

impl ClientProtocol for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    fn begins(&self, _: &[u8]) -> Result<Begins, ProtocolFault> {
        Ok(Begins::by(self.opens.then_some(true)))
    }

    fn decoder(&self, _: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        Ok(Box::new(Self { opens: self.opens }))
    }

    fn push(&self, _: CommandId, _: &[u8], _: &mut Vec<u8>) {}

    fn fault(&self, _: ReplyTo, _: &Fault, _: &mut Vec<u8>) -> FaultSaid {
        FaultSaid::Untold
    }
}

impl Decoder for Endless {
    fn next<'a>(&self, _: &'a [u8], _: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
        Ok(None)
    }
}

/// More than that is not read, and a client that is not read and not closed has a place for ever.
#[tokio::test]
async fn a_client_of_which_nothing_becomes_whole_is_disconnected() {
    for (opens, what) in [(false, "an opening"), (true, "a frame")] {
        let executor = speaking(r#"["endless", "firefly"]"#, &[Arc::new(Endless { opens })]);
        let (connection, mut client) = connected(executor).await;
        let served = tokio::spawn(connection);
        // The connection may end before it has read all.
        let _ = client.write_all(&[0; 100_000]).await;
        let closed = timeout(Duration::from_secs(5), served).await.expect("it stands still").unwrap();
        assert!(closed.to_string().starts_with(&format!("{what} that is not whole after ")), "{closed}");
    }
}

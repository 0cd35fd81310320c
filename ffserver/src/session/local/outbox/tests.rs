//! What an outbox writes, when, and over which socket.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use ffnet::transport::ClientStream;
use ffnet::transport::tcp::TcpClient;
use ffproto::protocol::{Begins, ClientProtocol, Decoder, ProtocolFault};
use ffproto::{Code, Executed, NodeName, SessionId};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};

use super::super::fixture::{Woken, wire};
use super::super::{Stage, begin_write_batch, end_write_batch};
use super::*;

/// A session with its client's end, all that was sent, and how often its connection was woken.
struct Scene {
    session: LocalSession,
    client: TcpStream,
    sent: Vec<u8>,
    woken: Arc<Woken>,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        stream.writable().await.unwrap();
        let wire = wire();
        let session = LocalSession::new(SessionId(1), address, Stage::In, wire, Arc::default());
        session.set_protocol(session.protocols().first());
        session.set_socket(Socket::new(Arc::new(TcpClient::new(stream).unwrap())));
        Self { session, client, sent: Vec::new(), woken: Arc::default() }
    }

    /// The end of a turn of the connection: takes what is queued.
    fn turn(&self, at_rest: bool) -> Vec<u8> {
        let mut writing = WriteBuffer::default();
        let waker = self.woken.clone().into();
        assert_eq!(self.session.take_queued(&mut writing, at_rest, &waker), None);
        writing.take()
    }

    fn push(&mut self, body: &[u8]) {
        self.session.push(CommandId(1), body).unwrap();
        self.session.protocols().push(None, CommandId(1), body, &mut self.sent);
    }

    fn answer(&mut self, body: &[u8]) {
        self.session.0.clone().end(1, Ok(Some(body)));
        self.session.protocols().push(None, CommandId(1), body, &mut self.sent);
    }

    fn woken(&self) -> usize {
        self.woken.times()
    }

    /// What the client reads is what was sent.
    async fn arrives(&mut self, bytes: usize) {
        let mut read = vec![0; bytes];
        self.client.read_exact(&mut read).await.unwrap();
        assert!(read == self.sent[..bytes]);
    }

    /// Sends until the socket is full: what it has not taken is the connection's, and the rest arrives in order.
    async fn is_filled_in_order(&mut self, send: impl Fn(&mut Self, &[u8])) {
        while self.woken() == 0 {
            send(self, &[self.sent.len() as u8; 10_000]);
        }
        let left = self.turn(true);
        assert!(!left.is_empty() && self.sent.ends_with(&left));
        self.arrives(self.sent.len() - left.len()).await;
    }
}

#[tokio::test]
async fn what_a_link_brings_is_written_without_a_turn_of_a_connection_at_rest() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(true).is_empty());
    begin_write_batch();
    scene.push(b"one");
    scene.push(b"two");
    end_write_batch();
    assert!(!scene.session.has_queued());
    scene.arrives(scene.sent.len()).await;
    assert_eq!(scene.woken(), 0);
    scene.push(b"outside of a link");
    assert_eq!(scene.woken(), 1);
    assert!(scene.sent.ends_with(&scene.turn(true)));
}

#[tokio::test]
async fn the_last_answer_is_written_at_once_and_others_wait_for_it() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(true).is_empty());
    for _ in 0..2 {
        scene.session.request_waits();
    }
    begin_write_batch();
    for (body, queued) in [(b"one", true), (b"two", true)] {
        scene.answer(body);
        assert_eq!(scene.session.has_queued(), queued);
    }
    end_write_batch();
    scene.session.request_waits();
    scene.answer(b"alone");
    assert!(!scene.session.has_queued());
    scene.arrives(scene.sent.len()).await;
    assert_eq!(scene.woken(), 0);
}

#[tokio::test]
async fn an_answer_that_a_full_socket_takes_in_part_is_left_to_the_connection() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(true).is_empty());
    scene
        .is_filled_in_order(|scene, body| {
            scene.session.request_waits();
            scene.answer(body);
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_has_something_to_do_writes_by_itself() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(false).is_empty());
    begin_write_batch();
    scene.push(b"one");
    end_write_batch();
    assert_eq!(scene.woken(), 1);
    assert_eq!(scene.turn(true), scene.sent);
    // It writes that now, so the next must not go past it.
    begin_write_batch();
    scene.push(b"two");
    end_write_batch();
    assert!(scene.session.has_queued());
}

#[tokio::test]
async fn what_a_full_socket_does_not_take_is_left_to_the_connection_in_order() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(true).is_empty());
    scene
        .is_filled_in_order(|scene, body| {
            begin_write_batch();
            scene.push(body);
            end_write_batch();
        })
        .await;
}

#[tokio::test]
async fn nothing_is_written_to_a_session_that_is_gone() {
    let mut scene = Scene::new().await;
    assert!(scene.turn(true).is_empty());
    begin_write_batch();
    scene.push(b"one");
    scene.session.end();
    end_write_batch();
    assert_eq!(scene.client.read(&mut [0; 8]).await.unwrap(), 0, "its socket is closed");
}

/// A protocol without a word for errors, whose clients cannot be left alone.
#[derive(Debug)]
struct Mute;

impl ClientProtocol for Mute {
    fn name(&self) -> &'static str {
        "mute"
    }

    fn begins(&self, _: &[u8]) -> Result<Begins, ProtocolFault> {
        Ok(Begins::by(Some(true)))
    }

    fn decoder(&self, _: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        Err(ProtocolFault::new("not read"))
    }

    fn push(&self, _: CommandId, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(body);
    }

    fn fault(&self, _: ReplyTo, _: &Fault, _: &mut Vec<u8>) -> FaultSaid {
        FaultSaid::Closes
    }
}

/// A stream that keeps what each write has brought.
#[derive(Debug, Default)]
struct Writes(Mutex<Vec<Vec<u8>>>, AtomicBool);

impl ClientStream for Writes {
    fn peer(&self) -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    fn poll_read(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().push(bytes.to_vec());
        // More than there is, as a careless transport counts what it adds.
        Ok(bytes.len() + 7)
    }

    fn has_unsent(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    fn end_sending(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A session over [`Writes`], of a node that speaks `mute` beside the built-in protocols.
fn noted(spoken: Option<&str>) -> (LocalSession, Arc<Writes>, Arc<Woken>) {
    let frames = super::super::frames(&ffconfig::ClientFraming::default());
    let protocols = Arc::new(Protocols::choose(frames, &[Arc::new(Mute)], None).unwrap());
    let (wire, writes) = (super::super::ClientWire { protocols, ..wire() }, Arc::new(Writes::default()));
    let session = LocalSession::new(SessionId(1), writes.peer(), Stage::In, wire, Arc::default());
    if let Some(id) = spoken.and_then(|name| session.protocols().named(name)) {
        session.set_protocol(id);
    }
    session.set_socket(Socket::new(writes.clone()));
    let woken = Arc::<Woken>::default();
    let taken = session.take_queued(&mut WriteBuffer::default(), true, &woken.clone().into());
    assert_eq!(taken, None);
    (session, writes, woken)
}

fn fault() -> Fault {
    let (at, message) = (NodeName::master(), "nobody there".to_owned());
    Fault { code: Code::NoNode, at, executed: Executed::No, message }
}

#[test]
fn a_fault_that_a_protocol_has_no_word_for_closes_behind_what_was_sent_before() {
    let ends: [fn(&LocalSession); 3] = [
        |session| session.push_fault(CommandId(1).into(), &fault()),
        |session| {
            session.request_waits();
            session.0.clone().end(1, Err(&fault()));
        },
        |session| {
            (0..2).for_each(|_| session.request_waits());
            session.0.clone().end(1, Err(&fault()));
        },
    ];
    for end in ends {
        for before in [&b"before"[..], b""] {
            let (session, writes, woken) = noted(Some("mute"));
            if !before.is_empty() {
                session.push(CommandId(1), before).unwrap();
            }
            end(&session);
            assert!(session.is_ending() && woken.times() > 0);
            assert_eq!(session.push(CommandId(1), b"behind"), Err(PushError::Gone));
            let (mut writing, waker) = (WriteBuffer::default(), woken.into());
            if !before.is_empty() {
                assert_eq!(session.take_queued(&mut writing, true, &waker), None);
                assert_eq!(writing.take(), before);
            }
            let why = session.take_queued(&mut writing, true, &waker).unwrap();
            assert_eq!(why, CloseReason::of(&fault()));
            assert!(writes.0.lock().is_empty(), "a write of nothing is one, too, for who numbers them");
        }
    }
}

#[test]
fn nothing_is_written_past_a_connection_whose_protocol_is_not_known() {
    let (session, writes, woken) = noted(None);
    begin_write_batch();
    session.push(CommandId(1), b"pushed").unwrap();
    end_write_batch();
    session.request_waits();
    session.0.clone().end(1, Ok(Some(b"answered")));
    assert!(writes.0.lock().is_empty(), "in what frames?");
    assert!(woken.times() > 0 && session.has_queued());
    // The connection has looked before it was queued: it looks once more.
    let (mut writing, times) = (WriteBuffer::default(), woken.times());
    assert_eq!(session.take_queued(&mut writing, true, &woken.clone().into()), None);
    assert!(writing.is_empty() && woken.times() > times);
    session.begin_protocol(session.protocols().named("mute").unwrap(), b"hello:");
    assert_eq!(session.take_queued(&mut writing, true, &woken.into()), None);
    assert_eq!(writing.take(), b"hello:pushedanswered");
}

#[test]
fn a_transport_that_says_it_has_taken_more_than_there_is_has_taken_all() {
    let (session, writes, woken) = noted(Some("firefly"));
    writes.1.store(true, Ordering::Relaxed);
    session.request_waits();
    session.0.clone().end(1, Ok(Some(b"answered")));
    assert!(!session.has_queued() && woken.times() == 1, "the connection sees to what is unsent");
}

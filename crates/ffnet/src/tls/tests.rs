use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ffkeys::CredentialFault;
use ffproto::credential::PublicKey;
use ffproto::handshake::Purpose;
use ffproto::link::Head;
use ffproto::{Incarnation, NodeName, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::handshake::tests::{local, name};
use crate::handshake::{self, HandshakeError, Local, Peer};
use crate::link::{CallOptions, Change, Closed, Driver, Link, LinkLimits, Service};

const LIMITS: LinkLimits = LinkLimits {
    frame_bytes_max: 4 << 20,
    outbox_bytes_max: 8 << 20,
    calls_max: 1000,
    heartbeat: Duration::from_secs(60),
};

type Io = Box<Sealed<DuplexStream>>;

async fn open(dialer: DuplexStream, acceptor: DuplexStream) -> (io::Result<Io>, io::Result<Io>) {
    let chance = Chance::system();
    let (dialed, accepted) = tokio::join!(dial(dialer), accept(acceptor, &chance));
    // What is tried here is what comes behind the proof.
    (dialed, accepted.inspect(|sealed| unproven_bound(sealed).lift()))
}

/// Echoes, and counts what has arrived.
#[derive(Clone, Default)]
struct Echo(Arc<AtomicU32>);

impl Service for Echo {
    fn call(&self, link: &Link, head: &Head, body: &[u8], _: Instant) {
        self.0.fetch_add(1, Ordering::Relaxed);
        link.reply(head.call, body);
    }
    fn notify(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn changed(&self, _: &Link, _: Change) {}
}

fn link(here: &str, there: &str, io: Io, echo: &Echo) -> (Link, JoinHandle<Closed>) {
    let peer = Peer {
        name: NodeName::try_from(there).unwrap(),
        kind: there.into(),
        incarnation: Incarnation(1),
        pid: 1,
        program: String::new(),
        methods: vec!["echo".into()],
        version: Versions::OURS.max,
        root: PublicKey([0; 32]),
    };
    let link = Link::new(NodeName::try_from(here).unwrap(), peer, LIMITS, Arc::default());
    (link.clone(), tokio::spawn(Driver::new(link, io, echo.clone())))
}

fn soon() -> CallOptions {
    CallOptions { deadline: Instant::now() + Duration::from_secs(20), client: None }
}

/// A cable on which somebody changes the byte at a place, counted from when it is told to.
struct Tapped {
    dialer: DuplexStream,
    acceptor: DuplexStream,
    /// The first is towards the acceptor.
    begin: [watch::Sender<Option<usize>>; 2],
}

fn tapped() -> Tapped {
    let ((dialer, left), (acceptor, right)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
    let ((from_left, to_left), (from_right, to_right)) = (tokio::io::split(left), tokio::io::split(right));
    let begin = [(); 2].map(|()| watch::channel(None).0);
    tokio::spawn(carry(from_left, to_right, begin[0].subscribe()));
    tokio::spawn(carry(from_right, to_left, begin[1].subscribe()));
    Tapped { dialer, acceptor, begin }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    changes: watch::Receiver<Option<usize>>,
) {
    let (mut room, mut gone) = (vec![0; 1 << 16], 0);
    while let Ok(bytes @ 1..) = from.read(&mut room).await {
        let place = *changes.borrow();
        if let Some(place) = place {
            let here = place.checked_sub(gone).and_then(|at| room[..bytes].get_mut(at));
            here.into_iter().for_each(|byte| *byte ^= 1);
            gone += bytes;
        }
        if to.write_all(&room[..bytes]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn an_encrypted_link_carries_calls_both_ways_and_ends_with_its_last_word() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, b) = open(a, b).await;
    let echo = Echo::default();
    let (net, down) = link("net", "gate", a.unwrap(), &echo);
    let (gate, up) = link("gate", "net", b.unwrap(), &echo);
    assert_eq!(net.call("echo", b"up", soon()).await.unwrap(), "up");
    // Larger than the socket, than a record, and than what rustls keeps.
    let large = vec![7; 1 << 20];
    assert_eq!(gate.call("echo", &large, soon()).await.unwrap(), large);
    net.close("done");
    let (up, down) = (up.await.unwrap(), down.await.unwrap());
    assert!(matches!(&up, Closed::Bye(why) if why == "done"), "{up}");
    assert!(matches!(down, Closed::Here(_)), "{down}");
}

/// `close_notify` is what tells an end from a cut.
#[tokio::test]
async fn who_leaves_says_the_end_of_the_channel() {
    let mut said = Vec::new();
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, b) = open(a, b).await;
    drop(a);
    let cut = b.unwrap().read_to_end(&mut said).await.unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, b) = open(a, b).await;
    let (net, _driver) = link("net", "gate", a.unwrap(), &Echo::default());
    net.close("done");
    b.unwrap().read_to_end(&mut said).await.unwrap();
    assert!(said.ends_with(b"done"));
}

#[tokio::test]
async fn a_changed_byte_ends_the_link_and_reaches_no_handler() {
    let (mut changed, mut behind) = (0, 0);
    for (towards, place) in (0..2).flat_map(|towards| (0..100).map(move |place| (towards, place))) {
        let Tapped { dialer, acceptor, begin } = tapped();
        let (a, b) = open(dialer, acceptor).await;
        let (caller, callee) = (Echo::default(), Echo::default());
        let (net, down) = link("net", "gate", a.unwrap(), &caller);
        let (gate, up) = link("gate", "net", b.unwrap(), &callee);
        assert_eq!(net.call("echo", b"before", soon()).await.unwrap(), "before");
        begin[towards].send_replace(Some(place));
        let answer = net.call("echo", b"the body of a message", soon());
        let answer = tokio::time::timeout(Duration::from_millis(300), answer).await;
        let Ok(Ok(answer)) = answer else {
            changed += 1;
            // A length that has grown waits for the rest; whatever comes then is not what was sent.
            drop((net.notify("echo", &[7; 1 << 15], None), gate.notify("echo", &[7; 1 << 15], None)));
            let ended = if towards == 0 { up } else { down }.await.unwrap();
            let malformed = matches!(&ended, Closed::Io(error) if error.kind() == io::ErrorKind::InvalidData);
            assert!(malformed, "{ended}");
            // What came before, and nothing that came changed.
            let arrived = if towards == 0 { &callee } else { &caller }.0.load(Ordering::Relaxed);
            assert_eq!(arrived, if towards == 0 { 1 } else { 0 }, "{towards} {place}");
            continue;
        };
        // The place is behind what was sent.
        behind += 1;
        assert_eq!(answer, "the body of a message");
    }
    assert!(changed > 100 && behind > 20, "{changed} changed, {behind} not");
}

async fn handshakes<A, B>(mut a: Box<Sealed<A>>, mut b: Box<Sealed<B>>) -> [Result<Peer, HandshakeError>; 2]
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let ours = Local { binding: binding(&a).unwrap(), ..local("net") };
    let theirs = Local { binding: binding(&b).unwrap(), ..local("gate") };
    let to = name("gate");
    let dialing = async move { handshake::dial(&mut a, Purpose::Link, &ours, &to).await };
    let accepting = async move { handshake::accept(&mut b, Purpose::Link, &theirs, None, |_| Ok(())).await };
    let (dialed, accepted) = tokio::join!(dialing, accepting);
    [dialed, accepted]
}

#[tokio::test]
async fn both_ends_of_a_channel_have_its_binding_and_no_other_channel_has() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, b) = open(a, b).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(binding(&a).unwrap(), binding(&b).unwrap());
    let (c, d) = tokio::io::duplex(1 << 16);
    assert_ne!(binding(&a).unwrap(), binding(&open(c, d).await.0.unwrap()).unwrap());
    assert!(handshakes(a, b).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn who_sits_between_two_nodes_is_a_stranger_to_both() {
    let ((a, left), (right, b)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
    let ((a, left), (right, b)) = (open(a, left).await, open(right, b).await);
    let (mut left, mut right) = (left.unwrap(), right.unwrap());
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut left, &mut right).await });
    let [dialed, accepted] = handshakes(a.unwrap(), b.unwrap()).await;
    assert!(matches!(accepted, Err(HandshakeError::Stranger(CredentialFault::Possession))), "{accepted:?}");
    assert!(matches!(dialed, Err(HandshakeError::Silent)), "{dialed:?}");
}

/// A record of TLS that is longer than what is taken, and its first bytes.
fn long_record(first: &[u8], version: u8) -> Vec<u8> {
    [first[0], 3, version, 0x40, 0].iter().chain(&first[1..]).copied().chain([0; 1 << 14]).collect()
}

#[tokio::test]
async fn little_is_taken_of_who_has_proved_nothing() {
    let (client_hello, data) = (&[FIRST_BYTE, 1, 0, 0xff, 0xfb, 3, 3], &[0x17]);
    let bounded = |taken: usize, error: io::Error| {
        assert_eq!(error.to_string(), format!("it has proved nothing within {UNPROVEN_BYTES_MAX} bytes"));
        assert_eq!(taken, UNPROVEN_BYTES_MAX);
    };
    // While the channel is opened.
    let (mut a, mut b) = tokio::io::duplex(1 << 16);
    a.write_all(&long_record(client_hello, 1)).await.unwrap();
    let error = accept(&mut b, &Chance::system()).await.map(drop).unwrap_err();
    drop(a);
    let mut left = Vec::new();
    b.read_to_end(&mut left).await.unwrap();
    bounded(long_record(client_hello, 1).len() - left.len(), error);
    // And inside of it.
    for proved in [false, true] {
        let (a, mut b) = tokio::io::duplex(1 << 16);
        let chance = Chance::system();
        let (a, sealed) = tokio::join!(dial(a), accept(&mut b, &chance));
        let (mut a, mut sealed) = (a.unwrap(), sealed.unwrap());
        let opening = UNPROVEN_BYTES_MAX - unproven_bound(&sealed).left().unwrap();
        assert!(opening < 1024, "{opening}");
        if proved {
            unproven_bound(&sealed).lift();
        }
        let TlsStream::Client(stream) = &mut *a else { panic!() };
        stream.get_mut().0.write_all(&long_record(data, 3)).await.unwrap();
        let error = sealed.read(&mut [0; 1]).await.unwrap_err();
        drop(sealed);
        if proved {
            assert!(error.to_string().contains("decrypt"), "{error}");
            continue;
        }
        // Its end would be a word more.
        std::mem::forget(a);
        let left = b.read(&mut vec![0; 1 << 15]).await.unwrap();
        bounded(long_record(data, 3).len() - left + opening, error);
    }
}

#[tokio::test]
async fn a_channel_is_of_tls_1_3_and_of_nodes() {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (a, _b) = open(a, b).await;
    let TlsStream::Client(client) = &**a.as_ref().unwrap() else { panic!() };
    assert_eq!(client.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // Somebody else's TLS server, with a key of its own and another protocol inside.
    let (a, b) = tokio::io::duplex(1 << 16);
    let keys = Arc::new(AlwaysResolvesServerRawPublicKeys::new(new_key(&Chance::system()).unwrap()));
    let other = server_config(provider(), keys, &[b"http/1.1"]).unwrap();
    let (dialed, accepted) = tokio::join!(dial(a), TlsAcceptor::from(Arc::new(other)).accept(b));
    assert!(dialed.is_err() && accepted.is_err());
}

//! What somebody says to a node's rootport, from the first byte on: handshakes and then frames, by everybody who could know
//! anything. A real acceptor and a real driver answer, under paused time.
//!
//! An input is a row of steps, each one byte and its arguments ([`Step`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bincode::Options;
use ffambient::{Chance, Clock};
use ffkeys::{ClusterKeys, ClusterSecret, NodeKeys};
use ffnet::handshake::{Local, accept};
use ffnet::link::{CallOptions, Driver, Forward, Link, LinkCounters, LinkLimits, Service, Sink};
use ffproto::credential::{Claims, Credential, Role, Signature};
use ffproto::handshake::{
    Hello, Methods, Nonce, Opening, PREAMBLE_BYTES, PROOF_BYTES_MAX, Purpose, Refusal, Reply, Transcript,
    not_of_the_future,
};
use ffproto::link::{self, Head, Kind};
use ffproto::{ClusterName, Code, Executed, Fault, Incarnation, NodeName, Version, Versions};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use crate::coding;

/// Bytes that a connection holds in each direction.
const PIPE_BYTES: usize = 16 * 1024;
/// The bounds of each link: small, so that an input reaches them.
const LIMITS: LinkLimits = LinkLimits {
    frame_bytes_max: 4096,
    outbox_bytes_max: 8 * 1024,
    calls_max: 8,
    heartbeat: Duration::from_secs(1),
};
/// What may wait on a link to be written, whatever the other side does: see [`ffnet::link::Closed::Unread`]; behind that what
/// one more read leads to, which is a frame of a hundred bytes for each of 16.
const QUEUED_MAX: usize = 2 * LIMITS.outbox_bytes_max + PIPE_BYTES / 16 * 128;
/// What the acceptor says to everybody: its preamble and its nonce.
const FIRST_WORDS: usize = PREAMBLE_BYTES + 32;
/// What may be said again.
const SAID_MAX: usize = 64;
/// Connections of one input.
const CONNECTIONS_MAX: usize = 6;
/// The time of day at the acceptor.
const NOW_MS: u64 = 1_800_000_000_000;

/// What an input has led to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// Links that were opened.
    pub links: usize,
    /// Calls of the node on them.
    pub calls: usize,
    /// Those of them that were answered well.
    pub answered: usize,
    /// Calls of the other side that the node has got.
    pub served: usize,
}

/// Everything that somebody could know, or make up, about who he is.
struct Cast {
    acceptor: Option<NodeKeys>,
    /// Who has a key of his own: by the master, by a key file, of before a rotation, and one of the far future.
    good: Vec<NodeKeys>,
    /// Who has not, see [`Cast::new`], and what he shows.
    bad: Vec<(NodeKeys, Credential)>,
}

/// Bytes that a dialer has said.
#[derive(Clone)]
struct Said {
    bytes: Vec<u8>,
    /// The connection on which they prove something, what, and whether a link may be opened by it.
    proves: Option<(usize, NodeName, bool)>,
}

// Fields: one connection, its two ends and what is known of each.
/// One connection, seen from the dialer.
struct Connection {
    io: Option<DuplexStream>,
    deaf: bool,
    /// The preamble that was said last.
    preamble: [u8; PREAMBLE_BYTES],
    heard: Vec<u8>,
    /// Messages of the handshake in what was heard, and how much of it is understood.
    messages: u8,
    at: usize,
    /// The calls that the node has made, and the ends of those that it has got.
    asked: Vec<u32>,
    ends: HashMap<u32, usize>,
    /// The names that were proved on it, and those that may link.
    proved: HashSet<NodeName>,
    may_link: HashSet<NodeName>,
    end: Arc<Mutex<Acceptor>>,
}

/// What the acceptor's side of a connection has come to.
#[derive(Default)]
struct Acceptor {
    link: Option<Link>,
    calls_got: HashMap<u32, usize>,
    over: bool,
}

/// Counts how often each call has ended.
#[derive(Default)]
struct Ends {
    of: Mutex<HashMap<u64, usize>>,
    good: AtomicUsize,
}

impl Sink for Ends {
    fn end(self: Arc<Self>, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        *self.of.lock().entry(token).or_default() += 1;
        self.good.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
    }
}

/// A node behind a link: it answers by the method, or never.
struct Node(Arc<Mutex<Acceptor>>);

impl Service for Node {
    fn call(&self, link: &Link, head: &Head, body: &[u8], _now: Instant) {
        *self.0.lock().calls_got.entry(head.call).or_default() += 1;
        match head.method % 4 {
            0 => link.reply(head.call, body),
            1 => link.reply_done(head.call),
            2 => link.reply_fault(head.call, &refused()),
            _ => {}
        }
    }

    fn notify(&self, _link: &Link, _head: &Head, _body: &[u8], _now: Instant) {}

    fn changed(&self, link: &Link, change: ffnet::link::Change) {
        if change == ffnet::link::Change::Resumed {
            link.reinstate();
        }
    }
}

/// A sequence of steps, by everybody who could know anything: no panic, nothing but the first words without a proof, no link
/// without a proof of that name on that connection, every call ends once, none is answered twice, and what waits is bounded.
///
/// # Panics
/// One of these does not hold.
pub fn conversation(data: &[u8]) {
    converse(data);
}

/// The same, with what it has led to.
///
/// # Panics
/// One of the rules does not hold.
pub fn converse(data: &[u8]) -> Conversation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return Conversation::default() };
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let Some(mut stage) = Stage::new() else { return Conversation::default() };
        let mut rest = Steps(data);
        while let Some(step) = rest.step() {
            stage.play(step).await;
            stage.check();
        }
        stage.end().await
    }))
}

/// A step of an input.
enum Step<'a> {
    /// Dials.
    Dial,
    /// Goes on with another connection.
    Turn(u8),
    /// Says the preamble of a node; an odd number: of the version before.
    Preamble(u8),
    /// Says who he is: as whom, for which connection's nonce (255: for one of zeros), to whom, and which byte of it is changed
    /// (0: none).
    Hello { who: u8, nonce: u8, to: u8, change: u8 },
    /// Says again what was said before by anybody, with a changed byte (0: none).
    Again { which: u8, change: u8 },
    /// Says what the acceptor has said.
    Reflect(u8),
    /// Says his methods, or that he will not go on.
    Reply(u8),
    /// Says bytes.
    Bytes(&'a [u8]),
    /// Sends the same frame some times. Its call is one that the node has made, when the number is odd.
    Frame { kind: u8, method: u8, call: u8, times: u8, body: u8 },
    /// Time passes.
    Wait(u8),
    /// The node calls, with some time for it.
    Call { times: u8, wait: u8, future: bool },
    /// The node does something about the link.
    Node(u8),
    /// Reads nothing until he reads again.
    Deaf(bool),
    /// Closes his side, or all of it.
    Close(bool),
}

struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An argument; 0 where the input ends.
    fn arg(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    fn step(&mut self) -> Option<Step<'a>> {
        let kind = self.byte()? % 16;
        Some(match kind {
            0 => Step::Dial,
            1 => Step::Turn(self.arg()),
            2 => Step::Preamble(self.arg()),
            3 => Step::Hello { who: self.arg(), nonce: self.arg(), to: self.arg(), change: self.arg() },
            4 => Step::Again { which: self.arg(), change: self.arg() },
            5 => Step::Reflect(self.arg()),
            6 => Step::Reply(self.arg()),
            7 => {
                let length = usize::from(self.arg());
                let (bytes, rest) = self.0.split_at(self.0.len().min(length));
                self.0 = rest;
                Step::Bytes(bytes)
            }
            8 | 9 => Step::Frame {
                kind: self.arg(),
                method: self.arg(),
                call: self.arg(),
                times: self.arg(),
                body: self.arg(),
            },
            10 => Step::Wait(self.arg()),
            11 | 12 => Step::Call { times: self.arg(), wait: self.arg(), future: kind == 12 },
            13 => Step::Node(self.arg()),
            14 => Step::Deaf(self.arg() % 2 == 1),
            _ => Step::Close(self.arg() % 2 == 1),
        })
    }
}

fn name(text: &str) -> Option<NodeName> {
    NodeName::try_from(text).ok()
}

fn claims(of: &str) -> Option<Claims> {
    Some(Claims {
        cluster: ClusterName::try_from("c").ok()?,
        role: Role::Node,
        name: name(of)?,
        kind: of.to_owned(),
        below: vec!["gate".to_owned()],
    })
}

impl Cast {
    fn new(chance: &Chance) -> Option<Self> {
        let (secret, other) = (ClusterSecret::new(chance).ok()?, ClusterSecret::new(chance).ok()?);
        let before = ClusterKeys::new(&secret, 6, None).ok()?;
        let keys = ClusterKeys::new(&secret, 7, Some(before.roots().current)).ok()?;
        let (long_ago, other) =
            (ClusterKeys::new(&secret, 5, None).ok()?, ClusterKeys::new(&other, 7, None).ok()?);
        let start = |keys: &ClusterKeys, claims: Claims, incarnation| {
            keys.start(claims, Incarnation(incarnation), chance).ok()
        };
        let by_file = keys.name_key(claims("net")?, chance).ok()?.start(Incarnation(9), chance).ok()?;
        let good = vec![
            start(&keys, claims("net")?, 1)?,
            start(&keys, claims("game")?, NOW_MS)?,
            by_file,
            start(&before, claims("net")?, 2)?,
            start(&keys, claims(LATE)?, u64::MAX)?,
        ];
        let cluster = ClusterName::try_from("other").ok()?;
        let own = |keys: NodeKeys| (keys.credential().clone(), keys);
        let bad = [
            own(start(&other, claims("net")?, 1)?),
            own(start(&long_ago, claims("net")?, 1)?),
            own(start(&keys, Claims { cluster, ..claims("net")? }, 1)?),
            own(start(&keys, Claims { role: Role::Master, ..claims("net")? }, 1)?),
            // A credential that was seen, with another key.
            (good.first()?.credential().clone(), start(&keys, claims("game")?, 1)?),
            // A credential that says more than was signed.
            (
                Credential { incarnation: Incarnation(5), ..good.first()?.credential().clone() },
                start(&keys, claims("net")?, 1)?,
            ),
        ];
        let bad = bad.into_iter().map(|(credential, keys)| (keys, credential)).collect();
        Some(Self { acceptor: start(&keys, claims("gate")?, 1), good, bad })
    }

    /// Who says to be whom, and whether he can prove it.
    fn who(&self, number: u8) -> (&NodeKeys, &Credential, bool) {
        let number = usize::from(number) % (self.good.len() + self.bad.len());
        match self.good.get(number) {
            Some(keys) => (keys, keys.credential(), true),
            None => {
                let (keys, credential) = &self.bad[number - self.good.len()];
                (keys, credential, false)
            }
        }
    }
}

/// Who has a key, and a start that nobody could follow.
const LATE: &str = "late";

fn refused() -> Fault {
    let at = name("gate").unwrap_or_else(NodeName::master);
    Fault { code: Code::BadRequest, at, executed: Executed::No, message: String::new() }
}

impl Connection {
    fn new(io: DuplexStream) -> Self {
        Self {
            io: Some(io),
            deaf: false,
            preamble: Purpose::Link.preamble(Versions::OURS),
            heard: Vec::new(),
            messages: 0,
            at: 0,
            asked: Vec::new(),
            ends: HashMap::new(),
            proved: HashSet::new(),
            may_link: HashSet::new(),
            end: Arc::default(),
        }
    }

    /// What the acceptor has drawn for it.
    fn nonce(&self) -> Option<Nonce> {
        self.heard.get(PREAMBLE_BYTES..FIRST_WORDS)?.try_into().ok()
    }

    /// Reads what is there.
    fn hear(&mut self) {
        let Some(io) = self.io.as_mut().filter(|_| !self.deaf) else { return };
        let mut bytes = [0; 4096];
        while let Some(Ok(n @ 1..)) = io.read(&mut bytes).now_or_never() {
            self.heard.extend_from_slice(&bytes[..n]);
        }
        self.understand();
    }

    /// The messages of the handshake, then frames: which calls the node makes, and which it ends.
    fn understand(&mut self) {
        self.at = self.at.max(FIRST_WORDS);
        while let Some(rest) = self.heard.get(self.at..) {
            if self.messages < 2 {
                let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length)) else {
                    return;
                };
                let whole = 4 + length as usize;
                if rest.len() < whole {
                    return;
                }
                (self.at, self.messages) = (self.at + whole, self.messages + 1);
                continue;
            }
            let frame = match link::read(rest, LIMITS.frame_bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(fault) => panic!("the node has written what is no frame: {fault}"),
            };
            match frame.head.kind {
                Kind::Call => self.asked.push(frame.head.call),
                Kind::Reply | Kind::Done | Kind::Fault => *self.ends.entry(frame.head.call).or_default() += 1,
                _ => {}
            }
            self.at += frame.bytes;
        }
    }
}

/// The acceptor, and everybody who talks to it.
struct Stage {
    cast: Cast,
    local: Arc<Local>,
    connections: Vec<Connection>,
    turn: usize,
    said: Vec<Said>,
    ends: Arc<Ends>,
    /// The calls that the node has made, by whether they were taken.
    calls: Vec<bool>,
}

impl Stage {
    fn new() -> Option<Self> {
        let chance = Chance::seeded(17);
        let mut cast = Cast::new(&chance)?;
        let clock = Clock::starting_at(Duration::from_millis(NOW_MS));
        let local = Local {
            keys: cast.acceptor.take().map(Arc::new)?,
            versions: Versions::OURS,
            methods: vec!["m".to_owned()],
            chance,
            clock,
            binding: vec![],
        };
        let (connections, said, calls) = (Vec::new(), Vec::new(), Vec::new());
        let (local, ends) = (Arc::new(local), Arc::default());
        Some(Self { cast, local, connections, turn: 0, said, ends, calls })
    }

    async fn play(&mut self, step: Step<'_>) {
        match step {
            Step::Dial => self.dial(),
            Step::Turn(to) => self.turn = usize::from(to) % self.connections.len().max(1),
            Step::Wait(ms) => tokio::time::advance(Duration::from_millis(u64::from(ms) * 50)).await,
            Step::Preamble(which) => {
                let older = Versions { min: Version(3), max: Version(3) };
                let versions = if which % 2 == 1 { older } else { Versions::OURS };
                let preamble = Purpose::Link.preamble(versions);
                if let Some(connection) = self.connections.get_mut(self.turn) {
                    connection.preamble = preamble;
                }
                self.say(Said::of(preamble.to_vec())).await;
            }
            Step::Hello { who, nonce, to, change } => {
                if let Some(hello) = self.hello(who, nonce, to) {
                    self.say(hello.changed(change)).await;
                }
            }
            Step::Again { which, change } => {
                let again = self.said.get(usize::from(which) % self.said.len().max(1)).cloned();
                if let Some(again) = again {
                    self.say(again.changed(change)).await;
                }
            }
            Step::Reflect(of) => {
                let of = usize::from(of) % self.connections.len().max(1);
                let heard = self.connections.get(of).map(|connection| connection.heard.clone());
                self.say(Said::of(heard.unwrap_or_default())).await;
            }
            Step::Reply(which) => {
                let reply = match which % 4 {
                    0 => Reply::Refused(Refusal::Stopping),
                    n => Reply::Methods(Methods(vec!["m".to_owned(); usize::from(n)])),
                };
                self.say(Said::of(message(&reply))).await;
            }
            Step::Bytes(bytes) => self.say(Said::of(bytes.to_vec())).await,
            Step::Frame { kind, method, call, times, body } => {
                let bytes = self.frames(kind, method, call, times, body);
                self.say(Said::of(bytes)).await;
            }
            Step::Call { times, wait, future } => self.call(times, wait, future),
            Step::Node(what) => self.node(what),
            Step::Deaf(deaf) => {
                if let Some(connection) = self.connections.get_mut(self.turn) {
                    connection.deaf = deaf;
                }
            }
            Step::Close(all) => self.close(all).await,
        }
        self.run().await;
    }

    fn dial(&mut self) {
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let (io, mut theirs) = tokio::io::duplex(PIPE_BYTES);
        let connection = Connection::new(io);
        let (end, local) = (connection.end.clone(), self.local.clone());
        tokio::task::spawn_local(async move {
            let admit = |node: &Credential| not_of_the_future(node.incarnation, NOW_MS);
            if let Ok(peer) = accept(&mut theirs, Purpose::Link, &local, None, admit).await
                && let Some(here) = name("gate")
            {
                let link = Link::new(here, peer, LIMITS, Arc::new(LinkCounters::default()));
                end.lock().link = Some(link.clone());
                Driver::new(link, theirs, Node(end.clone())).await;
            }
            end.lock().over = true;
        });
        self.turn = self.connections.len();
        self.connections.push(connection);
    }

    /// A Hello, and where it proves something.
    fn hello(&self, who: u8, nonce: u8, to: u8) -> Option<Said> {
        let (keys, credential, is_good) = self.cast.who(who);
        let of = if nonce == 0 { self.turn } else { usize::from(nonce - 1) };
        let drawn = self.connections.get(of).and_then(Connection::nonce);
        let nonce = drawn.unwrap_or_default();
        let dialer = self.connections.get(of).map(|connection| connection.preamble)?;
        let acceptor = Purpose::Link.preamble(Versions::OURS);
        let version = Purpose::Link.negotiate(Versions::OURS, dialer).ok()?;
        let is_meant = to % 4 != 3;
        let mut hello = Hello {
            credential: credential.clone(),
            to: name(if is_meant { "gate" } else { "hub" })?,
            nonce: [to; 32],
            pid: 7,
            program: String::new(),
            signature: Signature([0; 32], [0; 32]),
        };
        let (purpose, dialer, acceptor, nonce) = (Purpose::Link, &dialer, &acceptor, &nonce);
        let opening = Opening { purpose, version, dialer, acceptor, nonce, binding: &[] };
        hello.signature = keys.sign(&Transcript { opening, hello: &hello }.of_dialer());
        let bytes = message(&hello);
        let name = credential.claims.name.clone();
        let opens = is_meant && name.as_str() != LATE;
        let proves = (is_good && drawn.is_some()).then_some((of, name, opens));
        Some(Said { bytes, proves })
    }

    fn frames(&self, kind: u8, method: u8, call: u8, times: u8, body: u8) -> Vec<u8> {
        const KINDS: [Kind; 12] = [
            Kind::Call,
            Kind::Reply,
            Kind::Ping,
            Kind::Notify,
            Kind::Done,
            Kind::Fault,
            Kind::Pong,
            Kind::Pause,
            Kind::Paused,
            Kind::Resume,
            Kind::Switched,
            Kind::Bye,
        ];
        let asked = self.connections.get(self.turn).map(|connection| connection.asked.as_slice());
        let asked = asked.unwrap_or_default();
        let of_theirs = asked.get(usize::from(call / 2) % asked.len().max(1)).filter(|_| call % 2 == 1);
        let head = Head {
            method: method.into(),
            call: of_theirs.copied().unwrap_or(call.into()),
            time_left_ms: u32::from(method) * 100,
            ..Head::new(KINDS[usize::from(kind) % KINDS.len()])
        };
        let mut bytes = Vec::new();
        (0..=times).for_each(|_| head.write(&vec![body; usize::from(body)], &mut bytes));
        bytes
    }

    /// Says something on the connection whose turn it is.
    async fn say(&mut self, said: Said) {
        if self.said.len() < SAID_MAX {
            self.said.push(said.clone());
        }
        let turn = self.turn;
        let Some(connection) = self.connections.get_mut(turn) else { return };
        if let Some((_, name, opens)) = said.proves.filter(|(of, ..)| *of == turn) {
            connection.proved.insert(name.clone());
            connection.may_link.extend(opens.then_some(name));
        }
        let mut rest = said.bytes.as_slice();
        // Where nobody reads, the rest is lost.
        for _ in 0..64 {
            let Some(io) = self.connections.get_mut(turn).and_then(|connection| connection.io.as_mut())
            else {
                return;
            };
            match io.write(rest).now_or_never() {
                Some(Ok(n)) => rest = &rest[n..],
                Some(Err(_)) => return,
                None => {}
            }
            if rest.is_empty() {
                return;
            }
            self.run().await;
        }
    }

    fn link(&self) -> Option<Link> {
        self.connections.get(self.turn)?.end.lock().link.clone()
    }

    fn call(&mut self, times: u8, wait: u8, future: bool) {
        let Some(link) = self.link() else { return };
        let now = Instant::now();
        let deadline = now + Duration::from_millis(u64::from(wait) * 20);
        let options = CallOptions { deadline, client: None };
        for _ in 0..=times % 16 {
            let token = self.calls.len() as u64;
            if future {
                let (call, ends) = (link.call_at("m", &[1; 40], options, now), self.ends.clone());
                tokio::task::spawn_local(async move {
                    let ended = call.await;
                    ends.end(token, ended.as_ref().map(|body| Some(&body[..])));
                });
                self.calls.push(true);
                continue;
            }
            let (method, nested, sink) = (0, wait % 2 == 1, self.ends.clone());
            let forward =
                Forward { method, body: &[2; 40], options, message_of: None, hops: 0, nested, sink, token };
            self.calls.push(link.forward(forward, now).is_ok());
        }
    }

    fn node(&self, what: u8) {
        let Some(link) = self.link() else { return };
        match what % 8 {
            0 => link.pause(),
            1 => link.resume(),
            2 => link.retire(),
            3 => link.reinstate(),
            4 => link.last_call(),
            5 => link.close("enough"),
            _ => drop(link.notify("m", &[3; 100], None)),
        }
    }

    async fn close(&mut self, all: bool) {
        let Some(connection) = self.connections.get_mut(self.turn) else { return };
        if let Some(io) = &mut connection.io {
            let _ = io.shutdown().await;
        }
        if all {
            connection.io = None;
        }
    }

    /// Lets everybody come to rest, without any time passing.
    async fn run(&mut self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
            self.connections.iter_mut().for_each(Connection::hear);
        }
    }

    fn check(&self) {
        for connection in &self.connections {
            if connection.proved.is_empty() {
                assert!(connection.heard.len() <= FIRST_WORDS, "it says something to a stranger");
            }
            let end = connection.end.lock();
            for (call, ends) in &connection.ends {
                let got = end.calls_got.get(call).copied().unwrap_or_default();
                assert!(*ends <= got, "call {call} was made {got} times and has ended {ends} times");
            }
            let Some(link) = &end.link else { continue };
            let name = &link.peer().name;
            assert!(connection.may_link.contains(name), "{name} has a link and has not proved to be it");
            assert!(link.waiting_calls() <= LIMITS.calls_max, "more calls wait than may");
            assert!(link.queued_bytes() <= QUEUED_MAX, "{} bytes wait to be written", link.queued_bytes());
        }
    }

    async fn end(mut self) -> Conversation {
        let mut told = Conversation { calls: self.calls.len(), ..Conversation::default() };
        self.run().await;
        self.connections.iter_mut().for_each(|connection| connection.io = None);
        self.run().await;
        for connection in &self.connections {
            let end = connection.end.lock();
            assert!(end.over, "the connection is gone, and its acceptor is not");
            told.links += usize::from(end.link.is_some());
            told.served += end.calls_got.values().sum::<usize>();
            let waiting = end.link.as_ref().map(Link::waiting_calls).unwrap_or_default();
            assert_eq!(waiting, 0, "calls wait on a link that is over");
        }
        let ends = self.ends.of.lock();
        for (token, taken) in self.calls.iter().enumerate() {
            let ended = ends.get(&(token as u64)).copied().unwrap_or_default();
            assert_eq!(ended, usize::from(*taken), "call {token} has ended {ended} times");
        }
        told.answered = self.ends.good.load(Ordering::Relaxed);
        told
    }
}

impl Said {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, proves: None }
    }

    /// The same with another byte, which proves nothing.
    fn changed(mut self, change: u8) -> Self {
        let at = usize::from(change) * 37 % self.bytes.len().max(1);
        if let Some(byte) = self.bytes.get_mut(at).filter(|_| change != 0) {
            *byte ^= change;
            self.proves = None;
        }
        self
    }
}

/// A message of the handshake, as `ffnet::handshake` writes it.
fn message(message: &impl serde::Serialize) -> Vec<u8> {
    let body = coding(PROOF_BYTES_MAX).serialize(message).unwrap_or_default();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

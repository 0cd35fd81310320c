//! `docs/protocol.md` says what the code does: its messages, codes and limits are compared here.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::collections::BTreeMap;
use std::fmt;

use bincode::Options;
use ffambient::Chance;
use ffkeys::{ClusterKeys, ClusterSecret, NodeKeys};
use ffproto::control::{ControlMessage, Door, LogOrder, NodeStatus, ToMaster, ToNode};
use ffproto::credential::{Claims, PublicKey, Role};
use ffproto::frame::websocket::{Assembly, Opcode, Taken, write, write_close};
use ffproto::frame::{Firefly, json, upgrade};
use ffproto::handshake::{
    Answer, Hello, Methods, Opening, Purpose, Refusal, Reply, Transcript, Verdict as Word,
    takes_encrypted_only,
};
use ffproto::link::{self, Client, Head, Kind};
use ffproto::login::{MARK, Verdict};
use ffproto::protocol::{ClientProtocol, FireflyFrames, WebSocketBinary, WebSocketJson};
use ffproto::question::{self, Question, SessionFilter};
use ffproto::relay::{
    self, AffinityNotice, AffinityWord, Audience, Broadcast, Claim, MethodsChange, MoveAnswer, MoveEntry,
    MoveOrder, Op, REACH, ReachChange, Reachable, SessionState, TO,
};
use ffproto::{
    ClusterName, Code, CommandId, Executed, Fault, Incarnation, NodeName, NodeNumber, SessionId, Version,
    Versions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The page's blocks that begin with "```golden NAME": on each line bytes in hexadecimal, `|`, and what
/// they are.
fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let mut vectors = BTreeMap::new();
    for block in PAGE.split("\n```golden ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("\n```").unwrap();
        let hex =
            lines.lines().map(|line| line.split_once(" | ").unwrap_or_else(|| panic!("{name}: {line}")).0);
        let bytes = hex.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap());
        assert_eq!(vectors.insert(name, bytes.collect()), None, "{name} is there twice");
    }
    vectors
}

/// The page's messages that have not been compared yet.
struct Page(BTreeMap<&'static str, Vec<u8>>);

impl Page {
    /// The bytes of a message, which must be those that the code has written.
    fn bytes(&mut self, name: &str, written: &[u8]) -> Vec<u8> {
        let bytes = self.0.remove(name).unwrap_or_else(|| panic!("the page has no `{name}`"));
        assert_eq!(bytes, written, "{name}");
        bytes
    }

    fn client(&mut self, name: &str, framing: Firefly, command: u32, body: &[u8]) {
        let mut written = Vec::new();
        framing.write(CommandId(command), body, &mut written);
        let bytes = self.bytes(name, &written);
        let frame = framing.read(&bytes, 65_536).unwrap().unwrap();
        assert_eq!((frame.command.0, frame.body, frame.bytes), (command, body, bytes.len()), "{name}");
    }

    /// A message in the encoding of `ffnet`; fuzz/checks/tests/coding.rs shows that it is.
    fn message<M: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(&mut self, name: &str, message: &M) {
        let coding = || bincode::DefaultOptions::new().with_fixint_encoding();
        let body = coding().serialize(message).unwrap();
        let bytes = self.bytes(name, &[&(body.len() as u32).to_le_bytes(), &body[..]].concat());
        assert_eq!(coding().deserialize::<M>(&bytes[4..]).unwrap(), *message, "{name}");
    }

    fn link(&mut self, name: &str, head: Head, body: &[u8]) {
        let mut written = Vec::new();
        head.write(body, &mut written);
        let bytes = self.bytes(name, &written);
        let frame = link::read(&bytes, 16 * 1024 * 1024).unwrap().unwrap();
        assert_eq!((frame.head, frame.body, frame.bytes), (head, body, bytes.len()), "{name}");
    }
}

#[test]
fn every_message_of_the_page_has_the_bytes_that_the_code_writes_and_reads() {
    let mut page = Page(golden());
    clients(&mut page);
    logins(&mut page);
    websockets(&mut page);
    handshakes(&mut page);
    links(&mut page);
    relays(&mut page);
    controls(&mut page);
    assert!(page.0.is_empty(), "nothing writes {:?}", page.0.keys());
}

fn clients(page: &mut Page) {
    let plain = Firefly::default();
    page.client("client-request", plain, 100, b"msgdata");
    page.client("client-reply", plain, 100, b"netHandle_100 completed");
    page.client("client-empty-reply", plain, 7, b"");
    let own = Firefly { head: *b"GAME", proto_version: 7, server_version: 16_909_060 };
    page.client("client-own-constants", own, 300, b"attack");
    // `ffserver` writes the JSON: tests/it/handlers.rs compares the same text with a node's.
    let (code, executed) = (Code::NoRoute.name(), Executed::No.name());
    let text = "no handler and no route for command 4711";
    let json = format!(r#"{{"command":4711,"code":"{code}","message":"{text}","executed":"{executed}"}}"#);
    assert!(PAGE.contains(&format!("```json\n{json}\n```")));
    page.client("client-error", plain, u32::MAX, json.as_bytes());
}

fn logins(page: &mut Page) {
    let coding = || bincode::DefaultOptions::new().with_fixint_encoding();
    let (user, greeting, attributes) = ("ann".into(), b"hi".to_vec(), vec![("rank".into(), "guest".into())]);
    let accept = Verdict::Accept { user, greeting, attributes };
    let refuse = Verdict::Refuse { reason: "banned".into() };
    for (name, verdict) in [("verdict-accept", accept), ("verdict-refuse", refuse)] {
        let bytes = page.bytes(name, &[&MARK[..], &coding().serialize(&verdict).unwrap()].concat());
        assert_eq!(coding().deserialize::<Verdict>(&bytes[4..]).unwrap(), verdict);
    }
}

/// What a client's frame means, as text.
fn meant(bytes: &[u8]) -> String {
    let (mut assembly, mut scratch) = (Assembly::default(), Vec::new());
    let next = assembly.next(bytes, 1000).unwrap().unwrap();
    assert_eq!(next.bytes, bytes.len());
    match assembly.take(&next, bytes, &mut scratch).unwrap() {
        Taken::Message { text: true, payload } => {
            let (command, body) = json::read(std::str::from_utf8(payload).unwrap()).unwrap();
            format!("text {command} {}", String::from_utf8_lossy(&body))
        }
        Taken::Message { text: false, payload } => {
            let frame = Firefly::default().read(payload, 1000).unwrap().unwrap();
            format!("binary {} {}", frame.command, String::from_utf8_lossy(frame.body))
        }
        other => format!("{other:?}"),
    }
}

fn websockets(page: &mut Page) {
    let (plain, hundred) = (Firefly::default(), CommandId(100));
    let mut written = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        page.bytes(name, &bytes);
    };
    let reply = b"netHandle_100 completed";
    let frames = FireflyFrames { framing: plain, error_command: CommandId(u32::MAX) };
    let text = WebSocketJson { framing: plain };
    written("websocket-binary-reply", &|out| WebSocketBinary(frames).reply(hundred.into(), reply, out));
    written("websocket-text-reply", &|out| text.reply(hundred.into(), reply, out));
    written("websocket-text-bytes", &|out| text.push(CommandId(9), &[0, 255], out));
    let message = "no handler and no route for command 4711".to_owned();
    let fault = Fault { code: Code::NoRoute, at: name("net"), executed: Executed::No, message };
    let error = json::error(CommandId(4711), &fault);
    assert!(PAGE.contains(&format!("```json\n{}\n```", String::from_utf8_lossy(&error))));
    written("websocket-text-error", &|out| {
        text.fault(CommandId(4711).into(), &fault, out);
    });
    written("websocket-pong", &|out| write(Opcode::Pong, b"hi", out));
    written("websocket-close", &|out| write_close(1007, "a text that is no UTF-8", out));
    for (name, means) in [
        ("websocket-binary-request", "binary 100 msgdata"),
        ("websocket-text-request", "text 100 msgdata"),
        ("websocket-ping", "Ping([104, 105])"),
    ] {
        let bytes = page.0.remove(name).unwrap_or_else(|| panic!("the page has no `{name}`"));
        assert_eq!(meant(&bytes), means, "{name}");
    }
    let (_, http) = PAGE.split_once("```http\n").unwrap();
    let (request, answer) = http.split_once("\n```").unwrap().0.split_once("\n\n").unwrap();
    let wire = |text: &str| format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
    let granted = upgrade::read(wire(request).as_bytes()).unwrap().unwrap();
    assert_eq!(String::from_utf8(granted.response).unwrap(), wire(answer));
}

/// The keys of a start, the same each time.
fn keys(name: &str, kind: &str, below: &[&str], incarnation: Incarnation, seed: u64) -> NodeKeys {
    let secret = ClusterSecret::new(&Chance::seeded(1)).unwrap();
    let claims = Claims {
        cluster: ClusterName::try_from("demo").unwrap(),
        role: Role::Node,
        name: self::name(name),
        kind: kind.into(),
        below: texts(below),
    };
    let keys = ClusterKeys::new(&secret, 0, None).unwrap();
    keys.start(claims, incarnation, &Chance::seeded(seed)).unwrap()
}

fn handshakes(page: &mut Page) {
    for (name, purpose) in [("preamble-link", Purpose::Link), ("preamble-control", Purpose::Control)] {
        let theirs = page.bytes(name, &purpose.preamble(Versions::OURS));
        assert_eq!(purpose.negotiate(Versions::OURS, theirs.try_into().unwrap()), Ok(Version(4)));
    }
    // What a node of the last version that was not negotiated sends, which is not to change.
    let only = Purpose::Link.preamble_of_encrypted_only(Versions::OURS);
    assert!(takes_encrypted_only(page.bytes("preamble-encrypted-only", &only)[..].try_into().unwrap()));
    let older = page.bytes("preamble-older", b"FFLK\x02\0\x02\0");
    let refused = Purpose::Link.check_first(Versions::OURS, older.try_into().unwrap());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the other side speaks version 2 of the protocol between nodes, this side versions 3 to 4: \
         stop the cluster, and start it with master and appmain of one release"
    );
    let (older, newer) = (Incarnation(1_790_000_000_000), Incarnation(1_790_000_000_001));
    let net = keys("net", "netserver", &["gateserver"], older, 2);
    let gate = keys("gate", "gateserver", &[], newer, 3);
    let (preamble, nonces) = (Purpose::Link.preamble(Versions::OURS), [[1; 32], [2; 32]]);
    let opening = Opening {
        purpose: Purpose::Link,
        version: Version(4),
        dialer: &preamble,
        acceptor: &preamble,
        nonce: &nonces[1],
        binding: &[],
    };
    let mut hello = Hello {
        credential: net.credential().clone(),
        to: name("gate"),
        nonce: nonces[0],
        pid: 4711,
        program: "0.1.0".into(),
        signature: net.sign(b""),
    };
    hello.signature = net.sign(&Transcript { opening, hello: &hello }.of_dialer());
    page.message("hello", &hello);
    let transcript = Transcript { opening, hello: &hello };
    let answer = |verdict: Word| {
        let credential = gate.credential().clone();
        let signature = gate.sign(&transcript.of_acceptor(&credential, &verdict));
        Answer { credential, verdict, signature }
    };
    page.message("answer", &answer(Word::Welcome));
    let methods = texts(&["@netserver", "@", REACH, TO]);
    page.message("reply", &Reply::Methods(Methods(methods)));
    let methods = texts(&["gateHandle1", "gateHandle2", "@game1server", "@netserver", "@", REACH, TO]);
    page.message("methods", &Methods(methods));
    let refused = Refusal::Older { name: name("net"), newer, older };
    page.message("refused-older", &Word::Refused(refused));
}

fn links(page: &mut Page) {
    let session = SessionId(3 << 52 | 0x1_2345_6789_abcd);
    let client = |command, stateless| Some(Client { session, command: CommandId(command), stateless });
    let call = Head { call: 77, time_left_ms: 4987, ..Head::new(Kind::Call) };
    page.link("link-call", call, b"msgdata");
    let forwarded = Head { method: 2, call: 78, time_left_ms: 5000, ..Head::new(Kind::Call) };
    page.link("link-client-call", Head { client: client(1500, false), ..forwarded }, b"attack");
    let stateless = Head { call: 79, client: client(1400, true), ..forwarded };
    page.link("link-client-call-stateless", stateless, b"");
    let far = Head { client: client(1500, false), hops: 1, ..forwarded };
    page.link("link-client-call-far", far, b"attack");
    page.link("link-notify", Head { method: 1, ..Head::new(Kind::Notify) }, b"x");
    let ended = Head { method: 4, client: client(0, false), ..Head::new(Kind::Notify) };
    page.link("link-session-ended", ended, b"");
    page.link("link-reply", Head { call: 78, ..Head::new(Kind::Reply) }, b"done");
    page.link("link-done", Head { call: 78, ..Head::new(Kind::Done) }, b"");

    let fault = Fault {
        code: Code::NoNode,
        at: name("gate"),
        executed: Executed::No,
        message: "no node of kind `game1server` is connected to `gate`".into(),
    };
    let mut body = Vec::new();
    fault.write_body(&mut body);
    let head = Head { method: fault.code.number(), call: 78, ..Head::new(Kind::Fault) };
    page.link("link-fault", head, &body);
    assert_eq!(Fault::read_body(Code::from_number(head.method), &body), Ok(fault));

    page.link("link-ping", Head::new(Kind::Ping), b"");
    page.link("link-pong", Head::new(Kind::Pong), b"");
    page.link("link-bye", Head::new(Kind::Bye), b"the node is stopping");
    page.link("link-pause", Head::new(Kind::Pause), b"");
}

fn relays(page: &mut Page) {
    let coding = || bincode::DefaultOptions::new().with_fixint_encoding();
    let (number, incarnation) = (NodeNumber(3), Incarnation(1_790_000_000_000));
    let since = SessionId::first(number, incarnation);
    let kind = "netserver".to_owned();
    let net = Reachable { number, name: name("net"), kind, net: true, incarnation, since };
    let change = ReachChange { all: true, add: vec![net], remove: vec![NodeNumber(4)] };
    let body = coding().serialize(&change).unwrap();
    page.link("link-reach", Head { method: 5, ..Head::new(Kind::Notify) }, &body);
    assert_eq!(coding().deserialize::<ReachChange>(&body).unwrap(), change);

    let change = MethodsChange { add: vec![(9, "dance".into())], remove: vec![0] };
    let body = coding().serialize(&change).unwrap();
    page.link("link-methods", Head { method: 8, ..Head::new(Kind::Notify) }, &body);
    assert_eq!(coding().deserialize::<MethodsChange>(&body).unwrap(), change);

    let session = SessionId(3 << 52 | 0x1_2345_6789_abcd);
    let notice = AffinityNotice { what: AffinityWord::Chosen, target: "game", node: "game.2" };
    let client = Some(Client { session, command: CommandId(1500), stateless: false });
    page.link("link-stick", Head { method: 7, client, ..Head::new(Kind::Notify) }, &notice.write());
    assert_eq!(AffinityNotice::read(&notice.write()), Some(notice));
    for malformed in
        [&b""[..], b"\x01", b"\x01game", b"\x03game\0a", b"\x01game\0", b"\x02game\0a", b"\x01\0a"]
    {
        assert_eq!(AffinityNotice::read(malformed), None, "{malformed:?}");
    }
    envelopes(page, session);
}

fn envelopes(page: &mut Page, session: SessionId) {
    let coding = || bincode::DefaultOptions::new().with_fixint_encoding();
    let head = |command| {
        let client = Some(Client { session, command: CommandId(command), stateless: false });
        Head { method: 6, client, ..Head::new(Kind::Notify) }
    };
    let (net, game) = (NodeNumber(3), NodeNumber(5));
    let mut push = Vec::new();
    relay::write(net, game, Op::Push, b"hello", &mut push);
    page.link("link-push", head(9), &push);
    let mut body = Vec::new();
    let called = relay::Call { method: "greet", body: b"hello" };
    relay::write(net, game, Op::Call, &called.write(), &mut body);
    page.link(
        "link-far-call",
        Head { method: 6, call: 79, time_left_ms: 5000, ..Head::new(Kind::Call) },
        &body,
    );
    assert_eq!(relay::Call::read(relay::read(&body).unwrap().payload), Some(called));
    let mut broadcast = Vec::new();
    let payload = Broadcast { command: CommandId(9), audience: Audience::Group("red"), body: b"hello" };
    payload.write(&mut broadcast);
    let mut body = Vec::new();
    relay::write(net, game, Op::Broadcast, &broadcast, &mut body);
    page.link("link-broadcast", Head { method: 6, ..Head::new(Kind::Notify) }, &body);
    assert_eq!(Broadcast::read(relay::read(&body).unwrap().payload), Some(payload));
    let stamp = 1_790_000_000_000;
    let claims = vec![Claim { session, stamp, held: false, user: "ann".into() }];
    let (mut body, other) = (Vec::new(), NodeNumber(4));
    relay::write(other, net, Op::Claim, &coding().serialize(&claims).unwrap(), &mut body);
    let head_of_call = Head { method: 6, call: 77, time_left_ms: 4987, ..Head::new(Kind::Call) };
    page.link("link-claim", head_of_call, &body);
    assert_eq!(coding().deserialize::<Vec<Claim>>(relay::read(&body).unwrap().payload).unwrap(), claims);
    moves(page, session);
    let mut fence = Vec::new();
    relay::write(net, game, Op::Fence, b"", &mut fence);
    page.link("link-fence", Head { method: 6, call: 80, time_left_ms: 500, ..Head::new(Kind::Call) }, &fence);
    assert_eq!(relay::read(&fence).unwrap().op, Some(Op::Fence));
    let attributes = [("room".to_owned(), "red".to_owned())].into();
    let address = "127.0.0.1:40000".parse().unwrap();
    let state = SessionState { version: 2, address, user: Some("ann".into()), attributes };
    let mut body = Vec::new();
    relay::write(game, net, Op::State, &coding().serialize(&state).unwrap(), &mut body);
    page.link("link-state", head(0), &body);
    let envelope = relay::read(&body).unwrap();
    assert_eq!((envelope.to, envelope.from, envelope.op), (game, net, Some(Op::State)));
    assert_eq!(coding().deserialize::<SessionState>(envelope.payload).unwrap(), state);
}

fn moves(page: &mut Page, session: SessionId) {
    let coding = || bincode::DefaultOptions::new().with_fixint_encoding();
    let client = Some(Client { session, command: CommandId(0), stateless: false });
    let head = Head { method: 6, call: 78, time_left_ms: 4987, client, ..Head::new(Kind::Call) };
    let (net, old, new) = (NodeNumber(3), NodeNumber(5), NodeNumber(6));
    let order = MoveOrder { node: name("hall.2"), extra: b"key".to_vec() };
    let entry = MoveEntry { from: name("hall.1"), extra: b"key".to_vec(), number: 1 };
    let payloads = [
        ("link-move", net, old, Op::Move, coding().serialize(&order).unwrap()),
        ("link-enter", new, net, Op::Enter, coding().serialize(&entry).unwrap()),
    ];
    for (name, to, from, op, payload) in payloads {
        let mut body = Vec::new();
        relay::write(to, from, op, &payload, &mut body);
        page.link(name, head, &body);
    }
    for (byte, answer) in (0..).zip([MoveAnswer::Begun, MoveAnswer::Gone, MoveAnswer::NoNode]) {
        assert_eq!((answer.number(), MoveAnswer::from_number(byte)), (byte, Some(answer)));
    }
    assert_eq!(MoveAnswer::from_number(5), None);
}

fn controls(page: &mut Page) {
    let (gate, incarnation) = (name("gate"), Incarnation(1_790_000_000_001));
    let registered = ToNode::Registered { number: NodeNumber(3), release: Some("0.2.0".into()) };
    for (name, version) in [("control-registered", Version(4)), ("control-registered-older", Version(3))] {
        let body = registered.to_bytes(version).unwrap();
        let bytes = page.bytes(name, &[&(body.len() as u32).to_le_bytes(), &body[..]].concat());
        assert!(ToNode::of_bytes(&bytes[4..], version).is_some());
    }
    page.message("control-release", &ToMaster::Release { release: "0.2.0".into() });
    let at = "127.0.0.1:10000".parse().unwrap();
    page.message("control-parent-up", &ToNode::ParentUp { name: gate.clone(), at, incarnation });
    page.message("control-parent-gone", &ToNode::ParentGone { name: gate.clone(), incarnation });
    page.message("control-stop", &ToNode::Stop { drain_ms: 10_000 });
    let door = Door("ff-0123456789abcdef0123456789abcdef".into());
    page.message("control-hand-over", &ToNode::HandOver { door });
    let root = Some("[::1]:10000".parse().unwrap());
    page.message("control-ready", &ToMaster::Ready { root, net: None, web: None });
    page.message("control-cannot-start", &ToMaster::CannotStart { reason: "db.url: refused".into() });
    let status = NodeStatus {
        sessions: 2,
        parents: vec![(gate, true)],
        children: vec![name("net")],
        counters: vec![],
    };
    page.message("control-status", &ToMaster::Status(status));
    page.message("control-stopping", &ToMaster::Stopping);
    let (current, previous) = (PublicKey([7; 32]), Some(PublicKey([9; 32])));
    page.message("control-roots", &ToNode::Roots { current, previous });
    page.message("control-log-levels", &ToNode::Log(LogOrder::Levels("debug".into())));
    page.message("control-metrics-asked", &ToNode::Metrics { ask: 7 });
    page.message("control-metrics", &ToMaster::Metrics { ask: 7, text: "ff_sessions 2\n".into() });
    let filter = SessionFilter { user: Some("ann".into()), ..SessionFilter::default() };
    let question = Question::Sessions { filter, after: None, rows_max: 100 };
    page.message("control-ask", &ToNode::Ask { ask: 7, question });
    let question = Question::Run { name: "greet".into(), arguments: b"{}".to_vec(), time_ms: 5000 };
    page.message("control-ask-run", &ToNode::Ask { ask: 7, question });
    page.message(
        "control-answer",
        &ToMaster::Answer { ask: 7, answer: question::Answer::Ran("null".into()) },
    );
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_page_has_every_code_with_its_number() {
    let codes: Vec<Code> = (0..=u16::MAX).map(Code::from_number).collect();
    let known = codes.iter().filter(|code| !matches!(code, Code::Unknown(_)));
    let rows: String = known.map(|code| format!("\n| {} | `{code}` | ", code.number())).collect();
    let listed = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split_once("` | "));
    let codes = listed.map(|(row, _)| row).filter(|row| row.starts_with(|c: char| c.is_ascii_digit()));
    let listed: String = codes.map(|row| format!("\n| {row}` | ")).collect();
    assert_eq!(listed, rows);
}

#[test]
fn the_page_has_the_limits_of_the_code() {
    let page = PAGE.replace('\n', " ");
    for (before, number, after, limit) in [
        (
            "A request has at most ",
            "8,192",
            " bytes (431 above it)",
            ffproto::frame::upgrade::REQUEST_BYTES_MAX,
        ),
        ("`limits.frame_bytes_max` + ", "13", " bytes in all", ffproto::frame::firefly::UNCOUNTED_BYTES),
        ("its length (u32, at most ", "268,435,456", ")", ffproto::handover::MESSAGE_BYTES_MAX),
        ("(at most ", "4,096", " before both sides have proved", ffproto::handshake::PROOF_BYTES_MAX),
        (
            "who they are, ",
            "262,144",
            " for methods), and then bincode",
            ffproto::handshake::MESSAGE_BYTES_MAX,
        ),
        ("(at most ", "1,048,576", "), and bincode", ffproto::control::MESSAGE_BYTES_MAX),
        ("a list of at most ", "512", ", see below", relay::CLAIMS_MAX),
        ("at most ", "1,024", " bytes, longer ones are cut", ffproto::fault::MESSAGE_BYTES_MAX),
        ("a text of 1 to ", "64", " letters", ffproto::id::NAME_BYTES_MAX),
        ("(1 to ", "4095", "), for its session ids", usize::from(NodeNumber::MAX)),
    ] {
        assert_eq!(number.replace(',', "").parse(), Ok(limit));
        assert!(page.contains(&format!("{before}{number}{after}")), "{number}{after}");
    }
}

//! What became of every request of a load: sent = replies + error frames, once each, in order, and what the
//! game nodes noted of it.
//!
//! The firefly framing has no number for a request, so a client tells the answers to one command apart by
//! their order. That is how the ledger books an error frame: on the oldest request without an answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ffclient::ReceiveError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Client, parse_error};
use crate::cluster::Cluster;
use crate::random::Random;

/// A command that net answers itself, with the body.
const ECHO: u32 = 1;
/// Faults of one kind that are told; the others are only counted.
const TOLD_MAX: usize = 5;
/// How long the port of a node may refuse that was killed while nobody else held it, and when it is tried again.
const UNHELD_MAX: Duration = Duration::from_secs(30);
const UNHELD_AGAIN: Duration = Duration::from_millis(50);

/// A command of a load, whose handler takes `NUMBER MS` and answers `NUMBER ok NODE`.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Its number.
    pub command: u32,
    /// Whether net has its handler: then a session's next request waits for its turn there, and its deadline
    /// begins with the turn. A forwarded request goes on at once.
    pub handled_by_net: bool,
}

/// What each connection of a load does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The commands; a connection keeps to one of them.
    pub ways: Vec<Way>,
    /// How many connections.
    pub connections: u32,
    /// Requests of one connection without an answer.
    pub deep: usize,
    /// Requests of one connection; `None`: until the load is stopped.
    pub requests: Option<u32>,
    /// Requests of all connections in a second; `None`: as fast as answers come.
    pub per_s: Option<f64>,
    /// Numbers of a connection count from 1 (what `in_order` expects), or differ over all of them.
    pub unique: bool,
    /// A request's handler sleeps 0 to this many milliseconds.
    pub sleep_ms_max: u64,
}

/// Where connections of a load go.
#[derive(Debug, Clone)]
pub struct Door {
    at: SocketAddr,
    /// How often the node behind it was killed.
    kills: Arc<AtomicU32>,
    /// Whether nobody has held its port since the last time.
    unheld: Arc<AtomicBool>,
    /// Its process is ending, and its port with it.
    ending: Arc<AtomicBool>,
}

impl Door {
    /// To a net node at that address.
    #[must_use]
    pub fn to(at: SocketAddr) -> Self {
        Self { at, kills: Arc::default(), unheld: Arc::default(), ending: Arc::default() }
    }

    /// The node is about to be killed: connections that are open now may end. What they waited for is lost,
    /// and they are opened again.
    pub fn kill(&self) {
        self.unheld.store(false, Ordering::SeqCst);
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// The same while no master has the node's listening sockets: those that its process takes until it is gone end
    /// with it, too, and then new ones are refused until a master has started the node.
    pub fn kill_unheld(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.unheld.store(true, Ordering::SeqCst);
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// The process that [`kill_unheld`](Self::kill_unheld) announced the end of is gone.
    pub fn gone(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
        self.ending.store(false, Ordering::SeqCst);
    }

    async fn connect(&self) -> Result<Client> {
        let until = Instant::now() + UNHELD_MAX;
        loop {
            match Client::connect(self.at).await {
                Err(_) if self.unheld.load(Ordering::SeqCst) && Instant::now() < until => {
                    sleep(UNHELD_AGAIN).await
                }
                result => return result,
            }
        }
    }

    fn kills(&self) -> u32 {
        self.kills.load(Ordering::SeqCst)
    }
}

/// A load that runs.
pub struct Load {
    running: JoinSet<Book>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Connects and begins.
    ///
    /// # Errors
    /// A connection is not taken.
    pub async fn start(cluster: &Cluster, plan: &Plan) -> Result<Self> {
        Self::start_at(&[Door::to(cluster.at("net"))], plan).await
    }

    /// The same with several net nodes, which connections are spread over.
    ///
    /// # Errors
    /// A connection is not taken.
    pub async fn start_at(doors: &[Door], plan: &Plan) -> Result<Self> {
        let stop = watch::Sender::new(false);
        let mut running = JoinSet::new();
        let mut clients = Vec::new();
        // In fours: ways change with every second connection.
        let spread = doors.iter().flat_map(|door| [door; 4]).cycle();
        for (door, _) in spread.zip(0..plan.connections) {
            let kills = door.kills();
            clients.push(Connected { client: Client::connect(door.at).await?, door: door.clone(), kills });
        }
        let begin = Instant::now();
        for (client, number) in clients.into_iter().zip(0..) {
            running.spawn(Book::new(number, plan).keep(client, plan.clone(), begin, stop.subscribe()));
        }
        Ok(Self { running, stop })
    }

    /// Waits until every connection has sent what the plan says, and has its answers.
    ///
    /// # Errors
    /// A connection's task panicked.
    pub async fn finish(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while let Some(book) = self.running.join_next().await {
            ledger.add(book.context("a connection's task")?);
        }
        Ok(ledger)
    }

    /// Ends the load: nothing new is sent, what was sent is waited for.
    ///
    /// # Errors
    /// A connection's task panicked.
    pub async fn stop(self) -> Result<Ledger> {
        self.stop.send_replace(true);
        self.finish().await
    }
}

/// A connection, and how often its node had been killed when it was opened.
struct Connected {
    client: Client,
    door: Door,
    kills: u32,
}

impl Connected {
    /// Connects again when the node was killed since; false when it was not.
    async fn again(&mut self) -> Result<bool> {
        let until = Instant::now() + UNHELD_MAX;
        while self.door.ending.load(Ordering::SeqCst) && Instant::now() < until {
            sleep(UNHELD_AGAIN).await;
        }
        let kills = self.door.kills();
        if kills == self.kills {
            return Ok(false);
        }
        *self = Self { client: self.door.connect().await?, door: self.door.clone(), kills };
        Ok(true)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Reply,
    /// An error frame; whether it promised that the handler did not run.
    Error {
        unexecuted: bool,
    },
    /// Its connection ended because its net node was killed.
    Lost,
    Missing,
}

/// One request.
#[derive(Debug)]
struct Entry {
    number: u64,
    /// When its deadline began, as far as the client can tell.
    turn: SystemTime,
    end: End,
}

/// A request without an answer yet.
struct Waiting {
    number: u64,
    sent: SystemTime,
    since: Instant,
}

/// The requests of one connection.
struct Book {
    connection: u32,
    way: Way,
    unique: bool,
    random: Random,
    sent: u32,
    /// What had been sent each time that its connection ended with its net node: what follows is another session's.
    lost_after: Vec<u32>,
    /// When the last answer came.
    answered: (Instant, SystemTime),
    entries: Vec<Entry>,
    waiting: VecDeque<Waiting>,
    errors: BTreeMap<(String, String), u64>,
    nodes: BTreeSet<String>,
    faults: Vec<String>,
    slowest_reply: Duration,
    slowest_error: Duration,
    slowest_error_of_turn: Duration,
}

impl Book {
    fn new(connection: u32, plan: &Plan) -> Self {
        Self {
            connection,
            // In pairs: neighbours differ in the node that they are given.
            way: plan.ways[connection as usize / 2 % plan.ways.len()],
            unique: plan.unique,
            random: Random::new(connection.into()),
            sent: 0,
            lost_after: Vec::new(),
            answered: (Instant::now(), SystemTime::now()),
            entries: Vec::new(),
            waiting: VecDeque::new(),
            errors: BTreeMap::new(),
            nodes: BTreeSet::new(),
            faults: Vec::new(),
            slowest_reply: Duration::ZERO,
            slowest_error: Duration::ZERO,
            slowest_error_of_turn: Duration::ZERO,
        }
    }

    async fn keep(
        mut self,
        mut connected: Connected,
        plan: Plan,
        begin: Instant,
        stop: watch::Receiver<bool>,
    ) -> Self {
        while let Err(error) = self.requests(&mut connected.client, &plan, begin, &stop).await {
            match connected.again().await {
                Ok(true) => {
                    self.lost_after.push(self.sent);
                    self.end_waiting(End::Lost);
                    continue;
                }
                Ok(false) => {
                    let silent = matches!(error.downcast_ref(), Some(ReceiveError::Timeout(_)));
                    let what = if silent { "MISSING an answer" } else { "CLOSED" };
                    self.fault(format!("{what}: {error:#}"));
                }
                Err(why) => self.fault(format!("NOT TAKEN again: {why:#}")),
            }
            break;
        }
        self.end_waiting(End::Missing);
        self
    }

    fn end_waiting(&mut self, end: End) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.entries.extend(waiting.map(|Waiting { number, sent, .. }| Entry { number, turn: sent, end }));
    }

    async fn requests(
        &mut self,
        client: &mut Client,
        plan: &Plan,
        begin: Instant,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let pace = plan.per_s.map_or(0.0, |per_s| f64::from(plan.connections) / per_s);
        let pace = Duration::from_secs_f64(pace);
        // Connections of one pace are spread over it.
        let share = f64::from(self.connection) / f64::from(plan.connections);
        let mut due = (begin + pace.mul_f64(share)).max(self.answered.0);
        loop {
            let more = !*stop.borrow() && plan.requests.is_none_or(|max| self.sent < max);
            let may_send = more && self.waiting.len() < plan.deep;
            if !may_send && self.waiting.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = sleep_until(due), if may_send => {
                    // Closed loop: what was late because an answer was late is not made up for.
                    due = (due + pace).max(Instant::now());
                    self.sent += 1;
                    let ms = self.random.below(plan.sleep_ms_max + 1);
                    self.send(client, self.sent, ms).await?;
                }
                frame = client.receive(), if !self.waiting.is_empty() => {
                    let (command, body) = frame?;
                    self.receive(command, &body);
                }
            }
        }
        self.nothing_more(client).await
    }

    async fn send(&mut self, client: &mut Client, n: u32, ms: u64) -> Result<()> {
        let number = if self.unique { u64::from(self.connection) << 32 | u64::from(n) } else { n.into() };
        self.waiting.push_back(Waiting { number, sent: SystemTime::now(), since: Instant::now() });
        client.send(self.way.command, format!("{number} {ms}").as_bytes()).await
    }

    fn receive(&mut self, command: u32, body: &[u8]) {
        let text = String::from_utf8_lossy(body).into_owned();
        let Some(Waiting { number, sent, since }) = self.waiting.pop_front() else {
            return self.fault(format!("DOUBLED: {command} {text}"));
        };
        let took = since.elapsed();
        let (mut turn, mut of_turn) = (sent, took);
        if self.way.handled_by_net {
            (turn, of_turn) = (sent.max(self.answered.1), took.min(self.answered.0.elapsed()));
        }
        self.answered = (Instant::now(), SystemTime::now());
        let end = if command == u32::MAX {
            self.slowest_error = self.slowest_error.max(took);
            self.slowest_error_of_turn = self.slowest_error_of_turn.max(of_turn);
            self.error(body)
        } else {
            self.slowest_reply = self.slowest_reply.max(took);
            self.reply(command, number, &text)
        };
        self.entries.push(Entry { number, turn, end });
    }

    fn error(&mut self, body: &[u8]) -> End {
        let unexecuted = match parse_error(body) {
            Ok(error) => {
                let unexecuted = error.executed == "no";
                if error.command != u64::from(self.way.command) {
                    self.fault(format!("an error of another command: {error:?}"));
                }
                *self.errors.entry((error.code, error.executed)).or_default() += 1;
                unexecuted
            }
            Err(why) => {
                self.fault(format!("no error frame: {why:#}"));
                false
            }
        };
        End::Error { unexecuted }
    }

    fn reply(&mut self, command: u32, number: u64, text: &str) -> End {
        match text.strip_prefix(&format!("{number} ok ")) {
            Some(node) if command == self.way.command => {
                if !self.nodes.contains(node) {
                    self.nodes.insert(node.to_owned());
                }
            }
            _ => self.fault(format!("OUT OF ORDER: {number} was answered by {command} {text}")),
        }
        End::Reply
    }

    /// What came twice would come before the answer to a last request.
    async fn nothing_more(&mut self, client: &mut Client) -> Result<()> {
        client.send(ECHO, b"the end").await?;
        loop {
            match client.receive().await? {
                (ECHO, body) if body == "the end" => return Ok(()),
                (command, body) => {
                    self.fault(format!("DOUBLED: {command} {}", String::from_utf8_lossy(&body)));
                }
            }
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(format!("connection {}: {what}", self.connection));
    }
}

/// All connections together.
#[derive(Default)]
pub struct Ledger {
    connections: usize,
    entries: Vec<Entry>,
    faults: Vec<String>,
    /// Connections that ended with their net node.
    pub lost: usize,
    /// What each connection had sent when it ended so.
    lost_after: HashMap<u64, Vec<u32>>,
    /// Error frames by code and `executed`.
    pub errors: BTreeMap<(String, String), u64>,
    /// The nodes that answered each connection.
    pub nodes: Vec<BTreeSet<String>>,
    /// The longest wait for a reply.
    pub slowest_reply: Duration,
    /// The longest wait for an error frame.
    pub slowest_error: Duration,
    /// The same without the wait for other requests of the connection, see [`Way::handled_by_net`].
    pub slowest_error_of_turn: Duration,
}

impl Ledger {
    fn add(&mut self, book: Book) {
        self.connections += 1;
        self.lost += book.lost_after.len();
        self.lost_after.insert(book.connection.into(), book.lost_after);
        self.entries.extend(book.entries);
        self.faults.extend(book.faults);
        for (kind, n) in book.errors {
            *self.errors.entry(kind).or_default() += n;
        }
        self.nodes.push(book.nodes);
        self.slowest_reply = self.slowest_reply.max(book.slowest_reply);
        self.slowest_error = self.slowest_error.max(book.slowest_error);
        self.slowest_error_of_turn = self.slowest_error_of_turn.max(book.slowest_error_of_turn);
    }

    /// Requests that ended well.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.count(|end| end == End::Reply)
    }

    /// How many connections each set of nodes answered.
    fn by_nodes(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for nodes in &self.nodes {
            let names: Vec<_> = nodes.iter().map(String::as_str).collect();
            *all.entry(names.join(" and ")).or_default() += 1;
        }
        all
    }

    fn count(&self, is: impl Fn(End) -> bool) -> usize {
        self.entries.iter().filter(|entry| is(entry.end)).count()
    }

    /// What must not be: an answer that is missing, doubled or out of order, a connection that was closed.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        few(self.faults.clone())
    }

    /// What must not be in what the game nodes noted in `folder`: a request that ran although its error said
    /// that it did not, or twice, or that was answered well and did not run, or that began when its caller
    /// had waited for longer than `deadline` since its turn, or before an earlier one of its connection.
    ///
    /// # Errors
    /// The notes cannot be read.
    pub fn faults_of_notes(&self, folder: &Path, deadline: Duration) -> Result<Vec<String>> {
        let notes = Notes::read(folder, &self.lost_after)?;
        let mut faults = notes.disorder;
        for Entry { number, turn, end } in &self.entries {
            let began = notes.began.get(number).map_or(&[][..], Vec::as_slice);
            let request = format!("request {} of connection {}", number & 0xffff_ffff, number >> 32);
            match (end, began.len()) {
                (End::Error { unexecuted: true }, 1..) => {
                    faults.push(format!("{request} ran, its error said that it did not"));
                }
                (End::Reply, 0) => faults.push(format!("{request} was answered well and did not run")),
                (_, 2..) => faults.push(format!("{request} ran {} times", began.len())),
                _ => {}
            }
            for at in began {
                let waited = at.duration_since(*turn).unwrap_or_default();
                if waited > deadline {
                    faults.push(format!("{request} began {waited:?} after its turn came"));
                }
            }
        }
        Ok(few(faults))
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.count(|end| matches!(end, End::Error { .. }));
        let missing = self.count(|end| end == End::Missing);
        write!(
            f,
            "{} connections sent {} = {} replies + {errors} errors + {missing} missing",
            self.connections,
            self.entries.len(),
            self.replies()
        )?;
        match self.count(|end| end == End::Lost) {
            0 if self.lost == 0 => writeln!(f)?,
            requests => writeln!(f, " + {requests} lost with {} connections to killed nodes", self.lost)?,
        }
        for ((code, executed), n) in &self.errors {
            writeln!(f, "  {n:>8} × {code}, executed: {executed}")?;
        }
        let count = |what: &str| self.faults.iter().filter(|fault| fault.contains(what)).count();
        writeln!(
            f,
            "doubled {}, out of order {}, connections closed {}",
            count("DOUBLED"),
            count("OUT OF ORDER"),
            count("CLOSED")
        )?;
        for (nodes, n) in self.by_nodes() {
            writeln!(f, "{n} connections were answered by {nodes}")?;
        }
        write!(
            f,
            "slowest reply {:?}, slowest error {:?} ({:?} since its turn on net)",
            self.slowest_reply, self.slowest_error, self.slowest_error_of_turn
        )
    }
}

/// What the game nodes noted.
struct Notes {
    /// When each number began.
    began: HashMap<u64, Vec<SystemTime>>,
    /// Numbers of one session that began in another order than they were sent.
    disorder: Vec<String>,
}

impl Notes {
    /// `lost_after` has for each connection what its sessions but the last had sent: what a session has left behind may
    /// begin beside what the client sends over its next connection.
    fn read(folder: &Path, lost_after: &HashMap<u64, Vec<u32>>) -> Result<Self> {
        let mut all = Vec::new();
        for file in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = file?.path();
            let node = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for line in std::fs::read_to_string(&path)?.lines() {
                let (number, micros) = line.split_once(' ').with_context(|| format!("a note {line:?}"))?;
                all.push((micros.parse::<u64>()?, number.parse::<u64>()?, node.clone()));
            }
        }
        all.sort();
        let mut notes = Self { began: HashMap::new(), disorder: Vec::new() };
        let mut last: HashMap<(u64, usize), (u64, String)> = HashMap::new();
        for (micros, number, node) in all {
            let (connection, n) = (number >> 32, number & 0xffff_ffff);
            notes.began.entry(number).or_default().push(UNIX_EPOCH + Duration::from_micros(micros));
            let lost_after = lost_after.get(&connection).map_or(&[][..], Vec::as_slice);
            let session = lost_after.partition_point(|sent| u64::from(*sent) < n);
            if let Some((before, there)) = last.insert((connection, session), (n, node.clone()))
                && n < before
            {
                notes.disorder.push(format!(
                    "request {n} of connection {connection} began at {node} after {before} at {there}"
                ));
            }
        }
        Ok(notes)
    }
}

/// The first of them, and how many there are.
fn few(mut faults: Vec<String>) -> Vec<String> {
    let more = faults.len().saturating_sub(TOLD_MAX);
    faults.truncate(TOLD_MAX);
    if more > 0 {
        faults.push(format!("… and {more} more"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disorder_is_found_within_a_session_and_not_between_a_killed_one_and_the_next() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let note = |n: u64, at: u64| format!("{} {at}\n", 7 << 32 | n);
        std::fs::write(folder.path().join("game.1"), [note(1, 10), note(3, 40)].concat())?;
        std::fs::write(folder.path().join("game.2"), [note(2, 50), note(4, 20), note(5, 30)].concat())?;
        // 1 4 5 3 2 began in this order.
        let disorder = |lost_after: &[u32]| -> Result<Vec<String>> {
            let lost_after = HashMap::from([(7, lost_after.to_vec())]);
            Ok(Notes::read(folder.path(), &lost_after)?.disorder)
        };
        let late = |n, there, before, at| {
            format!("request {n} of connection 7 began at {there} after {before} at {at}")
        };
        assert_eq!(disorder(&[])?, [late(3, "game.1", 5, "game.2"), late(2, "game.2", 3, "game.1")]);
        assert_eq!(disorder(&[3])?, [late(2, "game.2", 3, "game.1")]);
        assert_eq!(disorder(&[2, 3])?, [""; 0]);
        Ok(())
    }
}

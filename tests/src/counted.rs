//! A load whose requests are counted by the nodes that handle them: what was lost, run twice or forgotten in
//! a replacement shows as a gap or as a number that comes again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, parse_error};
use crate::cluster::Cluster;
use crate::http::KeptAlive;

/// The commands of `tests/apps/src/trial/world.rs`: forwarded to a game node, and to one through handlers.
const TO_GAME: [u32; 2] = [1005, 15];
/// And those that gate and net handle themselves.
const EVERYWHERE: [u32; 4] = [1005, 15, 16, 17];
/// Faults that are told; the others are only counted.
const TOLD_MAX: usize = 8;
/// Clients that connect at a time.
const CONNECT_AT_ONCE: usize = 64;
/// A client is told to stop between two requests, however long it pauses.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// How large the load is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Clients in closed loop.
    pub busy: u32,
    /// What they wait after an answer.
    pub pause: Duration,
    /// Clients that ask from time to time.
    pub idle: u32,
    /// How often, each of them.
    pub idle_pause: Duration,
    /// Whether net and gate count, too: [`Fixture::with_worlds`](crate::fixtures::Fixture::with_worlds).
    pub worlds: bool,
    /// HTTP clients in closed loop at each of the fixture's `@web` and `@gateweb`.
    pub http: u32,
}

impl Plan {
    /// Nobody but clients in closed loop, and every node counts.
    #[must_use]
    pub fn busy(clients: u32, pause_ms: u64) -> Self {
        let (pause, idle_pause) = (Duration::from_millis(pause_ms), Duration::ZERO);
        Self { busy: clients, pause, idle: 0, idle_pause, worlds: true, http: 0 }
    }
}

/// What clients are told: which round it is, or that it is over.
type Round = Option<usize>;

/// A load that runs.
pub struct Load {
    running: JoinSet<Seen>,
    round: watch::Sender<Round>,
}

impl Load {
    /// Connects and begins round 0.
    ///
    /// # Errors
    /// A connection is not taken.
    pub async fn start(cluster: &Cluster, plan: &Plan) -> Result<Self> {
        let round = watch::Sender::new(Some(0));
        let mut running = JoinSet::new();
        let numbers: Vec<u32> = (0..plan.busy + plan.idle).collect();
        for some in numbers.chunks(CONNECT_AT_ONCE) {
            let mut connecting = JoinSet::new();
            for &number in some {
                let at = cluster.at("net");
                connecting.spawn(async move { (number, Client::connect(at).await) });
            }
            while let Some(connected) = connecting.join_next().await {
                let (number, client) = connected?;
                let pause = if number < plan.busy { plan.pause } else { plan.idle_pause };
                let player = Player::new(number, number < plan.busy, pause);
                let ways = if plan.worlds { &EVERYWHERE[..] } else { &TO_GAME };
                // In pairs: neighbours differ in the game node that they are given.
                let command = ways[number as usize / 2 % ways.len()];
                running.spawn(player.play(client?, command, round.subscribe()));
            }
        }
        for number in 0..plan.http {
            for port in ["web", "gateweb"] {
                let connection = KeptAlive::connect(cluster.at(port)).await?;
                let player = Player::new(number, true, plan.pause).named(format!("{port} {number}"));
                running.spawn(player.browse(connection, round.subscribe()));
            }
        }
        Ok(Self { running, round })
    }

    /// What is seen from now on belongs to the next round.
    pub fn next_round(&self) {
        self.round.send_modify(|round| *round = round.map(|n| n + 1));
    }

    /// Ends the load: nothing new is asked, what was asked is waited for.
    ///
    /// # Errors
    /// A client's task panicked, or does not end.
    pub async fn stop(mut self) -> Result<Account> {
        self.round.send_replace(None);
        let mut account = Account::default();
        // Thousands of clients that leave at once are work for the nodes, which those would wait for who still
        // have an answer to come: all leave together when all have ended.
        let mut open = Vec::new();
        let all = async {
            while let Some(seen) = self.running.join_next().await {
                let mut seen = seen.context("a client's task")?;
                open.extend(seen.connection.take());
                account.add(seen);
            }
            anyhow::Ok(())
        };
        timeout(STOP_WAIT, all).await.context("clients do not end")??;
        account.judge_counters();
        Ok(account)
    }
}

/// One client.
struct Player {
    number: u32,
    busy: bool,
    pause: Duration,
    seen: Seen,
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    name: String,
    busy: bool,
    answers: u64,
    /// Every count of all requests that a node has told.
    counts: Vec<u64>,
    node: Option<String>,
    own: u64,
    /// The longest wait of each round.
    longest: Vec<Duration>,
    closed: bool,
    faults: Vec<String>,
    /// Its connection, when it has ended on its own.
    connection: Option<Client>,
}

impl Player {
    fn new(number: u32, busy: bool, pause: Duration) -> Self {
        let name = format!("client {number}");
        Self { number, busy, pause, seen: Seen { name, busy, ..Seen::default() } }
    }

    fn named(mut self, name: String) -> Self {
        self.seen.name = name;
        self
    }

    async fn play(mut self, mut client: Client, command: u32, mut round: watch::Receiver<Round>) -> Seen {
        while let Some(n) = self.go_on(&mut round).await {
            let asked = Instant::now();
            match ask(&mut client, command, self.number).await {
                Ok(answer) => {
                    self.seen.wait(n, asked);
                    if let Err(fault) = self.seen.check(&answer) {
                        self.fault(&fault.context(format!("command {command} in round {n}")));
                    }
                }
                Err(Unanswered::Error(why)) => {
                    self.seen.wait(n, asked);
                    self.fault(&why);
                }
                Err(Unanswered::Closed(why)) => {
                    self.seen.closed = true;
                    self.fault(&why);
                    break;
                }
            }
        }
        self.seen.connection = Some(client);
        self.seen
    }

    async fn browse(mut self, mut connection: KeptAlive, mut round: watch::Receiver<Round>) -> Seen {
        while let Some(n) = self.go_on(&mut round).await {
            let asked = Instant::now();
            match connection.get("/healthz").await {
                // 503 says that the node is not ready.
                Ok(answer) if answer.status == 200 => {
                    self.seen.wait(n, asked);
                    self.seen.answers += 1;
                }
                Ok(answer) => self.fault(&anyhow::anyhow!("HTTP: {answer:?}")),
                Err(why) => {
                    self.seen.closed = true;
                    self.fault(&why.context("HTTP"));
                    break;
                }
            }
        }
        self.seen
    }

    /// Pauses; the round, unless it is over.
    async fn go_on(&self, round: &mut watch::Receiver<Round>) -> Round {
        let begin = Instant::now();
        // Idle clients do not ask all at once.
        let pause = if self.busy || self.seen.answers > 0 {
            self.pause
        } else {
            self.pause.mul_f64(f64::from(self.number % 100) / 100.0)
        };
        loop {
            let now = (*round.borrow_and_update())?;
            let left = pause.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Some(now);
            }
            tokio::select! {
                () = sleep(left) => return Some(now),
                changed = round.changed() => changed.ok()?,
            }
        }
    }

    fn fault(&mut self, what: &anyhow::Error) {
        self.seen.faults.push(format!("{}: {what:#}", self.seen.name));
    }
}

/// Why there is no answer.
enum Unanswered {
    /// An error frame: the connection goes on.
    Error(anyhow::Error),
    /// The end of the connection, or silence.
    Closed(anyhow::Error),
}

async fn ask(client: &mut Client, command: u32, number: u32) -> Result<String, Unanswered> {
    let exchange = async {
        client.send(command, number.to_string().as_bytes()).await?;
        client.receive().await
    };
    let (got, body) = exchange.await.map_err(|why| Unanswered::Closed(why.context("CLOSED")))?;
    if got == command {
        return Ok(String::from_utf8_lossy(&body).into_owned());
    }
    let what = parse_error(&body).map_or_else(|e| format!("{got}: {e:#}"), |error| format!("{error:?}"));
    Err(Unanswered::Error(anyhow::anyhow!("ERROR for {command}: {what}")))
}

impl Seen {
    fn wait(&mut self, round: usize, asked: Instant) {
        if self.longest.len() <= round {
            self.longest.resize(round + 1, Duration::ZERO);
        }
        self.longest[round] = self.longest[round].max(asked.elapsed());
    }

    /// `ALL OWN NODE`: the client's own count goes on by one, that of the node goes up.
    fn check(&mut self, answer: &str) -> Result<()> {
        let mut words = answer.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).context("ALL OWN NODE");
        let (all, own) = (number()?, number()?);
        let node = words.next().context("ALL OWN NODE")?;
        let (before, last) = (self.own, self.counts.last().copied().unwrap_or(0));
        self.answers += 1;
        self.own = own;
        self.counts.push(all);
        if let Some(other) = self.node.replace(node.to_owned()).filter(|served| served != node) {
            bail!("OTHER NODE: {answer} after {before} of {other}");
        }
        ensure!(own == before + 1, "GAP: its own count at {node} is {own} after {before}");
        ensure!(all > last, "BACK: the count of {node} is {all} after {last}");
        Ok(())
    }
}

/// All clients together.
#[derive(Debug, Default)]
pub struct Account {
    /// Answers that were as they should be, or at least came.
    pub answers: u64,
    /// Connections that ended.
    pub closed: u64,
    faults: Vec<String>,
    counts: BTreeMap<String, Vec<u64>>,
    /// The longest wait of each busy client in each round, and who it is.
    stalls: Vec<(usize, Duration, String)>,
    idle_stalls: Vec<Duration>,
}

impl Account {
    fn add(&mut self, seen: Seen) {
        self.answers += seen.answers;
        self.closed += u64::from(seen.closed);
        self.faults.extend(seen.faults);
        if let Some(node) = seen.node {
            self.counts.entry(node).or_default().extend(seen.counts);
        }
        if seen.busy {
            let rounds = seen.longest.into_iter().enumerate();
            self.stalls.extend(rounds.map(|(round, longest)| (round, longest, seen.name.clone())));
        } else {
            self.idle_stalls.extend(seen.longest);
        }
    }

    /// Together the clients have been told every count of a node exactly once.
    fn judge_counters(&mut self) {
        for (node, counts) in &mut self.counts {
            counts.sort_unstable();
            let wrong = counts.iter().zip(1..).find(|(is, wanted)| *is != wanted);
            if let Some((is, wanted)) = wrong {
                self.faults.push(format!("COUNTER of {node}: {is} where {wanted} should be"));
            }
        }
    }

    /// Everything that was not as it should be: how much, and the first of it.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut told: Vec<String> = self.faults.iter().take(TOLD_MAX).cloned().collect();
        if self.faults.len() > TOLD_MAX {
            told.push(format!("… and {} more", self.faults.len() - TOLD_MAX));
        }
        told
    }

    /// The longest waits of busy clients, one for each and each round from `first` on: their 99th percentile
    /// and the longest.
    #[must_use]
    pub fn stall(&self, first: usize) -> (Duration, Duration) {
        let of_rounds = self.stalls.iter().filter(|(round, ..)| *round >= first);
        let mut all: Vec<Duration> = of_rounds.map(|(_, longest, _)| *longest).collect();
        all.sort_unstable();
        let p99 = all.get(all.len() * 99 / 100).copied().unwrap_or_default();
        (p99, all.last().copied().unwrap_or_default())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, counted) = (self.counts.len(), self.counts.values().map(Vec::len).sum::<usize>());
        writeln!(
            f,
            "{} answers, {counted} of them counted by {nodes} nodes; {} connections closed, {} faults",
            self.answers,
            self.closed,
            self.faults.len()
        )?;
        let rounds = self.stalls.iter().map(|(round, ..)| *round).max().unwrap_or_default();
        for round in 0..=rounds {
            let mut all: Vec<(Duration, &str)> = self
                .stalls
                .iter()
                .filter(|(of, ..)| *of == round)
                .map(|(_, longest, who)| (*longest, who.as_str()))
                .collect();
            all.sort_unstable();
            let at = |percent: usize| {
                all.get(all.len() * percent / 100).map_or(Duration::ZERO, |(longest, _)| *longest)
            };
            let (longest, who) = all.last().copied().unwrap_or_default();
            writeln!(
                f,
                "  round {round}: longest wait of a client: median {:?}, p99 {:?}, at most {longest:?} ({who})",
                at(50),
                at(99)
            )?;
        }
        let idle = self.idle_stalls.iter().max();
        write!(f, "longest wait of an idle client {:?}", idle.copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(of: &[&[&str]]) -> Vec<String> {
        let mut account = Account::default();
        for answers in of {
            let mut seen = Seen { busy: true, ..Seen::default() };
            for answer in *answers {
                if let Err(fault) = seen.check(answer) {
                    seen.faults.push(fault.to_string());
                }
            }
            account.add(seen);
        }
        account.judge_counters();
        account.faults()
    }

    #[test]
    fn a_gap_a_repetition_and_a_change_of_node_are_found() {
        assert_eq!(account(&[&["1 1 a", "3 2 a"], &["2 1 a"], &["1 1 b"]]), Vec::<String>::new());
        assert_eq!(account(&[&["1 1 a", "3 2 a"]]), ["COUNTER of a: 3 where 2 should be"]);
        assert_eq!(account(&[&["1 1 a"], &["1 1 a"]]), ["COUNTER of a: 1 where 2 should be"]);
        assert_eq!(account(&[&["1 1 a", "2 3 a"]]), ["GAP: its own count at a is 3 after 1"]);
        assert_eq!(account(&[&["1 1 a", "2 2 b"]])[0], "OTHER NODE: 2 2 b after 1 of a");
    }
}

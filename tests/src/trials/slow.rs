//! Clients that stop reading while pushes flow: they are disconnected at their bound, and nobody else
//! notices.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Say, Verdict, with_log};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::logs::said;
use crate::process::Memory;
use crate::wait;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections; all of them are pushed to
    #[arg(long, default_value_t = 500)]
    pub connections: u32,
    /// How many of them stop reading
    #[arg(long, default_value_t = 50)]
    pub slow: u32,
    /// Every how many milliseconds each client is pushed to
    #[arg(long, default_value_t = 50)]
    pub push_every_ms: u64,
    /// Bytes of a push
    #[arg(long, default_value_t = 4096)]
    pub push_bytes: usize,
    /// Every how many milliseconds each client asks for something
    #[arg(long, default_value_t = 500)]
    pub ask_every_ms: u64,
    /// How often they stop and go on again while it is measured how fast the others are answered
    #[arg(long, default_value_t = 6)]
    pub rounds: u32,
    /// How long a window is whose p99 counts: one with and one without slow clients in each round
    #[arg(long, default_value_t = 5)]
    pub window_s: u32,
    /// For how long they may not read in the end, until the last is disconnected
    #[arg(long, default_value_t = 60)]
    pub slow_s: u32,
    /// limits.outbox_bytes_max
    #[arg(long, default_value_t = 1 << 20)]
    pub outbox_bytes_max: u64,
    /// Do not judge how fast the others are answered: on a busy machine it says nothing
    #[arg(long)]
    pub any_time: bool,
}

/// What a client may read beside its answer at most before it is told that there is none.
const ECHO: u32 = 1;
const PUSH: u32 = 9;
const SUBSCRIBE: u32 = 13;
/// The p99 of the others while some are slow, compared to that while nobody is: medians of windows that take
/// turns, because windows of one kind alone differ by more than this from one minute to the next.
const WORSE_MAX: f64 = 1.2;
/// What the slow ones have missed is read by then.
const SETTLE: Duration = Duration::from_secs(2);
/// What an allocator may keep of what it once had.
const KEPT_BYTES_MAX: u64 = 8 << 20;

/// What a reading client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Everybody reads.
    Reading,
    /// The slow ones do not.
    Slow,
    /// Enough.
    Over,
}

/// Where reading clients write down how long they waited: the times of the window that is open.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<Vec<Duration>>>);

impl Times {
    fn add(&self, took: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }

    /// Ends the window.
    fn p99(&self) -> Option<Duration> {
        let mut times = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied()
    }
}

/// Pushes to all clients, of which some stop reading.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let limits = format!(r#""outbox_bytes_max": {}"#, size.outbox_bytes_max);
    let cluster = Cluster::processes(Fixture::solo(&limits)?).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    ensure!(size.slow < size.connections, "--slow is to be less than --connections");
    let (phase, times) = (watch::Sender::new(Phase::Reading), Times::default());
    let subscription = format!("{} {}", size.push_every_ms, size.push_bytes);
    let mut clients = JoinSet::new();
    for n in 0..size.connections {
        let mut client = Client::connect_narrow(cluster.at("net")).await?;
        let subscribed = client.call(SUBSCRIBE, subscription.as_bytes()).await;
        subscribed.with_context(|| format!("client {n}"))?;
        let every = Duration::from_millis(size.ask_every_ms);
        if n < size.slow {
            let (at, subscription) = (cluster.at("net"), subscription.clone());
            clients.spawn(stops_and_goes_on(client, at, subscription, phase.subscribe()));
        } else {
            clients.spawn(reads(client, n, every, times.clone(), phase.subscribe()));
        }
    }
    say(&format!("{} clients are pushed to, {} of them stop and go on", size.connections, size.slow));
    let mut seen = Seen::default();
    for round in 1..=size.rounds {
        seen.calm.push(window(size, &times).await?);
        seen.before.get_or_insert(cluster.memory("net").await?.now);
        phase.send_replace(Phase::Slow);
        seen.slow.push(window(size, &times).await?);
        phase.send_replace(Phase::Reading);
        say(&format!("{round:>3}: p99 {:?}, with slow clients {:?}", seen.calm.last(), seen.slow.last()));
        sleep(SETTLE).await;
    }
    let cut_before = cut(cluster);
    phase.send_replace(Phase::Slow);
    say(&format!("{} clients stop reading for good", size.slow));
    let gone = until_cut(cluster, size).await;
    let memory = cluster.memory("net").await?;
    phase.send_replace(Phase::Over);
    let mut verdict = Verdict::default();
    verdict.add(gone.err().map(|e| format!("{e:#}")));
    while let Some(client) = clients.join_next().await {
        verdict.add(client?.err().map(|e| format!("{e:#}")));
    }
    // Those above the log's limit are said as a number, once its window has ended.
    let all_said = wait::until("every slow client is said to be cut", async || {
        let cut = cut(cluster).saturating_sub(cut_before);
        if cut >= size.slow as usize { Ok(()) } else { Err(cut) }
    });
    verdict.add(all_said.await.err().map(|error| format!("{error:#}")));
    let cut = cut(cluster) - cut_before;
    verdict.hold(cut == size.slow as usize, format_args!("{cut} clients were disconnected as slow"));
    judge_memory(size, seen.before.unwrap_or(memory.now), memory, &mut verdict, say);
    judge_time(size, &seen, &mut verdict, say);
    verdict.end(say)
}

/// How many clients were disconnected because they did not read.
fn cut(cluster: &Cluster) -> usize {
    said(&cluster.log(), "client logged out: closed by the server: slow reader: limits.outbox_bytes_max")
        .map_or(0, |cut| cut as usize)
}

async fn until_cut(cluster: &Cluster, size: &Size) -> Result<()> {
    let others = size.connections - size.slow;
    let patience = Instant::now() + Duration::from_secs(size.slow_s.into());
    while cluster.node("net").await?["sessions"] != others && Instant::now() < patience {
        sleep(Duration::from_millis(100)).await;
    }
    cluster.until("net", "only those who read are left", |node| node["sessions"] == others).await?;
    Ok(())
}

fn judge_memory(size: &Size, was: u64, is: Memory, verdict: &mut Verdict, say: Say<'_>) {
    let bound = u64::from(size.slow) * size.outbox_bytes_max;
    say(&format!(
        "memory of net: {} before, {} at most, {} after; the bound of {} slow clients is {}",
        mib(was),
        mib(is.peak),
        mib(is.now),
        size.slow,
        mib(bound)
    ));
    let most = was + bound + KEPT_BYTES_MAX;
    verdict.hold(is.peak <= most, format_args!("memory rose to {}, above {}", mib(is.peak), mib(most)));
    let flat = was + was / 10 + KEPT_BYTES_MAX;
    verdict.hold(is.now <= flat, format_args!("memory stays at {}, above {}", mib(is.now), mib(flat)));
}

fn judge_time(size: &Size, seen: &Seen, verdict: &mut Verdict, say: Say<'_>) {
    let (was, is) = (median(&seen.calm), median(&seen.slow));
    let ratio = is.as_secs_f64() / was.as_secs_f64();
    say(&format!(
        "p99 of the others, median of the windows: {was:?}, with slow clients {is:?}: {ratio:.2} times"
    ));
    verdict
        .hold(size.any_time || ratio <= WORSE_MAX, format_args!("p99 is {ratio:.2} times what it is else"));
}

/// What was seen: the p99 of each window, and the memory before anybody was slow.
#[derive(Default)]
struct Seen {
    calm: Vec<Duration>,
    slow: Vec<Duration>,
    before: Option<u64>,
}

fn median(of: &[Duration]) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The p99 of a window that begins now.
async fn window(size: &Size, times: &Times) -> Result<Duration> {
    let _ = times.p99(); // Ends what was before.
    sleep(Duration::from_secs(size.window_s.into())).await;
    times.p99().context("nobody was answered")
}

/// Asks for something from time to time, and reads everything; no push may be missing.
async fn reads(
    mut client: Client,
    n: u32,
    every: Duration,
    times: Times,
    phase: watch::Receiver<Phase>,
) -> Result<()> {
    let what = || format!("client {n}, who reads");
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    let mut asked = None;
    while *phase.borrow() != Phase::Over || asked.is_some() {
        tokio::select! {
            _ = ticks.tick(), if asked.is_none() => {
                asked = Some(Instant::now());
                client.send(ECHO, b"asks").await.with_context(what)?;
            }
            frame = client.receive() => match frame.with_context(what)? {
                (ECHO, _) => times.add(asked.take().with_context(what)?.elapsed()),
                (PUSH, body) => {
                    let number = u64::from_be_bytes(*body.first_chunk().with_context(what)?);
                    ensure!(number == next, "{}: push {number} instead of {next}", what());
                    next += 1;
                }
                (other, body) => anyhow::bail!("{}: {other} {body:?}", what()),
            },
        }
    }
    Ok(())
}

/// Reads while everybody does, and does not while it is to be slow; connects again when it was disconnected.
async fn stops_and_goes_on(
    mut client: Client,
    at: SocketAddr,
    subscription: String,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Over => return Ok(()),
            Phase::Slow => {
                phase.changed().await?;
                continue;
            }
            Phase::Reading => {}
        }
        tokio::select! {
            changed = phase.changed() => changed?,
            pushed = client.receive() => if pushed.is_err() {
                client = Client::connect_narrow(at).await?;
                client.send(SUBSCRIBE, subscription.as_bytes()).await?;
            },
        }
    }
}

/// For people.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

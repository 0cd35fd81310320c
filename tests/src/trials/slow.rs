//! Clients that stop reading while pushes flow: they are disconnected at their bound, and nobody else
//! notices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Say, Verdict, with_log};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::fixtures::Fixture;

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
    /// For how long the slow clients do not read
    #[arg(long, default_value_t = 60)]
    pub slow_s: u32,
    /// How long a window is whose p99 counts; as many before as there are while clients are slow
    #[arg(long, default_value_t = 5)]
    pub window_s: u32,
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
/// The p99 of the others while some are slow, compared to before.
const WORSE_MAX: f64 = 1.2;
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
    let mut clients = JoinSet::new();
    for n in 0..size.connections {
        let mut client = Client::connect_narrow(cluster.at("net")).await?;
        let subscription = format!("{} {}", size.push_every_ms, size.push_bytes);
        let subscribed = client.call(SUBSCRIBE, subscription.as_bytes()).await;
        subscribed.with_context(|| format!("client {n}"))?;
        let every = Duration::from_millis(size.ask_every_ms);
        if n < size.slow {
            clients.spawn(stops_reading(client, phase.subscribe()));
        } else {
            clients.spawn(reads(client, n, every, times.clone(), phase.subscribe()));
        }
    }
    say(&format!("{} clients are pushed to", size.connections));
    let windows = (size.slow_s / size.window_s).max(1);
    let before = watch_windows(cluster, size, windows, &times, say).await?;
    phase.send_replace(Phase::Slow);
    say(&format!("{} clients stop reading", size.slow));
    let during = watch_windows(cluster, size, windows, &times, say).await?;
    let others = size.connections - size.slow;
    let waited =
        cluster.until("net", "only those who read are left", |node| node["sessions"] == others).await;
    phase.send_replace(Phase::Over);
    let mut verdict = Verdict::default();
    verdict.add(waited.err().map(|e| format!("{e:#}")));
    while let Some(client) = clients.join_next().await {
        verdict.add(client?.err().map(|e| format!("{e:#}")));
    }
    let cut = cluster.log().matches("slow reader: limits.outbox_bytes_max").count();
    verdict.hold(cut == size.slow as usize, format_args!("{cut} clients were disconnected as slow"));
    judge_memory(size, &before, &during, &mut verdict, say);
    judge_time(size, &before, &during, &mut verdict, say);
    verdict.end(say)
}

fn judge_memory(size: &Size, before: &Seen, during: &Seen, verdict: &mut Verdict, say: Say<'_>) {
    let bound = u64::from(size.slow) * size.outbox_bytes_max;
    let (was, peak, after) = (before.memory_now, during.memory_peak, during.memory_now);
    say(&format!(
        "memory of net: {} before, {} at most, {} after; the bound of {} slow clients is {}",
        mib(was),
        mib(peak),
        mib(after),
        size.slow,
        mib(bound)
    ));
    let most = was + bound + KEPT_BYTES_MAX;
    verdict.hold(peak <= most, format_args!("memory rose to {}, above {}", mib(peak), mib(most)));
    let flat = was + was / 10 + KEPT_BYTES_MAX;
    verdict.hold(after <= flat, format_args!("memory stays at {}, above {}", mib(after), mib(flat)));
}

fn judge_time(size: &Size, before: &Seen, during: &Seen, verdict: &mut Verdict, say: Say<'_>) {
    let (was, is) = (before.median(), during.median());
    let ratio = is.as_secs_f64() / was.as_secs_f64();
    say(&format!("p99 of the others, median of the windows: {was:?} before, {is:?} since, {ratio:.2} times"));
    verdict.hold(size.any_time || ratio <= WORSE_MAX, format_args!("p99 is {ratio:.2} times what it was"));
}

/// What was seen in some windows.
struct Seen {
    p99: Vec<Duration>,
    memory_now: u64,
    memory_peak: u64,
}

impl Seen {
    fn median(&self) -> Duration {
        let mut sorted = self.p99.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

async fn watch_windows(
    cluster: &Cluster,
    size: &Size,
    windows: u32,
    times: &Times,
    say: Say<'_>,
) -> Result<Seen> {
    let window = Duration::from_secs(size.window_s.into());
    let begin = Instant::now();
    let mut seen = Seen { p99: Vec::new(), memory_now: 0, memory_peak: 0 };
    let _ = times.p99(); // A new one.
    for n in 1..=windows {
        sleep_until(begin + window * n).await;
        let memory = cluster.memory("net").await?;
        let p99 = times.p99().context("nobody was answered")?;
        (seen.memory_now, seen.memory_peak) = (memory.now, memory.peak);
        seen.p99.push(p99);
        say(&format!("{:>4} s: p99 {p99:?}, memory of net {}", size.window_s * n, mib(memory.now)));
    }
    Ok(seen)
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

/// Reads, and then does not any more.
async fn stops_reading(mut client: Client, mut phase: watch::Receiver<Phase>) -> Result<()> {
    loop {
        tokio::select! {
            changed = phase.changed() => {
                changed?;
                break;
            }
            pushed = client.receive() => drop(pushed.context("before it was slow")?),
        }
    }
    phase.wait_for(|phase| *phase == Phase::Over).await?;
    Ok(())
}

/// For people.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

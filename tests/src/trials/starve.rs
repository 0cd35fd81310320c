//! Thousands of silent connections on every port of a master that may open few files: a killed node comes back, and who asks for its
//! health is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::{http, process, wait};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Silent connections to each port of the master
    #[arg(long, default_value_t = 5000)]
    pub silent: u32,
    /// How long after its end each of them is opened again
    #[arg(long, default_value_t = 5000)]
    pub again_ms: u64,
    /// The limit of open files of the master and its nodes (ulimit -n)
    #[arg(long, default_value_t = 1024)]
    pub descriptors: u32,
    /// For how long the health is asked for, once a second
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// How often the node is killed meanwhile
    #[arg(long, default_value_t = 3)]
    pub kills: u32,
}

/// The node that is killed.
const NODE: &str = "game1";
/// How long the node may take to be back.
const BACK: Duration = Duration::from_secs(5);
/// How long each answer to a question for the health may take, and nine of ten.
const ANSWER: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(1));

/// Opens the connections, kills the node and asks for the health.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    process::raise_descriptors(u64::from(size.silent) * 2 + 500)?;
    let cluster = Cluster::limited(Fixture::demo()?, size.descriptors).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let old = cluster.pid(NODE).await?;
    let silent = Silent::open(&[cluster.at("master"), cluster.at("admin")], size).await?;
    say(&format!("{} connections were opened, and say nothing", silent.opened.load(Ordering::Relaxed)));
    let (admin, seconds) = (cluster.at("admin"), size.seconds);
    // Who asks is another program than who attacks: it has a thread of its own.
    let asked = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(ask(admin, seconds)))
    });
    let mut verdict = Verdict::default();
    let mut last = old;
    for kill in 1..=size.kills {
        let begin = Instant::now();
        match killed(cluster, last).await {
            Ok(pid) => {
                let took = begin.elapsed();
                say(&format!("kill {kill}: {NODE} is back after {took:?}"));
                verdict
                    .hold(took <= BACK, format_args!("{NODE} came back only after {took:?}, not {BACK:?}"));
                last = pid;
            }
            Err(error) => {
                verdict.add([format!("kill {kill}: {NODE} does not come back: {error:#}")]);
                break;
            }
        }
    }
    let answers = asked.await.context("the questions were broken off")??;
    say(&format!(
        "{} connections were opened in all; the health was answered after {answers:?}",
        silent.opened.load(Ordering::Relaxed)
    ));
    verdict.add(judge(&answers));
    drop(silent);
    verdict.end(say)
}

/// Kills the process of the node; the next one, once the node is ready.
async fn killed(cluster: &Cluster, pid: i32) -> Result<i32> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    let node = cluster.until_back(NODE, pid).await?;
    node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("it has no process")
}

/// Asks for the health once a second; how long each answer took, `None` for none.
async fn ask(admin: SocketAddr, seconds: u64) -> Vec<Option<Duration>> {
    let (mut every, mut asked) = (interval(Duration::from_secs(1)), JoinSet::new());
    for _ in 0..seconds {
        every.tick().await;
        asked.spawn(async move {
            let begin = Instant::now();
            let answer = timeout(wait::PATIENCE, http::request(admin, "GET", "/healthz", &[])).await;
            answer.is_ok_and(|answer| answer.is_ok()).then(|| begin.elapsed())
        });
    }
    asked.join_all().await
}

fn judge(answers: &[Option<Duration>]) -> Vec<String> {
    let (each, most) = ANSWER;
    let within = |limit| answers.iter().flatten().filter(|took| **took <= limit).count();
    let mut faults = Vec::new();
    let all = answers.len();
    if within(each) < all {
        faults.push(format!(
            "{} of {all} questions for the health had no answer within {each:?}",
            all - within(each)
        ));
    }
    if within(most) * 10 < all * 9 {
        faults.push(format!("only {} of {all} were answered within {most:?}", within(most)));
    }
    faults
}

/// Connections that are opened and say nothing, and are opened again a while after their end. Dropping this closes them.
struct Silent {
    opened: Arc<AtomicU64>,
    _connections: JoinSet<()>,
}

impl Silent {
    /// Opens them all, once each at least.
    async fn open(ports: &[SocketAddr], size: &Size) -> Result<Self> {
        let (opened, mut connections) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let again = Duration::from_millis(size.again_ms);
        for &port in ports {
            for _ in 0..size.silent {
                connections.spawn(be_silent(port, opened.clone(), again));
            }
        }
        let all = u64::from(size.silent) * ports.len() as u64;
        wait::until("every silent connection has been opened", async || {
            let opened = opened.load(Ordering::Relaxed);
            if opened >= all { Ok(()) } else { Err(opened) }
        })
        .await?;
        Ok(Self { opened, _connections: connections })
    }
}

async fn be_silent(port: SocketAddr, opened: Arc<AtomicU64>, again: Duration) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(port).await {
            opened.fetch_add(1, Ordering::Relaxed);
            let mut heard = [0; 64];
            while let Ok(1..) = stream.read(&mut heard).await {}
        }
        sleep(again).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_and_missing_answers_are_faults() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(judge(&[ms(1); 10]), [""; 0]);
        let mut answers = vec![ms(1); 10];
        answers[3] = ms(3_900);
        assert_eq!(judge(&answers), [""; 0]);
        answers[4] = ms(1_001);
        assert_eq!(judge(&answers), ["only 8 of 10 were answered within 1s"]);
        answers[4] = None;
        assert_eq!(judge(&answers).len(), 2);
    }
}

//! Robots move coins between accounts through two game nodes while nodes, memcached and the database are
//! killed: what was answered has happened, once, and nothing else has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ffserver::Record;
use ffserver::db::{Db, Value};
use ffserver::record::create;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Say, Verdict, with_log};
use crate::client::{Client, parse_error};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::random::Random;
use crate::servers::{Database, Memcached};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Robots, each with an account of its own
    #[arg(long, default_value_t = 40)]
    pub robots: u32,
    /// How much is killed: game nodes, the gate, memcached, the database
    #[arg(long, default_value_t = 100)]
    pub kills: u32,
    /// How often
    #[arg(long, default_value_t = 2000)]
    pub kill_every_ms: u64,
    /// `mariadb` or `postgres`
    #[arg(long, default_value = "mariadb")]
    pub database: String,
    /// Another seed, another order of kills and moves
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// As the app `coinsgame` has it.
#[derive(Record, Debug, Clone, PartialEq)]
#[record(table = "coins")]
pub(super) struct Purse {
    #[record(key)]
    pub(super) name: String,
    pub(super) coins: i64,
    pub(super) done: Vec<u8>,
}

const START: i64 = 10_000;
/// Robots whose moves go among each other: those of a group are durable, or written behind, all of them.
const GROUP: u32 = 4;
const COMMAND: u32 = 1600;

/// What a robot knows of one of its moves.
#[derive(Debug, Clone)]
struct Move {
    to: u32,
    coins: i64,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Done,
    /// It was said that nothing has changed, and why.
    Refused(String),
    Unknown(String),
}

/// Keeps the books of the moves while things are killed.
///
/// # Errors
/// A move was lost, doubled or made up; or coins were.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let database = match size.database.as_str() {
        "mariadb" => Database::mariadb().await?,
        "postgres" => Database::postgres().await?,
        other => bail!("no database {other}: mariadb or postgres"),
    };
    let (Some(mut database), Some(mut memcached)) = (database, Memcached::start(16).await?) else {
        return Ok(());
    };
    let db = Db::connect(&ffconfig::Database::at(database.url())).await?;
    fill(&db, size.robots).await?;
    let cluster = Cluster::processes(fixture(&database, &memcached)?).await?;
    let played = play(&cluster, &mut database, &mut memcached, size, say).await;
    let (books, played) = match played {
        Ok(books) => (books, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    let cluster = with_log(cluster, played)?;
    let journals = cluster.folder().join("data");
    // Everything is written at the stop.
    let log = cluster.log();
    let kept = journals.clone();
    let left = move || -> Vec<String> {
        let entries = std::fs::read_dir(&kept).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let outcome = stop_and_judge(cluster, &db, &books, left, say).await;
    outcome.with_context(|| format!("the end of the log:\n{}", &log[log.len().saturating_sub(3000)..]))
}

fn fixture(database: &Database, memcached: &Memcached) -> Result<Fixture> {
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100, "max": 0 } },
  "db": { "url": "DATABASE", "connect_timeout_ms": 3000 },
  "memcached": { "urls": ["MEMCACHED"], "timeout_ms": 500 },
  "servers": {
    "gate": { "rootport": @gate, "app": "trialgate" },
    "net":  { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1600, 1699]] } } },
    "game": { "count": 2, "type": "game", "remoteport": [{ "rootname": "gate" }], "app": "coinsgame",
              "db": true, "mem": true }
  }
}"#;
    let fixture = Fixture::new(text)?;
    Ok(fixture.replace("DATABASE", &database.url()).replace("MEMCACHED", &memcached.address()))
}

async fn fill(db: &Db, robots: u32) -> Result<()> {
    create::<Purse>(db).await?;
    for robot in 0..robots {
        let args = [Value::from(name(robot)), Value::Int(START), Value::Bytes(Vec::new())];
        db.execute("INSERT INTO coins (name, coins, done) VALUES (?, ?, ?)", &args).await?;
    }
    Ok(())
}

fn name(robot: u32) -> String {
    format!("robot {robot}")
}

async fn play(
    cluster: &Cluster,
    database: &mut Database,
    memcached: &mut Memcached,
    size: &Size,
    say: Say<'_>,
) -> Result<Vec<Vec<Move>>> {
    let stop = watch::Sender::new(false);
    let mut robots = JoinSet::new();
    for robot in 0..size.robots {
        let client = cluster.client().await?;
        robots.spawn(keep_moving(client, robot, size.clone(), stop.subscribe()));
    }
    let begun = Instant::now();
    let mut random = Random::new(size.seed);
    for n in 1..=size.kills {
        sleep(Duration::from_millis(size.kill_every_ms)).await;
        let what = kill_one(cluster, database, memcached, &mut random).await?;
        if size.kills <= 20 || n % 10 == 0 {
            say(&format!("{:>6.1} s: kill {n}: {what}", begun.elapsed().as_secs_f64()));
        }
    }
    for game in ["game.1", "game.2"] {
        cluster.until_linked(game, "gate").await?;
    }
    sleep(Duration::from_millis(size.kill_every_ms)).await;
    stop.send_replace(true);
    let mut books = vec![Vec::new(); size.robots as usize];
    while let Some(robot) = robots.join_next().await {
        let (robot, moves) = robot??;
        books[robot as usize] = moves;
    }
    Ok(books)
}

/// Kills something that runs, and starts it again where nobody else does.
async fn kill_one(
    cluster: &Cluster,
    database: &mut Database,
    memcached: &mut Memcached,
    random: &mut Random,
) -> Result<String> {
    let which = ["game.1", "game.2", "database", "memcached", "game.1", "game.2", "gate"];
    let which = which[random.below(which.len() as u64) as usize];
    let pause = Duration::from_millis(100 + random.below(1200));
    match which {
        "database" => {
            database.kill().await?;
            sleep(pause).await;
            database.restart().await?;
            Ok(format!("the database, back after {pause:?}"))
        }
        "memcached" => {
            memcached.kill().await?;
            sleep(pause).await;
            memcached.restart().await?;
            Ok(format!("memcached, back and empty after {pause:?}"))
        }
        node => {
            cluster.until(node, "ready to be killed", |node| node["state"] == "ready").await?;
            let pid = cluster.kill_hard(node).await?;
            Ok(format!("-9 of {node} (process {pid})"))
        }
    }
}

/// One move after the other, each with its own number.
async fn keep_moving(
    mut client: Client,
    robot: u32,
    size: Size,
    stop: watch::Receiver<bool>,
) -> Result<(u32, Vec<Move>)> {
    let mut random = Random::new(size.seed << 32 | u64::from(robot + 1));
    let group = robot / GROUP;
    let behind = group % 2 == 1;
    let mut moves = Vec::new();
    while !*stop.borrow() {
        // Records that are written behind are held for a second by their node: who shares them takes turns.
        let pause = if behind { random.below(1500) } else { random.below(60) };
        sleep(Duration::from_millis(pause)).await;
        let mut to = group * GROUP + random.below(u64::from(GROUP)) as u32;
        if random.below(20) == 0 {
            to = random.below(u64::from(size.robots)) as u32;
        }
        to %= size.robots;
        if to == robot {
            continue;
        }
        let (number, coins) = (moves.len(), 1 + random.below(9) as i64);
        let ms = if behind { 20 + random.below(300) } else { 0 };
        let body = format!("{number}|{}|{}|{coins}|{ms}", name(robot), name(to));
        client.send(COMMAND, body.as_bytes()).await?;
        let (command, body) = client.receive().await?;
        let end = end(number, command, &body)?;
        moves.push(Move { to, coins, end });
    }
    Ok((robot, moves))
}

fn end(number: usize, command: u32, body: &[u8]) -> Result<End> {
    if command == COMMAND {
        let text = String::from_utf8_lossy(body).into_owned();
        let mut words = text.splitn(3, ' ');
        ensure!(words.next() == Some(number.to_string().as_str()), "move {number} was answered by {text}");
        return match (words.next(), words.next()) {
            (Some("done"), _) => Ok(End::Done),
            (Some("no"), Some(why)) => Ok(End::Refused(why.to_owned())),
            _ => bail!("move {number} was answered by {text}"),
        };
    }
    let error = parse_error(body)?;
    match error.executed.as_str() {
        "no" => Ok(End::Refused(error.code)),
        _ => Ok(End::Unknown(error.code)),
    }
}

async fn stop_and_judge(
    cluster: Cluster,
    db: &Db,
    books: &[Vec<Move>],
    left: impl Fn() -> Vec<String>,
    say: Say<'_>,
) -> Result<()> {
    // The folder goes with the cluster, so what is left in it is looked at while it stands.
    let mut cluster = Some(cluster);
    let mut verdict = Verdict::default();
    if let Some(running) = cluster.take() {
        crate::wait::until("both game nodes have written everything", async || {
            let mut dirty = Vec::new();
            for game in ["game.1", "game.2"] {
                let node = running.node(game).await.map_err(|e| format!("{e:#}"))?;
                let counters = node["counters"].to_string();
                if counters.contains("record_dirty") || counters.contains("record_held") {
                    dirty.push(counters);
                }
                verdict_fenced(&node, game)?;
            }
            if dirty.is_empty() { Ok(()) } else { Err(dirty.join("; ")) }
        })
        .await?;
        // Each living node may keep an empty one; that of a dead one stays while a late claim of its may come.
        let until = Instant::now() + Duration::from_secs(90);
        let mut files = left();
        while files.len() > 2 && Instant::now() < until {
            sleep(Duration::from_millis(200)).await;
            files = left();
        }
        verdict.hold(files.len() <= 2, format_args!("journals are left: {files:?}"));
        running.stop().await?;
    }
    judge(db, books, &mut verdict, say).await?;
    verdict.end(say)
}

fn verdict_fenced(node: &serde_json::Value, game: &str) -> Result<(), String> {
    if node["counters"]["record_fenced"].is_null() {
        return Ok(());
    }
    Err(format!("{game} has lost a held record: {}", node["counters"]))
}

async fn judge(db: &Db, books: &[Vec<Move>], verdict: &mut Verdict, say: Say<'_>) -> Result<()> {
    let rows = db.fetch_all("SELECT name, coins, done FROM coins WHERE holder = ''", &[]).await?;
    verdict.hold(rows.len() == books.len(), format_args!("{} accounts of {}", rows.len(), books.len()));
    let mut purses = HashMap::new();
    for row in rows {
        purses.insert(row.get::<String>("name")?, (row.get::<i64>("coins")?, row.get::<Vec<u8>>("done")?));
    }
    let mut expected: HashMap<String, i64> = purses.keys().map(|name| (name.clone(), START)).collect();
    let (mut ends, mut happened) = (BTreeMap::new(), 0_u32);
    for (robot, moves) in (0..).zip(books) {
        let Some((_, done)) = purses.get(&name(robot)) else { continue };
        let numbers: Vec<u32> =
            done.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect();
        let unique: HashSet<u32> = numbers.iter().copied().collect();
        verdict.hold(unique.len() == numbers.len(), format_args!("robot {robot}: a move happened twice"));
        for (number, Move { to, coins, end }) in (0..).zip(moves) {
            let there = unique.contains(&number);
            let fault = match end {
                End::Done if !there => Some("was answered as done and is LOST"),
                End::Refused(_) if there => Some("was refused and has happened"),
                _ => None,
            };
            verdict.hold(
                fault.is_none(),
                format_args!("robot {robot}: move {number} {}", fault.unwrap_or_default()),
            );
            let kind = match end {
                End::Done => "done".to_owned(),
                End::Refused(why) => format!("refused: {why}"),
                End::Unknown(code) if there => format!("unknown: {code}, has happened"),
                End::Unknown(code) => format!("unknown: {code}, has not happened"),
            };
            *ends.entry(kind).or_insert(0_u32) += 1;
            if there {
                happened += 1;
                *expected.entry(name(robot)).or_default() -= coins;
                *expected.entry(name(*to)).or_default() += coins;
            }
        }
    }
    for (name, (coins, _)) in &purses {
        let wanted = expected.get(name).copied().unwrap_or_default();
        verdict.hold(*coins == wanted, format_args!("{name} has {coins}, its moves make {wanted}"));
    }
    let sum: i64 = purses.values().map(|(coins, _)| coins).sum();
    verdict.hold(sum == START * books.len() as i64, format_args!("{sum} coins in all"));
    say(&format!("{happened} moves have happened, {sum} coins in all; the answers:"));
    ends.iter().for_each(|(kind, n)| say(&format!("  {n:>7} × {kind}")));
    verdict.hold(ends.get("done").is_some_and(|n| *n > 0), "no move was answered as done");
    Ok(())
}

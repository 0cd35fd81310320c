//! The apps that most tests and trials try the cluster with: handlers that fail, wait, count and complain.

mod misbehaves;
mod world;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ffserver::prelude::*;
use ffserver::tracing::info;
use tokio::time::{Instant, MissedTickBehavior};

use world::{
    counted, counted_at_gate, counted_here, counted_through_handlers, game_counts, gate_counts,
    gate_lets_count, with_world,
};

parents! { Gate = "gate" }

#[net_handle(1)]
async fn echo(Body(data): Body<Bytes>) -> Bytes {
    data
}

#[net_handle(2)]
async fn panics(Body(text): Body<String>) {
    let _again = (text == "twice").then(|| PanicsAgain);
    if !text.is_empty() {
        panic!("asked to: {text}");
    }
}

/// What panics while another panic is on its way ends the process.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("again");
    }
}

/// Waits as many milliseconds as the body says.
#[net_handle(3)]
async fn waits(Body(ms): Body<String>) -> Result<String, HandlerError> {
    sleep(ms.parse()?).await;
    Ok(ms)
}

#[net_handle(4)]
async fn fails(Body(text): Body<String>) -> Result<(), HandlerError> {
    Err(HandlerError::new(text).because("for the log only"))
}

#[net_handle(5)]
async fn replies_nothing() {}

#[net_handle(6)]
async fn replies_empty() -> Bytes {
    Bytes::new()
}

#[net_handle(7, concurrent)]
async fn waits_beside_others(Body(ms): Body<String>) -> Result<String, HandlerError> {
    sleep(ms.parse()?).await;
    Ok(ms)
}

/// Pushes as many messages of 1 KiB under command 9 as the body says, as long as they are taken.
#[net_handle(8)]
async fn pushes(session: Session, Body(count): Body<String>) -> Result<String, HandlerError> {
    let mut taken = 0;
    for _ in 0..count.parse::<u32>()? {
        match session.push(CommandId(9), &[b'x'; 1024]) {
            Ok(()) => taken += 1,
            Err(_) => break,
        }
    }
    Ok(taken.to_string())
}

#[net_handle(10)]
async fn calls_gate(gate: Parent<Gate>, Body(method): Body<String>) -> Result<Bytes, CallError> {
    gate.call(&method, "from net").await
}

#[net_handle(11)]
async fn calls_unknown_parent(parents: Parents) -> Result<Bytes, CallError> {
    parents.call("nobody", "x", "").await
}

#[net_handle(12)]
async fn adds_as_json(Json((a, b)): Json<(i64, i64)>) -> Json<i64> {
    Json(a + b)
}

/// Pushes to the session under command 9 from now on; the body says every how many milliseconds and how
/// many bytes. Each push begins with its number as a big-endian u64, from 0 on.
#[net_handle(13)]
async fn subscribes(
    session: Session,
    subscribers: State<Subscribers>,
    Body(text): Body<String>,
) -> Result<&'static str, HandlerError> {
    let (every_ms, bytes) =
        text.split_once(' ').ok_or_else(|| HandlerError::new("EVERY_MS BYTES is expected"))?;
    let every = Duration::from_millis(every_ms.parse::<u64>()?.max(1));
    let body = vec![b'x'; bytes.parse::<usize>()?.max(8)];
    subscribers.lock().push(Subscriber { session, every, body, pushed: 0, due: Instant::now() + every });
    Ok("subscribed")
}

/// The way through handlers to what `recorded` does for forwarded messages.
#[net_handle(14)]
async fn recorded_through_handlers(gate: Parent<Gate>, Body(text): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("gate_recorded", text).await
}

/// What an app measures itself: a counter, a gauge, a histogram, a timed section, and an object that lives until this ends.
#[net_handle(29)]
async fn measured(me: Node, Body(text): Body<String>) -> String {
    let metrics = me.metrics();
    let _timer = metrics.section("pathfinding");
    let _monster = metrics.object("monster");
    metrics.counter("paths", "Paths that were looked for").inc();
    metrics.gauge("longest_path", "The longest path so far").set(text.len() as f64);
    metrics.histogram("path", "How long a path took").observe(Duration::from_millis(3));
    text
}

/// The sessions that [`push_for_ever`] pushes to.
#[derive(Default)]
struct Subscribers(Mutex<Vec<Subscriber>>);

struct Subscriber {
    session: Session,
    every: Duration,
    body: Vec<u8>,
    pushed: u64,
    due: Instant,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Pushes what is due; false when the session takes no more.
    fn push_due(&mut self, now: Instant) -> bool {
        while self.due <= now {
            self.body[..8].copy_from_slice(&self.pushed.to_be_bytes());
            if self.session.push(CommandId(9), &self.body).is_err() {
                return false;
            }
            self.pushed += 1;
            self.due += self.every;
        }
        true
    }
}

/// A game's world that goes on whether its clients read or not.
async fn push_for_ever(node: Node) -> Result<(), HandlerError> {
    let Some(subscribers) = node.state::<Subscribers>() else { return Ok(()) };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let now = ticks.tick().await;
            subscribers.lock().retain_mut(|subscriber| subscriber.push_due(now));
        }
    });
    Ok(())
}

pub(crate) fn net() -> App {
    any_net("trialnet")
}

/// A net node with a world.
pub(crate) fn world_net() -> App {
    with_world(any_net("worldnet")).handlers(handlers![counted_here])
}

fn any_net(name: &'static str) -> App {
    App::new(name)
        .handlers(handlers![
            echo,
            panics,
            waits,
            fails,
            replies_nothing,
            replies_empty,
            waits_beside_others,
            pushes,
            calls_gate,
            calls_unknown_parent,
            adds_as_json,
            measured,
            recorded_through_handlers,
            counted_at_gate,
            counted_through_handlers,
        ])
        .on_session_opened(|_, session| async move { info!("hook: {} opened", session.id()) })
        .on_session_closed(|_, session| async move { info!("hook: {} closed", session.id()) })
        .on_started(|node| async move {
            info!("hook: {} started", node.name());
            misbehaves::at_start(&node).await
        })
        .on_stopping(|node| async move {
            info!("hook: {} stopping", node.name());
            Ok(())
        })
        .web("/", rocket::routes![hello])
}

/// A net node that speaks first.
pub(crate) fn greets() -> App {
    App::new("trialgreets").handlers(handlers![echo, waits]).on_session_opened(|_, session| async move {
        // A client that is gone is not greeted.
        let _ = session.push(CommandId(9), b"welcome");
    })
}

/// What no handler should do: it gives the loop to nobody else.
#[net_handle(15)]
async fn spins() {
    loop {
        std::hint::spin_loop();
    }
}

/// A net node on its own, for tests of clients and limits.
pub(crate) fn solo() -> App {
    App::new("trialsolo")
        .state(Subscribers::default())
        .state_may_be_lost()
        .handlers(handlers![echo, waits, replies_empty, pushes, subscribes, spins])
        .on_started(push_for_ever)
}

#[rocket::get("/hello")]
fn hello(node: &rocket::State<Node>) -> String {
    format!("hello from {}\n", node.name())
}

#[root_handle]
async fn gate_panics() {
    panic!("asked to");
}

#[root_handle]
async fn gate_waits_long() -> &'static str {
    sleep(60_000).await;
    "late"
}

#[root_handle]
async fn gate_calls_missing_child(children: Children) -> Result<Bytes, CallError> {
    children.call("missing", "x", "").await
}

#[root_handle]
async fn gate_calls_game(children: Children) -> Result<Bytes, CallError> {
    children.call("game", "game_answers", "from gate").await
}

#[root_handle]
async fn gate_calls_unknown_method(children: Children) -> Result<Bytes, CallError> {
    children.call("game", "no_such_method", "").await
}

#[root_handle]
async fn called_back(caller: Caller) -> String {
    format!("called by {}", caller.node)
}

#[root_handle]
async fn gate_recorded(children: Children, Body(text): Body<Bytes>) -> Result<Bytes, CallError> {
    children.call("game", "game_recorded", text).await
}

pub(crate) fn gate() -> App {
    any_gate("trialgate")
}

/// A gate with a world.
pub(crate) fn world_gate() -> App {
    with_world(any_gate("worldgate")).handlers(handlers![gate_counts])
}

fn any_gate(name: &'static str) -> App {
    App::new(name)
        .handlers(handlers![
            gate_lets_count,
            gate_recorded,
            gate_panics,
            gate_waits_long,
            gate_calls_missing_child,
            gate_calls_game,
            gate_calls_unknown_method,
            called_back,
        ])
        .on_started(|node| async move { misbehaves::at_start(&node).await })
        .on_child_connected(|_, child| async move { info!("hook: child {child} connected") })
        .on_child_lost(|_, child| async move { info!("hook: child {child} lost") })
}

/// The last number seen of each session: what comes with a smaller one came out of order.
#[derive(Default)]
struct Seen(Mutex<HashMap<Option<ffserver::SessionId>, (u32, bool)>>);

impl Seen {
    /// Begins message `number` of a session; false when it is out of order or another one runs.
    fn begin(&self, session: Option<ffserver::SessionId>, number: u32) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (last, running) = seen.entry(session).or_insert((0, false));
        let right = !*running && number > *last;
        (*last, *running) = (number, true);
        right
    }

    fn end(&self, session: Option<ffserver::SessionId>) {
        let mut seen = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, running)) = seen.get_mut(&session) {
            *running = false;
        }
    }
}

/// What has begun here: a file with a line `NUMBER MICROSECONDS` for each, in the folder of the environment's
/// `FF_TRIAL_RAN`. A file, because what it has outlives `kill -9`.
#[derive(Default)]
struct Ran(OnceLock<File>);

impl Ran {
    fn open(&self, folder: &Path, node: &Node) -> Result<(), HandlerError> {
        let path = folder.join(format!("{}.{}", node.name(), std::process::id()));
        let _ = self.0.set(File::create(path)?); // Once per process.
        Ok(())
    }

    fn note(&self, number: u64) -> Result<(), HandlerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        match self.0.get() {
            // One write of one line: it is there whole, or not at all.
            Some(mut file) => Ok(file.write_all(format!("{number} {now}\n").as_bytes())?),
            None => Ok(()),
        }
    }
}

/// The body is a number and how many milliseconds to wait: notes that the number has begun, waits, and
/// answers with the number and the node.
async fn record(ran: &Ran, node: &Node, text: &str) -> Result<String, HandlerError> {
    let (number, ms) = text.split_once(' ').ok_or_else(|| HandlerError::new("NUMBER MS is expected"))?;
    ran.note(number.parse()?)?;
    match ms.parse()? {
        0 => {}
        ms => sleep(ms).await,
    }
    Ok(format!("{number} ok {}", node.name()))
}

#[net_handle(1004)]
async fn recorded(ran: State<Ran>, node: Node, Body(text): Body<String>) -> Result<String, HandlerError> {
    record(&ran, &node, &text).await
}

#[remote_handle("gate")]
async fn game_recorded(
    ran: State<Ran>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    record(&ran, &node, &text).await
}

#[remote_handle("gate")]
async fn game_answers(parents: Parents, caller: Caller) -> Result<String, CallError> {
    let back = parents.call("gate", "called_back", "").await?;
    Ok(format!("{} called, gate says: {}", caller.node, String::from_utf8_lossy(&back)))
}

/// The body is a number and how many milliseconds to wait: answers `N ok NODE` in order, `N INVERSION` else.
#[net_handle(1000)]
async fn in_order(
    seen: State<Seen>,
    node: Node,
    caller: Caller,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    let (number, ms) = text.split_once(' ').ok_or_else(|| HandlerError::new("NUMBER MS is expected"))?;
    let right = seen.begin(caller.session, number.parse()?);
    match ms.parse()? {
        0 => {}
        ms => sleep(ms).await,
    }
    seen.end(caller.session);
    Ok(if right { format!("{number} ok {}", node.name()) } else { format!("{number} INVERSION") })
}

#[net_handle(1001, concurrent)]
async fn beside_others(Body(ms): Body<String>) -> Result<String, HandlerError> {
    sleep(ms.parse()?).await;
    Ok(ms)
}

#[net_handle(1002)]
async fn game_panics() {
    panic!("asked to");
}

#[net_handle(1003)]
async fn game_replies_nothing() {}

/// Which node handles it, for stateless routes.
#[net_handle(1500)]
async fn who(node: Node) -> String {
    node.name().to_string()
}

pub(crate) fn game() -> App {
    misbehaves::at_build();
    with_world(App::new("trialgame"))
        .state(Seen::default())
        .state(Ran::default())
        .handlers(handlers![
            counted,
            game_answers,
            game_counts,
            game_recorded,
            in_order,
            beside_others,
            game_panics,
            game_replies_nothing,
            recorded,
            who,
        ])
        .on_started(|node| async move {
            if let (Some(folder), Some(ran)) = (std::env::var_os("FF_TRIAL_RAN"), node.state::<Ran>()) {
                ran.open(Path::new(&folder), &node)?;
            }
            misbehaves::at_start(&node).await
        })
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

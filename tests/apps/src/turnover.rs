//! What the tests try changing handlers with: nodes whose methods and commands come, go and change places all the time,
//! and whose handlers say who they are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ffserver::handler::{FromRequest, HandlerFuture, Key, Request, Route};
use ffserver::prelude::*;
use tokio::time::sleep;

/// How often each node changes its handlers. Behind that it has all of them.
pub const TURNS: u64 = 400;
/// How many methods of each kind, and commands of each node, come and go: `m0`, `m1`, …
pub const NAMES: u32 = 8;
/// The first of the commands that come and go on the net node.
pub const NET: u32 = 100;
/// The first of the commands that come and go on the game node.
pub const GAME: u32 = 200;

parents! { Gate = "gate" }

/// The handlers that one node had and has, by turn, as its test sees them.
#[derive(Debug, Default)]
pub struct Turns {
    begun: AtomicU64,
    done: AtomicU64,
    had: Mutex<Vec<BTreeSet<String>>>,
}

/// The turns of the nodes of a cluster in one process.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of the net node.
    pub net: Turns,
    /// Of the gate.
    pub gate: Turns,
    /// Of the game node.
    pub game: Turns,
}

impl Turns {
    /// The last turn that every message sees which is sent from now on.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// The last turn that a message which has ended may have seen.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether the node had that handler in that turn.
    pub fn had(&self, turn: u64, handler: &str) -> bool {
        let had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        had.get(turn as usize).is_some_and(|had| had.contains(handler))
    }

    fn begin(&self, turn: u64, routes: &[Route]) {
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        had.push(routes.iter().map(|route| route.name().to_owned()).collect());
        self.begun.store(turn, Ordering::SeqCst);
    }
}

type Keys = fn(u32) -> Vec<(String, Key)>;

fn net_keys(n: u32) -> Vec<(String, Key)> {
    vec![(format!("command {}", NET + n), Key::Net(NET + n))]
}

fn gate_keys(n: u32) -> Vec<(String, Key)> {
    vec![(format!("root m{n}"), Key::Root(format!("m{n}").into()))]
}

fn game_keys(n: u32) -> Vec<(String, Key)> {
    let method: Arc<str> = format!("m{n}").into();
    vec![
        (format!("command {}", GAME + n), Key::Net(GAME + n)),
        (format!("node m{n}"), Key::Node(method.clone())),
        (format!("remote m{n}"), Key::Remote { parent: "gate".into(), method }),
    ]
}

/// A handler that says who it is, and of which turn. Some wait before, and those of every third turn want the session.
fn handler(name: &str, key: Key, turn: u64) -> Route {
    let wants_session = turn.is_multiple_of(3) && matches!(key, Key::Net(_));
    let (answer, waits) = (Bytes::from(format!("{name} {turn}")), turn % 4);
    let run = move |mut request: Request| -> HandlerFuture {
        let answer = answer.clone();
        Box::pin(async move {
            if wants_session {
                Session::from_request(&mut request)?;
            }
            for _ in 0..waits {
                tokio::task::yield_now().await;
            }
            Ok(Some(answer))
        })
    };
    let route = Route::new(key, name, run);
    if wants_session { route.checked_by(Session::check) } else { route }
}

/// The handlers of a turn: those that stay, and some of the others in any order.
fn routes_of(keys: Keys, stay: &[Route], turn: u64, random: &mut u64) -> Vec<Route> {
    let mut below = |n: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random % n
    };
    let mut routes = stay.to_vec();
    for (name, key) in (0..NAMES).flat_map(keys) {
        if turn == TURNS || below(2) == 0 {
            routes.insert(below(routes.len() as u64 + 1) as usize, handler(&name, key, turn));
        }
    }
    routes
}

/// Changes the handlers of a node from turn to turn.
async fn turn_over(node: Node, keys: Keys, turns: impl Fn(&Ledger) -> &Turns, ledger: Arc<Ledger>) {
    let Some(handlers) = Handlers::of(&node) else { return };
    let stay = handlers.list();
    let mut random = node.name().as_str().bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    let turns = turns(&ledger);
    turns.begin(0, &stay);
    for turn in 1..=TURNS {
        let routes = routes_of(keys, &stay, turn, &mut random);
        turns.begin(turn, &routes);
        if let Err(error) = handlers.replace(routes) {
            ffserver::tracing::error!("turn {turn}: {error}");
            return;
        }
        turns.done.store(turn, Ordering::SeqCst);
        sleep(Duration::from_millis(1)).await;
    }
}

fn app(
    name: &'static str,
    stay: Vec<Route>,
    keys: Keys,
    turns: fn(&Ledger) -> &Turns,
    ledger: Arc<Ledger>,
) -> App {
    App::new(name).handlers(stay).on_started(move |node| {
        let ledger = ledger.clone();
        async move {
            drop(tokio::spawn(turn_over(node, keys, turns, ledger)));
            Ok(())
        }
    })
}

/// A method of the parent.
#[net_handle(1)]
async fn calls_root(gate: Parent<Gate>, Body(method): Body<String>) -> Result<Bytes, CallError> {
    gate.call(&method, "").await
}

/// A method of a node that is no neighbour.
#[net_handle(2)]
async fn calls_node(nodes: Nodes, Body(method): Body<String>) -> Result<Bytes, CallError> {
    nodes.call_any("game", &method, "").await
}

/// A method of the parent's child.
#[net_handle(3)]
async fn calls_remote(gate: Parent<Gate>, Body(method): Body<String>) -> Result<Bytes, CallError> {
    gate.call("calls_child", method).await
}

#[root_handle]
async fn calls_child(children: Children, Body(method): Body<String>) -> Result<Bytes, CallError> {
    children.call("game", &method, "").await
}

/// So that the game node is never without a command.
#[net_handle(299)]
async fn stays() -> &'static str {
    "stays"
}

/// Tells the late node to take clients' messages, or none.
#[net_handle(4)]
async fn forwards(nodes: Nodes, Body(how): Body<String>) -> Result<Bytes, CallError> {
    nodes.call_any("late", &how, "").await
}

#[node_handle]
async fn takes_clients(handlers: Handlers) -> Result<&'static str, HandlerError> {
    let mut routes = handlers![takes_clients, takes_none];
    routes.push(handler("command 300", Key::Net(300), 1));
    handlers.replace(routes)?;
    Ok("takes clients")
}

#[node_handle]
async fn takes_none(handlers: Handlers) -> Result<&'static str, HandlerError> {
    handlers.replace(handlers![takes_clients, takes_none])?;
    Ok("takes none")
}

/// The apps, which write their turns down.
pub fn apps(ledger: &Arc<Ledger>) -> Vec<App> {
    let net = handlers![calls_root, calls_node, calls_remote, forwards];
    vec![
        app("turnnet", net, net_keys, |ledger| &ledger.net, ledger.clone()),
        app("turngate", handlers![calls_child], gate_keys, |ledger| &ledger.gate, ledger.clone()),
        app("turngame", handlers![stays], game_keys, |ledger| &ledger.game, ledger.clone()),
        App::new("turnlate").handlers(handlers![takes_clients, takes_none]),
    ]
}

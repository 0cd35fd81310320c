//! What the tests try routing with: gates that handle nothing, and rooms far away that say who they are.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ffserver::SessionId;
use ffserver::prelude::*;

/// How many messages of each session a room has handled.
#[derive(Default)]
struct Visits(Mutex<HashMap<Option<SessionId>, u32>>);

impl Visits {
    fn next(&self, session: Option<SessionId>) -> u32 {
        let mut visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = visits.entry(session).or_insert(0);
        *count += 1;
        *count
    }
}

fn visited(visits: &Visits, node: &Node, caller: &Caller) -> String {
    format!("{} {}", node.name(), visits.next(caller.session))
}

#[net_handle(3000)]
async fn visit(visits: State<Visits>, node: Node, caller: Caller) -> String {
    visited(&visits, &node, &caller)
}

/// For a stateless route.
#[net_handle(3001)]
async fn who(node: Node) -> String {
    node.name().to_string()
}

/// For a route to one node.
#[net_handle(3010)]
async fn visit_here(visits: State<Visits>, node: Node, caller: Caller) -> String {
    visited(&visits, &node, &caller)
}

/// For what the lobby passes on.
#[net_handle(3200)]
async fn visit_from_lobby(visits: State<Visits>, node: Node, caller: Caller) -> String {
    visited(&visits, &node, &caller)
}

#[net_handle(3100)]
async fn lobby_itself(node: Node) -> String {
    node.name().to_string()
}

#[net_handle(default)]
async fn unknown(command: CommandId) -> String {
    format!("no idea of {command}")
}

/// Calls another node: the body is `HOW WHOM METHOD TEXT`.
#[net_handle(3900)]
async fn calls(nodes: Nodes, Body(text): Body<String>) -> Result<String, HandlerError> {
    do_call(&nodes, &text).await
}

/// The same from a room.
#[net_handle(3050)]
async fn room_calls(nodes: Nodes, Body(text): Body<String>) -> Result<String, HandlerError> {
    do_call(&nodes, &text).await
}

async fn do_call(nodes: &Nodes, text: &str) -> Result<String, HandlerError> {
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    let [how, whom, method, text] = words[..] else { return Err(HandlerError::new("HOW WHOM METHOD TEXT")) };
    let shown = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(match how {
        "name" => shown(nodes.call(whom, method, text).await?),
        "any" => shown(nodes.call_any(whom, method, text).await?),
        "all" => {
            let outcomes = nodes.call_all(whom, method, text).await.into_iter();
            let lines = outcomes.map(|(name, outcome)| match outcome {
                Ok(answer) => format!("{name}: {}", shown(answer)),
                Err(error) => format!("{name}: {}", error.fault().code),
            });
            lines.collect::<Vec<_>>().join("; ")
        }
        "tell" => nodes.notify(whom, method, text).map(|()| "told".to_owned())?,
        "tell-all" => nodes.notify_all(whom, method, text)?.to_string(),
        other => return Err(HandlerError::new(format!("no {other}"))),
    })
}

#[node_handle]
async fn greet(node: Node, caller: Caller, Body(text): Body<String>) -> String {
    format!("{} was greeted by {}: {text}", node.name(), caller.node)
}

/// Says something to the client whose message made the call.
#[node_handle]
async fn speak(node: Node, session: Session, Body(text): Body<String>) -> Result<(), HandlerError> {
    Ok(session.push(CommandId(9), format!("{} says {text}", node.name()).as_bytes())?)
}

#[node_handle]
async fn wait(Body(ms): Body<String>) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    Ok(())
}

#[node_handle]
async fn fail(Body(text): Body<String>) -> Result<(), HandlerError> {
    Err(HandlerError::new(text))
}

/// A room's updates, sent in ticks.
#[derive(Default)]
struct Updates(OnceLock<ffserver::ConflatedBroadcast>);

/// Updates `KEYS` keys as often as `TIMES`, all within a tick: the body is `KEYS TIMES`.
#[net_handle(3060)]
async fn updates(
    updates: State<Updates>,
    node: Node,
    session: Session,
    Body(text): Body<String>,
) -> Result<(), HandlerError> {
    session.join("watchers").await?;
    let (keys, times) = text.split_once(' ').ok_or_else(|| HandlerError::new("KEYS TIMES"))?;
    let latest = updates.0.get_or_init(|| node.broadcasts().every(Duration::from_millis(50)));
    let keys: u64 = keys.parse()?;
    for time in 0..times.parse::<u32>()? {
        for key in 0..keys {
            latest.to_group("watchers", CommandId(11), key, format!("{key} {time}"));
        }
    }
    Ok(())
}

pub(crate) fn net() -> App {
    App::new("mazenet").handlers(handlers![unknown, calls, greet]).on_session_lost_node(
        |_, session, lost| async move {
            // A client that is gone need not know.
            let _ = session.push(CommandId(9), format!("lost {lost}").as_bytes());
        },
    )
}

pub(crate) fn gate() -> App {
    App::new("mazegate").handlers(handlers![greet])
}

pub(crate) fn room() -> App {
    App::new("mazeroom").state(Visits::default()).state(Updates::default()).state_may_be_lost().handlers(
        handlers![visit, who, visit_here, visit_from_lobby, room_calls, updates, greet, speak, wait, fail],
    )
}

pub(crate) fn lobby() -> App {
    App::new("mazelobby").handlers(handlers![lobby_itself, greet])
}

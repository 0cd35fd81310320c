//! The apps that the tests try hooks with: every hook writes a line of the log when it begins and when it ends.

use std::time::Duration;

use ffserver::prelude::*;
use ffserver::tracing::info;
use tokio::sync::Notify;

/// The child whose hook waits, and how long: longer than a link lives without an answer.
const SLOW: &str = "slow";
const WAIT: Duration = Duration::from_secs(3);

/// The child whose hook waits so long and until a client has asked the child.
const ASKED: &str = "asked";

/// The child that the hook about it calls.
const CALLED: &str = "called";

async fn child_connected(node: Node, child: NodeName) {
    info!("event: {child} connected");
    if [SLOW, ASKED].contains(&child.as_str()) {
        tokio::time::sleep(WAIT).await;
    }
    if child.as_str() == ASKED
        && let Some(asked) = node.state::<Notify>()
    {
        asked.notified().await;
    }
    if child.as_str() == CALLED {
        let answer = node.call_children().call(child.as_str(), "hears", "from the hook").await;
        info!("event: {child} answered {answer:?}");
    }
    info!("event: {child} connected, the hook ends");
}

async fn child_lost(node: Node, child: NodeName) {
    let linked = node.children().contains(&child);
    info!("event: {child} lost, linked: {linked}");
}

#[remote_handle("gate")]
async fn hears(Body(text): Body<String>) -> String {
    format!("heard {text}")
}

/// The body is the child that is asked whether it hears.
#[root_handle]
async fn asks(
    children: Children,
    asked: State<Notify>,
    Body(child): Body<String>,
) -> Result<Bytes, CallError> {
    let answer = children.call(&child, "hears", "from a client").await?;
    asked.notify_one();
    Ok(answer)
}

#[root_handle]
async fn is_there(Body(text): Body<String>) -> String {
    format!("{text} is heard")
}

#[net_handle(1)]
async fn asks_through_gate(parents: Parents, Body(child): Body<Bytes>) -> Result<Bytes, CallError> {
    parents.call("gate", "asks", child).await
}

/// Waits as many milliseconds as the body says.
#[net_handle(2)]
async fn waits(Body(ms): Body<String>) -> Result<String, HandlerError> {
    info!("event: stop: a handler begins");
    tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    info!("event: stop: a handler ends");
    Ok(ms)
}

/// What is still there when the node stops: how many sessions, and whether its parent hears it.
async fn stopping(node: Node) -> Result<(), HandlerError> {
    let (name, pid, sessions) = (node.name().clone(), std::process::id(), node.sessions().len());
    let answer = node.call_parents().call("gate", "is_there", name.to_string()).await;
    let answer = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
    info!("event: stop: {name}, process {pid}, {sessions} sessions, {answer:?}");
    Ok(())
}

pub(crate) fn net() -> App {
    App::new("hooksnet")
        .handlers(handlers![asks_through_gate, waits])
        .on_session_closed(|_, _| async { info!("event: stop: a session has closed") })
        .on_stopping(stopping)
}

pub(crate) fn gate() -> App {
    App::new("hooksgate")
        .state(Notify::new())
        .handlers(handlers![asks, is_there])
        .on_child_connected(child_connected)
        .on_child_lost(child_lost)
}

pub(crate) fn game() -> App {
    App::new("hooksgame").handlers(handlers![hears])
}

/// A game node whose state goes to its successor.
pub(crate) fn frozen() -> App {
    App::new("hooksfrozen")
        .handlers(handlers![hears])
        .on_stopping(stopping)
        .freeze(1, |_| async { Ok(Vec::new()) })
        .thaw(|_, _| async { Ok(()) })
}

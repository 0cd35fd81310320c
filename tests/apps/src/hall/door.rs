//! The handlers that decide over logins: on the net node, on its gate, and on a node that its route leads to.

use std::time::Duration;

use ffserver::Route;
use ffserver::prelude::*;

/// The body is what it shall come to: a name that is let in, `refuse WHY`, `fail`, or `slow MS` before one of
/// these.
async fn decided(node: &Node, text: &str) -> Result<Verdict, HandlerError> {
    let mut rest = text;
    if let Some((ms, then)) = text.strip_prefix("slow ").and_then(|slow| slow.split_once(' ')) {
        tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
        rest = then;
    }
    match rest.split_once(' ') {
        Some(("refuse", why)) => Ok(Verdict::refuse(why)),
        None if rest == "fail" => Err(HandlerError::new("failed as asked")),
        _ => {
            let verdict = Verdict::accept(rest).attributes([("by", node.name().to_string())]);
            Ok(verdict.greeting(format!("welcome {rest}")))
        }
    }
}

#[net_handle(100)]
async fn net_decides(node: Node, Body(text): Body<String>) -> Result<Verdict, HandlerError> {
    decided(&node, &text).await
}

#[net_handle(101)]
async fn lets_gate_decide(parents: Parents, Body(text): Body<Bytes>) -> Result<Bytes, CallError> {
    parents.call("gate", "gate_decides", text).await
}

#[root_handle]
async fn gate_decides(node: Node, Body(text): Body<String>) -> Result<Verdict, HandlerError> {
    decided(&node, &text).await
}

#[net_handle(2110)]
async fn hall_decides(node: Node, Body(text): Body<String>) -> Result<Verdict, HandlerError> {
    decided(&node, &text).await
}

pub(super) fn net() -> Vec<Route> {
    handlers![net_decides, lets_gate_decide]
}

pub(super) fn gate() -> Vec<Route> {
    handlers![gate_decides]
}

pub(super) fn hall() -> Vec<Route> {
    handlers![hall_decides]
}

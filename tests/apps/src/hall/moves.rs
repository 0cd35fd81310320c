//! The handlers that move sessions, and those that show where they are.

use std::time::Duration;

use ffserver::Route;
use ffserver::prelude::*;

/// The body is `NODE EXTRA`.
async fn moved(session: &Session, text: &str) -> Result<String, HandlerError> {
    let (node, extra) = text.split_once(' ').ok_or_else(|| HandlerError::new("NODE EXTRA is expected"))?;
    let moved = session.move_to(&NodeName::try_from(node)?, extra).await;
    moved.map_err(|error| HandlerError::new(error.to_string()))?;
    Ok("moves".to_owned())
}

#[net_handle(30)]
async fn net_moves(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    moved(&session, &text).await
}

#[net_handle(2111)]
async fn hall_moves(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    moved(&session, &text).await
}

/// The same, and ends a while later.
#[net_handle(2112)]
async fn hall_moves_slowly(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    let answer = moved(&session, &text).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(answer)
}

/// Where this runs, and what was sent; some take a moment.
#[net_handle(2113)]
async fn hall_says_where(node: Node, Body(text): Body<String>) -> String {
    if text.ends_with('7') {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    format!("{} {text}", node.name())
}

pub(super) fn net() -> Vec<Route> {
    handlers![net_moves]
}

pub(super) fn hall() -> Vec<Route> {
    handlers![hall_moves, hall_moves_slowly, hall_says_where]
}

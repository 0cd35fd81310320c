//! What the tests try routing with: gates that handle nothing, and rooms far away that say who they are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

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

pub(crate) fn net() -> App {
    App::new("mazenet").handlers(handlers![unknown]).on_session_lost_node(|_, session, lost| async move {
        // A client that is gone need not know.
        let _ = session.push(CommandId(9), format!("lost {lost}").as_bytes());
    })
}

pub(crate) fn gate() -> App {
    App::new("mazegate")
}

pub(crate) fn room() -> App {
    App::new("mazeroom").state(Visits::default()).handlers(handlers![
        visit,
        who,
        visit_here,
        visit_from_lobby
    ])
}

pub(crate) fn lobby() -> App {
    App::new("mazelobby").handlers(handlers![lobby_itself])
}

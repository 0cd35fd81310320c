//! RedRabbit's chat room: log in with a name, a welcome, who is there, chat to all, who has left. Sessions,
//! logins and groups as docs/sessions.md tells them; the config is examples/chat/config.json.
//!
//! ```text
//! client ──1 a name────▶ room: a Verdict                      ◀── the answer: a greeting
//! client ──2 a text────▶ room                                 ◀── 12 to all: {"from", "text", "at"}
//!                                                             ◀── 10 to all: {"text", "at"}: somebody came, or left
//!                                                             ◀── 11 to all: the names, sorted
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ffserver::SessionId;
use ffserver::prelude::*;
use rocket::response::content::RawHtml;
use rocket::serde::Serialize;

const NOTICE: CommandId = CommandId(10);
const ONLINE: CommandId = CommandId(11);
const SAID: CommandId = CommandId(12);
/// The group of all who are in.
const EVERYBODY: &str = "everybody";
const NAME_CHARS_MAX: usize = 24;
const TEXT_CHARS_MAX: usize = 500;

#[derive(Serialize)]
#[serde(crate = "rocket::serde")]
struct Notice<'a> {
    text: &'a str,
    at: u64,
}

#[derive(Serialize)]
#[serde(crate = "rocket::serde")]
struct Said<'a> {
    from: &'a str,
    text: &'a str,
    at: u64,
}

/// Who is in the room.
#[derive(Default)]
struct Room(Mutex<BTreeMap<SessionId, String>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock().values().cloned().collect();
        names.sort();
        names
    }
}

/// The message that comes first: the name is all that it takes.
#[net_handle(1)]
async fn logs_in(Body(name): Body<String>) -> Verdict {
    let name = name.trim();
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Verdict::refuse(format!("a name has 1 to {NAME_CHARS_MAX} letters"));
    }
    Verdict::accept(name).greeting(format!("welcome, {name}"))
}

#[net_handle(2)]
async fn says(node: Node, session: Session, Body(text): Body<String>) -> Result<(), HandlerError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(HandlerError::new(format!("a text has 1 to {TEXT_CHARS_MAX} letters")));
    }
    // Who talks at once may be faster than `comes`, and shall hear himself.
    if node.state::<Room>().is_some_and(|room| !room.lock().contains_key(&session.id())) {
        session.join(EVERYBODY).await?;
    }
    let from = session.user().unwrap_or_default();
    to_all(&node, SAID, &Said { from: &from, text, at: node.clock().now_ms() });
    Ok(())
}

fn to_all(node: &Node, command: CommandId, message: &impl Serialize) {
    // Texts, numbers and lists always have a form.
    let body = rocket::serde::json::to_string(message).unwrap_or_default();
    node.broadcasts().to_group(EVERYBODY, command, body.as_bytes());
}

async fn comes(node: Node, session: Session) {
    let (Some(room), Some(name)) = (node.state::<Room>(), session.user()) else { return };
    if session.join(EVERYBODY).await.is_err() {
        return; // It has left already.
    }
    room.lock().insert(session.id(), name.clone());
    to_all(&node, NOTICE, &Notice { text: &format!("{name} is online"), at: node.clock().now_ms() });
    to_all(&node, ONLINE, &room.names());
}

async fn leaves(node: Node, session: Session) {
    let Some(room) = node.state::<Room>() else { return };
    let left = room.lock().remove(&session.id());
    if let Some(name) = left {
        to_all(&node, NOTICE, &Notice { text: &format!("{name} is offline"), at: node.clock().now_ms() });
        to_all(&node, ONLINE, &room.names());
    }
}

/// Who is in stays in when the room is replaced.
fn frozen(node: &Node) -> Result<Vec<u8>, HandlerError> {
    let room = node.state::<Room>().ok_or_else(|| HandlerError::new("no room"))?;
    let members: Vec<(u64, String)> = room.lock().iter().map(|(id, name)| (id.0, name.clone())).collect();
    Ok(rocket::serde::json::to_string(&members)?.into_bytes())
}

fn thawed(node: &Node, bytes: &[u8]) -> Result<(), HandlerError> {
    let room = node.state::<Room>().ok_or_else(|| HandlerError::new("no room"))?;
    let members: Vec<(u64, String)> = rocket::serde::json::from_slice(bytes)?;
    *room.lock() = members.into_iter().map(|(id, name)| (SessionId(id), name)).collect();
    Ok(())
}

/// The page, which connects to the node's netport.
#[rocket::get("/")]
fn page(node: &rocket::State<Node>) -> RawHtml<String> {
    let port = node.config().netport.map_or(0, |at| at.port());
    RawHtml(include_str!("chat/page.html").replace("NETPORT", &port.to_string()))
}

pub(crate) fn net() -> App {
    App::new("chatnet").web("/", rocket::routes![page])
}

pub(crate) fn room() -> App {
    App::new("chatroom")
        .state(Room::default())
        .handlers(handlers![logs_in, says])
        .on_session_verified(comes)
        .on_session_closed(leaves)
        .freeze(1, |node| async move { frozen(&node) })
        .thaw(|node, frozen| async move { thawed(&node, &frozen.bytes) })
}

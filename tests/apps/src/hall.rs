//! The apps that the tests try sessions with: what every node of a cluster sees of a client, and does to it.

mod commands;
mod door;
mod moves;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ffserver::SessionId;
use ffserver::prelude::*;
use ffserver::tracing::info;
use rocket::serde::Serialize;

/// A session as this node sees it.
#[derive(Serialize)]
#[serde(crate = "rocket::serde")]
struct Seen {
    node: NodeName,
    pid: u32,
    session: String,
    address: String,
    user: Option<String>,
    attributes: BTreeMap<String, String>,
}

fn seen(node: &Node, session: &Session) -> Json<Seen> {
    Json(Seen {
        node: node.name().clone(),
        pid: std::process::id(),
        session: session.id().to_string(),
        address: session.address().to_string(),
        user: session.user(),
        attributes: session.attributes(),
    })
}

/// The body is `KEY VALUE`, or `KEY` to remove it.
async fn note(session: &Session, text: &str) -> Result<String, HandlerError> {
    match text.split_once(' ') {
        Some((key, value)) => session.set(key, value).await?,
        None => session.unset(text).await?,
    }
    Ok(text.to_owned())
}

#[net_handle(20)]
async fn net_sees(node: Node, session: Session) -> Json<Seen> {
    seen(&node, &session)
}

#[net_handle(21)]
async fn net_notes(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    note(&session, &text).await
}

/// What the gate sees, when the net node asks it on the client's behalf.
#[net_handle(22)]
async fn asks_gate(parents: Parents) -> Result<Bytes, CallError> {
    parents.call("gate", "gate_sees", "").await
}

#[root_handle]
async fn gate_sees(node: Node, session: Session) -> Json<Seen> {
    seen(&node, &session)
}

/// Any of the halls: its route is stateless.
#[net_handle(2000)]
async fn any_hall_sees(node: Node, session: Session) -> Json<Seen> {
    seen(&node, &session)
}

#[net_handle(2101)]
async fn hall_sees(node: Node, session: Session) -> Json<Seen> {
    seen(&node, &session)
}

#[net_handle(2102)]
async fn hall_notes(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    note(&session, &text).await
}

#[net_handle(2103)]
async fn hall_binds(session: Session, Body(user): Body<String>) -> Result<String, HandlerError> {
    session.bind(user.as_str()).await.map_err(|error| HandlerError::new(error.to_string()))?;
    Ok(user)
}

/// Pushes as many numbers as the body says, under command 9, and then answers.
#[net_handle(2104)]
async fn hall_pushes(session: Session, Body(count): Body<String>) -> Result<&'static str, HandlerError> {
    for n in 0..count.parse::<u32>()? {
        session.push(CommandId(9), n.to_string().as_bytes())?;
    }
    Ok("pushed")
}

/// The body is `FROM TO`: pushes the numbers from FROM on and before TO, under command 9, a moment after each other,
/// and then answers the body.
#[net_handle(2114)]
async fn hall_pushes_slowly(session: Session, Body(text): Body<String>) -> Result<String, HandlerError> {
    let (from, to) = text.split_once(' ').ok_or_else(|| HandlerError::new("FROM TO is expected"))?;
    for n in from.parse::<u32>()?..to.parse()? {
        session.push(CommandId(9), n.to_string().as_bytes())?;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(text)
}

#[net_handle(2105)]
async fn hall_closes(session: Session, Body(reason): Body<String>) {
    session.close(&reason);
}

/// The body is `SESSION TEXT`: pushes the text to that session, if this hall knows it.
#[net_handle(2106)]
async fn hall_pushes_to(
    node: Node,
    kept: State<Kept>,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    let (id, text) = text.split_once(' ').ok_or_else(|| HandlerError::new("SESSION TEXT is expected"))?;
    let id = SessionId(u64::from_str_radix(id, 16)?);
    let session = node.session(id).or_else(|| kept.lock().get(&id).cloned());
    let session = session.ok_or_else(|| HandlerError::new("not known here"))?;
    Ok(match session.push(CommandId(9), text.as_bytes()) {
        Ok(()) => "pushed".to_owned(),
        Err(error) => format!("{error:?}"),
    })
}

#[net_handle(2107)]
async fn hall_joins(session: Session, Body(group): Body<String>) -> Result<String, HandlerError> {
    session.join(&group).await?;
    Ok(group)
}

#[net_handle(2108)]
async fn hall_leaves(session: Session, Body(group): Body<String>) -> Result<String, HandlerError> {
    session.leave(&group).await?;
    Ok(group)
}

/// The body is `WHO COUNT BYTES`: sends as many messages under command 10, each of so many bytes that begin with
/// its number. WHO is `all`, `net:NAME`, `group:NAME`, or session ids with commas between them. Answers how many
/// net nodes they go to.
#[net_handle(2109)]
async fn hall_broadcasts(node: Node, Body(text): Body<String>) -> Result<String, HandlerError> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [who, count, bytes] = parts[..] else { return Err(HandlerError::new("WHO COUNT BYTES is expected")) };
    let (broadcasts, bytes) = (node.broadcasts(), bytes.parse::<usize>()?);
    let mut nets = 0;
    for n in 0..count.parse::<u32>()? {
        let body = format!("{n:<bytes$}");
        nets = match who.split_once(':') {
            None if who == "all" => broadcasts.to_all(CommandId(10), body.as_bytes()),
            Some(("net", name)) => {
                broadcasts.to_all_of(&NodeName::try_from(name)?, CommandId(10), body.as_bytes())?;
                1
            }
            Some((_, group)) => broadcasts.to_group(group, CommandId(10), body.as_bytes()),
            None => {
                let ids = who.split(',').map(|id| u64::from_str_radix(id, 16).map(SessionId));
                broadcasts.to_sessions(&ids.collect::<Result<Vec<_>, _>>()?, CommandId(10), body.as_bytes())
            }
        };
    }
    Ok(nets.to_string())
}

/// The body is `MS COUNT`: after a while sends as many messages to all clients of the cluster, under command 10.
#[net_handle(23)]
async fn net_broadcasts_later(node: Node, Body(text): Body<String>) -> Result<String, HandlerError> {
    let (ms, count) = text.split_once(' ').ok_or_else(|| HandlerError::new("MS COUNT is expected"))?;
    tokio::time::sleep(std::time::Duration::from_millis(ms.parse()?)).await;
    for n in 0..count.parse::<u32>()? {
        node.broadcasts().to_all(CommandId(10), n.to_string().as_bytes());
    }
    info!("event: {} sent {count}", node.name());
    Ok(text)
}

/// The body is MS: keeps the sessions that are here, and after a while pushes to each under command 9.
#[net_handle(24)]
async fn net_pushes_later(node: Node, Body(ms): Body<String>) -> Result<String, HandlerError> {
    let here = node.sessions();
    tokio::time::sleep(std::time::Duration::from_millis(ms.parse()?)).await;
    for session in here {
        session.push(CommandId(9), b"kept")?;
    }
    Ok(ms)
}

/// The sessions that were ever opened here, as apps keep them.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<SessionId, Session>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every event is a line of the log.
fn with_events(app: App) -> App {
    app.on_session_opened(|node, session| async move {
        if let Some(kept) = node.state::<Kept>() {
            kept.lock().insert(session.id(), session.clone());
        }
        info!("event: {} opened {}", node.name(), session.id());
    })
    .on_session_verified(|node, session| async move {
        info!("event: {} verified {}", node.name(), session.id());
    })
    .on_session_entered(|node, session, entered| async move {
        if let Some(ms) = entered.extra.strip_prefix(b"slow ") {
            let ms = String::from_utf8_lossy(ms).parse().unwrap_or(0);
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        }
        let (from, extra) = (entered.from, String::from_utf8_lossy(&entered.extra).into_owned());
        info!("event: {} entered {} from {from}: {extra}", node.name(), session.id());
    })
    .on_session_not_moved(|node, session, failed| async move {
        let (to, extra) = (failed.to, String::from_utf8_lossy(&failed.extra).into_owned());
        info!("event: {} not moved {} to {to}: {extra}", node.name(), session.id());
    })
    .on_session_left(|node, session| async move {
        info!("event: {} left {}", node.name(), session.id());
    })
    .on_session_closed(|node, session| async move {
        info!("event: {} closed {}", node.name(), session.id());
    })
}

pub(crate) fn net() -> App {
    with_events(
        App::new("hallnet")
            .handlers(handlers![net_sees, net_notes, asks_gate, net_broadcasts_later, net_pushes_later])
            .handlers(door::net())
            .handlers(moves::net()),
    )
}

pub(crate) fn gate() -> App {
    with_events(
        App::new("hallgate").handlers(handlers![gate_sees]).handlers(door::gate()).handlers(commands::all()),
    )
}

pub(crate) fn hall() -> App {
    with_events(
        App::new("hall")
            .state(Kept::default())
            .handlers(commands::all())
            .handlers(door::hall())
            .handlers(moves::hall())
            .handlers(handlers![
                any_hall_sees,
                hall_sees,
                hall_notes,
                hall_binds,
                hall_pushes,
                hall_pushes_slowly,
                hall_closes,
                hall_pushes_to,
                hall_joins,
                hall_leaves,
                hall_broadcasts,
            ]),
    )
}

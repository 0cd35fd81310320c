//! The routes: what can be read, and the commands.

use std::io::Cursor;
use std::sync::Arc;

use ffproto::control::LogOrder;
use fftelemetry::metrics::CONTENT_TYPE;
use rocket::http::{Accept, ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::stream::{Event, EventStream};
use rocket::response::{Responder, Response, Result};
use rocket::{Route, Shutdown, State, get, post, routes};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

use super::guard::{Operator, Reader};
use super::{Site, page};
use crate::supervisor::Order;
use crate::supervisor::machine::{Answer, NodeView, Outcome, Refused};

/// Everything that is mounted.
pub(super) fn all() -> Vec<Route> {
    routes![
        index,
        status,
        healthz,
        metrics,
        events,
        node, //
        stop,
        reload,
        rotate,
        log,
        node_log,
        stop_node,
        start_node,
        restart_node,
        reload_node, //
        get_stop,
        get_reload,
        detach,
        get_detach,
        get_stop_node,
        get_start_node,
        get_restart_node,
        get_reload_node,
    ]
}

/// An answer: JSON for programs, a page for browsers where there is one.
#[derive(Debug)]
pub(super) struct Reply {
    status: Status,
    json: String,
    html: Option<String>,
}

impl Reply {
    fn ok(value: &impl Serialize) -> Self {
        Self { status: Status::Ok, json: pretty(value), html: None }
    }

    /// A refusal, in one sentence or in lines.
    pub(super) fn error(status: Status, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let faults = if lines.len() > 1 { lines.as_slice() } else { &[] };
        let error = lines.last().copied().unwrap_or(text);
        let json = pretty(&Failed { ok: false, error, faults });
        Self { status, json, html: Some(page::refusal(text)) }
    }

    /// What became of a command.
    fn outcome(answer: Answer, accepted: Status) -> Self {
        match answer {
            Ok(nodes) => {
                let ok = nodes.iter().all(|node| node.ok);
                let status = if ok { accepted } else { Status::InternalServerError };
                let html = Some(page::outcomes(&nodes));
                Self { status, json: pretty(&Done { ok, nodes: &nodes }), html }
            }
            Err(refused) => {
                let status = match refused {
                    Refused::Unknown { .. } => Status::NotFound,
                    Refused::Config(_) => Status::UnprocessableEntity,
                    Refused::Busy(_) | Refused::Stopping | Refused::Conflict(_) => Status::Conflict,
                };
                Self::error(status, &refused.to_string())
            }
        }
    }
}

/// The outcome of a command, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    nodes: &'a [Outcome],
}

/// Why nothing was done, as JSON.
#[derive(Serialize)]
struct Failed<'a> {
    ok: bool,
    error: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    faults: &'a [&'a str],
}

/// A node, as JSON.
#[derive(Serialize)]
struct Detail<'a> {
    node: &'a NodeView,
    lines: &'a [String],
}

/// JSON as people read it, with a line break at the end for their terminal.
fn pretty(value: &impl Serialize) -> String {
    // Nothing that is shown has a key that is no text, which is the only way to fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

impl<'r> Responder<'r, 'static> for Reply {
    fn respond_to(self, request: &'r Request<'_>) -> Result<'static> {
        // A browser prefers HTML and says so; curl takes anything.
        let browser =
            request.accept().is_some_and(|accept: &Accept| accept.preferred().media_type().is_html());
        let (kind, body) = match self.html {
            Some(html) if browser => (ContentType::HTML, html),
            _ => (ContentType::JSON, self.json),
        };
        let mut response = Response::build();
        response
            .status(self.status)
            .header(kind)
            .header(Header::new("Cache-Control", "no-store"))
            .sized_body(body.len(), Cursor::new(body));
        if self.status == Status::Unauthorized {
            response.header_adjoin(Header::new("WWW-Authenticate", "Bearer realm=\"master\""));
            response.header_adjoin(Header::new("WWW-Authenticate", "Basic realm=\"master\""));
        }
        response.ok()
    }
}

#[get("/")]
fn index(_reader: Reader, site: &State<Site>) -> Reply {
    let view = site.handle.view();
    let html = page::index(&view, |node| site.handle.lines(node));
    // Whoever asks for `/` gets the page, curl too.
    Reply { html: Some(html), ..Reply::ok(&*view) }
}

#[get("/status")]
fn status(_reader: Reader, site: &State<Site>) -> Reply {
    Reply::ok(&*site.handle.view())
}

/// The metrics of every node and of the master.
#[get("/metrics")]
async fn metrics(_reader: Reader, site: &State<Site>) -> (ContentType, String) {
    let kind = ContentType::parse_flexible(CONTENT_TYPE).unwrap_or(ContentType::Plain);
    (kind, site.handle.metrics().await)
}

#[get("/healthz")]
fn healthz(site: &State<Site>) -> Reply {
    match site.handle.view().unhealthy() {
        None => Reply::ok(&Done { ok: true, nodes: &[] }),
        // Without a token only the fact is told: this page is open to everybody.
        Some(_) if site.tokens.are_asked_for() => {
            Reply::error(Status::ServiceUnavailable, "not healthy: see /status")
        }
        Some(why) => Reply::error(Status::ServiceUnavailable, &why),
    }
}

/// What happens, as it happens, from a whole `/status` on. A reader that does not keep up misses the oldest
/// and is told how many.
#[get("/events")]
fn events(
    _reader: Reader,
    site: &State<Site>,
    mut end: Shutdown,
) -> std::result::Result<EventStream![], Reply> {
    let Ok(place) = Arc::clone(&site.readers).try_acquire_owned() else {
        return Err(Reply::error(Status::ServiceUnavailable, "too many read the events already"));
    };
    let mut told = site.handle.events();
    // One line, as every event is.
    let status = serde_json::to_string(&*site.handle.view()).unwrap_or_default();
    Ok(EventStream! {
        let _place = place;
        yield Event::data(status).event("status");
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = &mut end => return,
            };
            match next {
                Ok(told) => {
                    yield Event::data(told.json.clone()).event(told.kind).id(told.id.to_string());
                }
                Err(RecvError::Lagged(missed)) => {
                    yield Event::data(format!("{{\"events\":{missed}}}")).event("skipped");
                }
                Err(RecvError::Closed) => return,
            }
        }
    })
}

#[get("/nodes/<name>")]
fn node(_reader: Reader, site: &State<Site>, name: &str) -> Reply {
    let view = site.handle.view();
    match view.node(name) {
        Some(node) => {
            let lines = site.handle.lines(name);
            let html = Some(page::node(node, &lines));
            Reply { html, ..Reply::ok(&Detail { node, lines: &lines }) }
        }
        None => Reply::error(Status::NotFound, "there is no such node; `/status` lists them"),
    }
}

/// An empty text is what was shown at the start.
fn fault_of_levels(level: &str) -> Option<String> {
    if level.is_empty() { None } else { ffconfig::fault_of_levels(level) }
}

impl Site {
    async fn command(&self, order: Order) -> Reply {
        let later = matches!(order, Order::StopAll | Order::Detach);
        let accepted = if later { Status::Accepted } else { Status::Ok };
        Reply::outcome(self.handle.order(order).await, accepted)
    }
}

/// Each command by POST, and by GET for those who `curl` it.
macro_rules! commands {
    ($($post:ident $get:ident $path:literal ($($name:ident)?) $order:expr;)*) => { $(
        #[post($path)]
        async fn $post(_operator: Operator, site: &State<Site>, $($name: &str)?) -> Reply {
            site.command($order).await
        }
        #[get($path)]
        async fn $get(_operator: Operator, site: &State<Site>, $($name: &str)?) -> Reply {
            site.command($order).await
        }
    )* };
}

/// By POST alone: no page of another site makes one.
#[post("/rotate")]
async fn rotate(_operator: Operator, site: &State<Site>) -> Reply {
    site.command(Order::Rotate).await
}

/// The levels of the master's own log, from now on.
#[post("/log?<level>")]
fn log(_operator: Operator, level: &str) -> Reply {
    if let Some(fault) = fault_of_levels(level) {
        return Reply::error(Status::UnprocessableEntity, &fault);
    }
    let Some(log) = fftelemetry::current() else { return Reply::ok(&Done { ok: true, nodes: &[] }) };
    match log.set_levels(level) {
        Ok(()) => {
            info!("the log shows {} from now on", log.levels());
            Reply::ok(&Done { ok: true, nodes: &[] })
        }
        Err(error) => Reply::error(Status::UnprocessableEntity, &error.to_string()),
    }
}

/// The levels of a node's log, from now on, for as long as its process lives.
#[post("/nodes/<name>/log?<level>")]
fn node_log(_operator: Operator, site: &State<Site>, name: &str, level: &str) -> Reply {
    if let Some(fault) = fault_of_levels(level) {
        return Reply::error(Status::UnprocessableEntity, &fault);
    }
    let view = site.handle.view();
    let Some(node) = view.node(name) else {
        return Reply::error(Status::NotFound, "there is no such node; `/status` lists them");
    };
    match site.handle.order_about_logs(Some(&node.name), &LogOrder::Levels(level.to_owned())) {
        0 => Reply::error(
            Status::Conflict,
            "no process of the node takes this: it is not linked, or of an older release",
        ),
        _ => Reply::ok(&Done { ok: true, nodes: &[] }),
    }
}

commands! {
    stop get_stop "/stop" () Order::StopAll;
    reload get_reload "/reload" () Order::Reload(None);
    detach get_detach "/detach" () Order::Detach;
    stop_node get_stop_node "/nodes/<name>/stop" (name) Order::Stop(name.into());
    start_node get_start_node "/nodes/<name>/start" (name) Order::Start(name.into());
    restart_node get_restart_node "/nodes/<name>/restart" (name) Order::Restart(name.into());
    reload_node get_reload_node "/nodes/<name>/reload" (name) Order::Reload(Some(name.into()));
}

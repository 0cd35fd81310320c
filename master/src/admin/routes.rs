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
use tokio::time::Instant;

use super::guard::{Auditor, May, MayLook, Operator, Reader};
use super::who::Denied;
use super::{Site, page, refresh};
use crate::audit::Entry;
use crate::supervisor::machine::{Answer, NodeView, Outcome, Refused};
use crate::supervisor::{Order, result_of};

/// Entries of the audit that are shown to who does not say how many.
const AUDIT_SHOWN: usize = 100;

/// Everything that is mounted.
pub(super) fn all() -> Vec<Route> {
    routes![
        index,
        status,
        healthz,
        metrics,
        events,
        audit,
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
    denied: Option<Denied>,
    /// For the audit: what became of it, in one line.
    result: String,
}

impl Reply {
    fn ok(value: &impl Serialize) -> Self {
        Self { status: Status::Ok, json: pretty(value), html: None, denied: None, result: "done".into() }
    }

    /// An answer with a page of its own.
    pub(super) fn with(status: Status, value: &impl Serialize, html: String) -> Self {
        Self { status, html: Some(html), ..Self::ok(value) }
    }

    /// A refusal, in one sentence or in lines.
    pub(super) fn error(status: Status, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let faults = if lines.len() > 1 { lines.as_slice() } else { &[] };
        let error = lines.last().copied().unwrap_or(text);
        let json = pretty(&Failed { ok: false, error, faults });
        let result = format!("refused: {text}");
        Self { status, json, html: Some(page::refusal(text)), denied: None, result }
    }

    /// With another sentence for the audit.
    pub(super) fn saying(self, result: impl Into<String>) -> Self {
        Self { result: result.into(), ..self }
    }

    /// What became of a command.
    fn outcome(answer: Answer, accepted: Status) -> Self {
        let result = result_of(&answer);
        let reply = match answer {
            Ok(nodes) => {
                let ok = nodes.iter().all(|node| node.ok);
                let status = if ok { accepted } else { Status::InternalServerError };
                let html = Some(page::outcomes(&nodes));
                Self { status, html, ..Self::ok(&Done { ok, nodes: &nodes }) }
            }
            Err(refused) => {
                let status = match refused {
                    Refused::Unknown { .. } => Status::NotFound,
                    Refused::Config(_) => Status::UnprocessableEntity,
                    Refused::Busy(_) | Refused::Stopping | Refused::Conflict(_) => Status::Conflict,
                };
                Self::error(status, &refused.to_string())
            }
        };
        reply.saying(result)
    }
}

/// Why somebody may not.
impl From<Denied> for Reply {
    fn from(denied: Denied) -> Self {
        let reply = Self::error(Status::new(denied.status()), &denied.sentence());
        Self { denied: Some(denied), ..reply }
    }
}

/// What a route answers: it, or why not.
pub(super) type Answered = std::result::Result<Reply, Reply>;

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

/// The audit, as JSON.
#[derive(Serialize)]
struct Audited {
    /// The latest first.
    entries: Vec<Entry>,
}

/// A node, as JSON.
#[derive(Serialize)]
struct Detail<'a> {
    node: &'a NodeView,
    lines: &'a [String],
    /// How many lines it has printed in all, since this master began.
    printed: u64,
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
            // A page of another site shows none of this in a frame of its own, where clicks would be its own.
            .header(Header::new("X-Frame-Options", "DENY"))
            .header(Header::new(
                "Content-Security-Policy",
                "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
            ))
            .header(Header::new("X-Content-Type-Options", "nosniff"))
            .header(Header::new("Referrer-Policy", "same-origin"))
            .header(Header::new("Cross-Origin-Resource-Policy", "same-origin"))
            .sized_body(body.len(), Cursor::new(body));
        if self.status == Status::Unauthorized {
            response.header_adjoin(Header::new("WWW-Authenticate", "Bearer realm=\"master\""));
            response.header_adjoin(Header::new("WWW-Authenticate", "Basic realm=\"master\""));
        }
        match self.denied {
            Some(Denied::Later { wait_s }) => {
                response.header(Header::new("Retry-After", wait_s.to_string()));
            }
            Some(Denied::Get) => {
                response.header(Header::new("Allow", "POST"));
            }
            _ => {}
        }
        response.ok()
    }
}

#[get("/")]
fn index(reader: May<Reader<'_>>) -> Answered {
    let site = reader?.0;
    let view = site.handle.view();
    let html = page::index(&view, |node| site.handle.lines(node));
    // Whoever asks for `/` gets the page, curl too.
    Ok(Reply { html: Some(html), ..Reply::ok(&*view) })
}

#[get("/status")]
fn status(reader: May<Reader<'_>>) -> Answered {
    Ok(Reply::ok(&*reader?.0.handle.view()))
}

/// The metrics of every node and of the master.
#[get("/metrics")]
async fn metrics(reader: May<Reader<'_>>) -> std::result::Result<(ContentType, String), Reply> {
    let site = reader?.0;
    let kind = ContentType::parse_flexible(CONTENT_TYPE).unwrap_or(ContentType::Plain);
    Ok((kind, site.handle.metrics().await))
}

#[get("/healthz")]
fn healthz(may: MayLook, site: &State<Site>) -> Reply {
    match site.handle.view().unhealthy() {
        None => Reply::ok(&Done { ok: true, nodes: &[] }),
        Some(why) if may.0 => Reply::error(Status::ServiceUnavailable, &why),
        // Strangers are told the fact alone.
        Some(_) => Reply { status: Status::ServiceUnavailable, ..Reply::ok(&Done { ok: false, nodes: &[] }) },
    }
}

/// Who has commanded what, and who was refused: the latest first.
#[get("/audit?<limit>")]
fn audit(auditor: May<Auditor<'_>>, limit: Option<usize>) -> Answered {
    let entries = auditor?.0.handle.audit.last(limit.unwrap_or(AUDIT_SHOWN));
    let html = Some(page::audit(&entries));
    Ok(Reply { html, ..Reply::ok(&Audited { entries }) })
}

/// What happens, as it happens, from a whole `/status` on. A reader that does not keep up misses the oldest
/// and is told how many.
#[get("/events")]
fn events(reader: May<Reader<'_>>, mut end: Shutdown) -> std::result::Result<EventStream![], Reply> {
    let site = reader?.0;
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
fn node(reader: May<Reader<'_>>, name: &str) -> Answered {
    let site = reader?.0;
    let view = site.handle.view();
    match view.node(name) {
        Some(node) => {
            let (lines, printed) = site.handle.lines_printed(name);
            let html = Some(page::node(node, &lines));
            Ok(Reply { html, ..Reply::ok(&Detail { node, lines: &lines, printed }) })
        }
        None => Err(Reply::error(Status::NotFound, "there is no such node; `/status` lists them")),
    }
}

/// An empty text is what was shown at the start.
fn fault_of_levels(level: &str) -> Option<String> {
    if level.is_empty() { None } else { ffconfig::fault_of_levels(level) }
}

impl Operator<'_> {
    async fn command(self, order: Order) -> Reply {
        let later = matches!(order, Order::StopAll | Order::Detach);
        let accepted = if later { Status::Accepted } else { Status::Ok };
        if let (Order::Reload(_), Some(certificates)) = (&order, &self.site.certificates) {
            refresh(certificates);
        }
        let begun = Instant::now();
        let reply = Reply::outcome(self.site.handle.order(order).await, accepted);
        self.audited(begun, reply)
    }

    /// Writes down what became of the operator's command.
    pub(super) fn audited(self, begun: Instant, reply: Reply) -> Reply {
        let (status, result) = (reply.status.code, reply.result.clone());
        self.site.handle.audit.command(&self.caller, status, result, begun.elapsed());
        reply
    }
}

/// Each command by POST, and by GET for those who `curl` it.
macro_rules! commands {
    ($($post:ident $get:ident $path:literal ($($name:ident)?) $order:expr;)*) => { $(
        #[post($path)]
        async fn $post(operator: May<Operator<'_>>, $($name: &str)?) -> Answered {
            Ok(operator?.command($order).await)
        }
        #[get($path)]
        async fn $get(operator: May<Operator<'_>>, $($name: &str)?) -> Answered {
            Ok(operator?.command($order).await)
        }
    )* };
}

/// By POST alone: no page of another site makes one.
#[post("/rotate")]
async fn rotate(operator: May<Operator<'_>>) -> Answered {
    Ok(operator?.command(Order::Rotate).await)
}

/// The levels of the master's own log, from now on.
#[post("/log?<level>")]
fn log(operator: May<Operator<'_>>, level: &str) -> Answered {
    let operator = operator?;
    Ok(operator.audited(Instant::now(), own_levels(level)))
}

fn own_levels(level: &str) -> Reply {
    if let Some(fault) = fault_of_levels(level) {
        return Reply::error(Status::UnprocessableEntity, &fault);
    }
    let done = Reply::ok(&Done { ok: true, nodes: &[] });
    let Some(log) = fftelemetry::current() else { return done };
    match log.set_levels(level) {
        Ok(()) => done.saying(format!("the log shows {} from now on", log.levels())),
        Err(error) => Reply::error(Status::UnprocessableEntity, &error.to_string()),
    }
}

/// The levels of a node's log, from now on, for as long as its process lives.
#[post("/nodes/<name>/log?<level>")]
fn node_log(operator: May<Operator<'_>>, name: &str, level: &str) -> Answered {
    let operator = operator?;
    let reply = operator.site.node_levels(name, level);
    Ok(operator.audited(Instant::now(), reply))
}

impl Site {
    fn node_levels(&self, name: &str, level: &str) -> Reply {
        if let Some(fault) = fault_of_levels(level) {
            return Reply::error(Status::UnprocessableEntity, &fault);
        }
        let view = self.handle.view();
        let Some(node) = view.node(name) else {
            return Reply::error(Status::NotFound, "there is no such node; `/status` lists them");
        };
        match self.handle.order_about_logs(Some(&node.name), &LogOrder::Levels(level.to_owned())) {
            0 => Reply::error(
                Status::Conflict,
                "no process of the node takes this: it is not linked, or of an older release",
            ),
            _ => {
                let shown = if level.is_empty() { "what it showed at its start" } else { level };
                Reply::ok(&Done { ok: true, nodes: &[] }).saying(format!("its log is to show {shown}"))
            }
        }
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

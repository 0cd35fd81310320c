//! The routes: what can be read, and the commands.

use std::io::Cursor;

use rocket::http::{Accept, ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::{Responder, Response, Result};
use rocket::{Route, State, get, post, routes};
use serde_json::{Value, json};

use super::guard::{Operator, Reader};
use super::{Site, page};
use crate::supervisor::Order;
use crate::supervisor::machine::{Answer, Refused};

/// Everything that is mounted.
pub(super) fn all() -> Vec<Route> {
    routes![
        index,
        status,
        healthz,
        node, //
        stop,
        reload,
        stop_node,
        start_node,
        restart_node,
        reload_node, //
        get_stop,
        get_reload,
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
    json: Value,
    html: Option<String>,
}

impl Reply {
    fn ok(json: Value) -> Self {
        Self { status: Status::Ok, json, html: None }
    }

    /// A refusal, in one sentence or in lines.
    pub(super) fn error(status: Status, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let json = match lines.as_slice() {
            [_one] => json!({ "ok": false, "error": text }),
            _ => json!({ "ok": false, "error": lines.last(), "faults": lines }),
        };
        Self { status, json, html: Some(page::refusal(text)) }
    }

    /// What became of a command.
    fn outcome(answer: Answer, accepted: Status) -> Self {
        match answer {
            Ok(nodes) => {
                let ok = nodes.iter().all(|node| node.ok);
                let status = if ok { accepted } else { Status::InternalServerError };
                let html = Some(page::outcomes(&nodes));
                Self { status, json: json!({ "ok": ok, "nodes": nodes }), html }
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

impl<'r> Responder<'r, 'static> for Reply {
    fn respond_to(self, request: &'r Request<'_>) -> Result<'static> {
        // A browser prefers HTML and says so; curl takes anything.
        let browser =
            request.accept().is_some_and(|accept: &Accept| accept.preferred().media_type().is_html());
        let (kind, body) = match self.html {
            Some(html) if browser => (ContentType::HTML, html),
            _ => (ContentType::JSON, format!("{:#}\n", self.json)),
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
    Reply { status: Status::Ok, json: json!(*view), html: Some(html) }
}

#[get("/status")]
fn status(_reader: Reader, site: &State<Site>) -> Reply {
    Reply::ok(json!(*site.handle.view()))
}

#[get("/healthz")]
fn healthz(site: &State<Site>) -> Reply {
    match site.handle.view().unhealthy() {
        None => Reply::ok(json!({ "ok": true })),
        // Without a token only the fact is told: this page is open to everybody.
        Some(_) if site.token.is_some() => {
            Reply::error(Status::ServiceUnavailable, "not healthy: see /status")
        }
        Some(why) => Reply::error(Status::ServiceUnavailable, &why),
    }
}

#[get("/nodes/<name>")]
fn node(_reader: Reader, site: &State<Site>, name: &str) -> Reply {
    let view = site.handle.view();
    match view.node(name) {
        Some(node) => {
            let lines = site.handle.lines(name);
            let html = Some(page::node(node, &lines));
            Reply { status: Status::Ok, json: json!({ "node": node, "lines": lines }), html }
        }
        None => Reply::error(Status::NotFound, "there is no such node; `/status` lists them"),
    }
}

impl Site {
    async fn command(&self, order: Order) -> Reply {
        let accepted = if order == Order::StopAll { Status::Accepted } else { Status::Ok };
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

commands! {
    stop get_stop "/stop" () Order::StopAll;
    reload get_reload "/reload" () Order::Reload(None);
    stop_node get_stop_node "/nodes/<name>/stop" (name) Order::Stop(name.into());
    start_node get_start_node "/nodes/<name>/start" (name) Order::Start(name.into());
    restart_node get_restart_node "/nodes/<name>/restart" (name) Order::Restart(name.into());
    reload_node get_reload_node "/nodes/<name>/reload" (name) Order::Reload(Some(name.into()));
}

//! The node's web server: /healthz, /metrics and the app's routes in Rocket, with the node as its state, behind a front (`ffhttp`).
//!
//! The code that Rocket's macros make names `::rocket`, so a crate with routes has `rocket` among its own dependencies.
//! A re-export would look as if it did instead, and is not there:
//!
//! ```compile_fail,E0432
//! use ffserver::rocket;
//! ```

mod dev;

use std::io;
use std::net::TcpListener;

use ffconfig::Limits;
use ffhttp::{Places, StartError, Timeouts, WebServer, is_loopback_host};
use ffstore::db::Db;
use ffstore::record::{Records, TableStats};
use fftelemetry::metrics::CONTENT_TYPE;
use rocket::http::{ContentType, Status};
use rocket::request::{FromRequest, Outcome, Request};

use crate::app::app::Mounts;
use crate::handover::http::Front;
use crate::node::{Node, Phase};

pub(crate) use dev::DevNotice;

/// The web server of one node, with the node's bounds for its fronts.
#[derive(Debug)]
pub(crate) struct Web {
    server: WebServer,
    timeouts: Timeouts,
    places: Places,
}

impl Web {
    /// Starts Rocket; returns when it serves. With `dev` its pages tell what `master dev` says.
    pub(crate) async fn start(
        node: Node,
        mounts: Mounts,
        dev: Option<DevNotice>,
    ) -> Result<Self, StartError> {
        let name = format!("{} web", node.name());
        let (timeouts, places) = bounds(&node.config().limits);
        let mut secret = [0; 16];
        node.chance().fill(&mut secret).map_err(io::Error::other)?;
        let server = WebServer::start(name, secret, |rocket| {
            let rocket = rocket.manage(node).mount("/", own_routes());
            let rocket = match dev {
                Some(notice) => rocket.manage(notice).mount("/", dev::routes()).attach(dev::OnEveryPage),
                None => rocket,
            };
            mounts.into_iter().fold(rocket, |rocket, (base, routes)| rocket.mount(base, routes))
        });
        Ok(Self { server: server.await?, timeouts, places })
    }

    /// Serves the connections of `listener`.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(crate) fn open_front(&self, listener: TcpListener) -> io::Result<Front> {
        self.server.front(listener, self.timeouts, self.places)
    }
}

/// How long a client of webport may be silent, and how many there may be.
fn bounds(limits: &Limits) -> (Timeouts, Places) {
    let places = Places { connections: limits.web_connections_max, always: &["/healthz", "/metrics"] };
    (Timeouts { head: limits.web_head, idle: limits.web_idle }, places)
}

/// Each database, and whether it answers. One that does not leaves the node ready: what needs none goes on.
fn databases(node: &Node) -> serde_json::Value {
    let shown = |(name, db): (&str, &Db)| {
        let health = db.health();
        let shown = serde_json::json!({
            "url": health.shown_url(),
            "up": health.is_up(),
            "answer_us": health.answer().map(|answer| answer.as_micros()),
            "error": health.error(),
        });
        (name.to_owned(), shown)
    };
    node.databases().map(shown).collect::<serde_json::Map<_, _>>().into()
}

/// Each table of records, and what of it is in memory.
fn tables(node: &Node) -> serde_json::Value {
    let stats = node.records().map(Records::stats).unwrap_or_default();
    let shown = |(name, stats): (&str, TableStats)| {
        let shown = serde_json::json!({
            "records": stats.records,
            "bytes": stats.bytes,
            "held": stats.held,
            "oldest_dirty_ms": stats.oldest_dirty.as_millis() as u64,
            "failing_ms": stats.failing.as_millis() as u64,
        });
        (name.to_owned(), shown)
    };
    stats.into_iter().map(shown).collect::<serde_json::Map<_, _>>().into()
}

#[rocket::get("/healthz")]
fn healthz(insider: Insider, node: &rocket::State<Node>) -> (Status, (ContentType, String)) {
    let body = if insider.0 { whole_health(node) } else { health(node) };
    // The node serves while one of its processes follows the other; whoever polls sees no gap.
    let serves = matches!(node.phase(), Phase::Ready | Phase::HandedOver);
    let code = if serves { Status::Ok } else { Status::ServiceUnavailable };
    (code, (ContentType::JSON, format!("{body}\n")))
}

/// What everybody may know: whether the node serves.
fn health(node: &Node) -> serde_json::Value {
    serde_json::json!({ "node": node.name(), "phase": format!("{:?}", node.phase()).to_lowercase() })
}

fn whole_health(node: &Node) -> serde_json::Value {
    let status = node.status();
    serde_json::json!({
        "node": node.name(),
        "phase": format!("{:?}", node.phase()).to_lowercase(),
        "sessions": status.sessions,
        "parents": status.parents.iter().map(|(n, up)| (n.to_string(), (*up).into())).collect::<serde_json::Map<_, _>>(),
        "children": status.children,
        "databases": databases(node),
        "tables": tables(node),
        "counters": status.counters.into_iter().map(|(n, count)| (n, count.into())).collect::<serde_json::Map<_, _>>(),
    })
}

/// Whether a request may read the metrics and the whole of the health: from this host, or with an operator's token. A webport is for
/// players, too, and what a node counts, whom it is linked to and where its database is, is nobody's business.
struct Insider(bool);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Insider {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let header = |name| request.headers().get_one(name);
        let from_here = request.client_ip().is_some_and(|ip| ip.to_canonical().is_loopback());
        // A page of another site, in a browser on this host, comes from here as well, under a name of its own.
        let asked_as_here = header("Host").is_none_or(is_loopback_host);
        let with_token = || {
            let (scheme, token) = header("Authorization")?.split_once(' ')?;
            let node = request.rocket().state::<Node>()?;
            Some(scheme.eq_ignore_ascii_case("bearer") && node.identity().is_operators_token(token.trim()))
        };
        Outcome::Success(Self(from_here && asked_as_here || with_token().unwrap_or_default()))
    }
}

/// The node's own routes. A route of the app's for `/metrics` goes before this one, one for every path does not: their ranks are
/// -12 and at least -8.
fn own_routes() -> Vec<rocket::Route> {
    let mut routes = rocket::routes![healthz, metrics];
    let ours = routes.iter_mut().filter(|route| route.uri.path() == "/metrics");
    ours.for_each(|route| route.rank = -11);
    routes
}

/// The node's metrics.
#[rocket::get("/metrics")]
fn metrics(may: Insider, node: &rocket::State<Node>) -> (Status, (ContentType, String)) {
    if !may.0 {
        let why = "the metrics are for this host, or for who sends an operator's token (master.operators): `Authorization: Bearer TOKEN`\n";
        return (Status::Forbidden, (ContentType::Plain, why.to_owned()));
    }
    let text = super::metrics::text(node.transit(), node.all_sessions().registry(), Some(node));
    let kind = ContentType::parse_flexible(CONTENT_TYPE).unwrap_or(ContentType::Plain);
    (Status::Ok, (kind, text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::{Context, Result};

    use super::*;
    use crate::runtime::server::bare;

    #[test]
    fn patience_is_what_the_limits_say() -> Result<()> {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 },
            "servers": { "web": { "webport": 3, "app": "web",
                "limits": { "web_head_s": 3, "web_idle_s": 7, "web_connections_max": 9 } } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None)?.cluster;
        let node = bare(&cluster, "web").context("no node")?.node.clone();
        let web = tokio::runtime::Runtime::new()?.block_on(Web::start(node, vec![], None))?;
        let Timeouts { head, idle } = web.timeouts;
        assert_eq!((head.as_secs(), idle.as_secs(), web.places.connections), (3, 7, 9));
        Ok(())
    }
}

//! The node's web server: Rocket with the app's routes and /healthz, and a front before it.
//!
//! Rocket 0.5 opens its own port and takes neither a listening socket nor a connection. The node's webport
//! therefore belongs to a front, an HTTP/1.1 proxy that hands each request to Rocket on a private loopback
//! port. A connection between two requests is then only a socket and the bytes that were read of it, which
//! another process can go on with: no request is refused or cut when the node's process is replaced.
//!
//! Both run on threads of their own, and not in the loop that runs the node's handlers: a node that is busy
//! still answers HTTP, /healthz most of all, and gives its connections away.

mod connection;
mod front;
mod proxy;
mod tap;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;

use rocket::fairing::AdHoc;
use rocket::http::uncased::Uncased;
use rocket::http::{ContentType, Status};
use rocket::{Build, Config, Rocket, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::error;

use crate::node::{Node, Phase};
use ffstore::db::Db;
use ffstore::record::{Records, TableStats};
pub(crate) use front::{Front, Retirement, Traveller};

/// Threads of the front and Rocket together: a route that blocks one leaves the other.
const THREADS: usize = 2;

/// A running Rocket. Dropping it tells Rocket to stop, and ends its fronts.
#[derive(Debug)]
pub(crate) struct Web {
    service: connection::Service,
    connections_max: usize,
    runtime: Handle,
    shutdown: Shutdown,
    /// Its end lets the threads end.
    _lives: oneshot::Sender<()>,
}

impl Web {
    /// Starts Rocket; returns when it serves.
    pub(crate) async fn start(
        node: Node,
        mounts: Vec<(&'static str, Vec<rocket::Route>)>,
    ) -> Result<Self, String> {
        let (up, is_up) = oneshot::channel();
        let (lives, gone) = oneshot::channel();
        let name = format!("{} web", node.name());
        let limits = &node.config().limits;
        let patience = traffic::Patience { head: limits.web_head, idle: limits.web_idle };
        let connections_max = limits.web_connections_max;
        let rocket = build(node, mounts);
        thread::Builder::new().name(name).spawn(move || run(rocket, up, gone)).map_err(|e| e.to_string())?;
        let (runtime, port, shutdown) =
            is_up.await.unwrap_or_else(|_| Err("the web server's thread ended".to_owned()))?;
        let service = connection::Service { inner: (Ipv4Addr::LOCALHOST, port).into(), patience };
        Ok(Self { service, connections_max, runtime, shutdown, _lives: lives })
    }

    /// Serves the connections of `listener`.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(crate) fn front(&self, listener: TcpListener) -> io::Result<Front> {
        Front::start(listener, self.service, self.connections_max, self.runtime.clone())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shutdown.clone().notify();
    }
}

fn build(node: Node, mounts: Vec<(&'static str, Vec<rocket::Route>)>) -> Rocket<Build> {
    let config = Config {
        address: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        workers: 1,
        cli_colors: false,
        log_level: rocket::config::LogLevel::Off,
        ip_header: Some(Uncased::from_borrowed(proxy::REAL_IP)),
        // The node's signals are the node's.
        shutdown: rocket::config::Shutdown {
            ctrlc: false,
            signals: HashSet::new(),
            grace: 2,
            mercy: 1,
            ..Default::default()
        },
        ..Config::release_default()
    };
    let start = rocket::custom(config).manage(node).mount("/", rocket::routes![healthz]);
    mounts.into_iter().fold(start, |rocket, (base, routes)| rocket.mount(base, routes))
}

type Up = oneshot::Sender<Result<(Handle, u16, Shutdown), String>>;

/// Runs Rocket, and the front until `gone`: when Rocket has ended by itself, the front says so.
fn run(rocket: Rocket<Build>, up: Up, gone: oneshot::Receiver<()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(THREADS).thread_name("web").enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            launch(rocket, up).await;
            let _ = gone.await;
        }),
        Err(e) => drop(up.send(Err(e.to_string()))),
    }
}

async fn launch(rocket: Rocket<Build>, up: Up) {
    // The chosen port is known only once Rocket has lifted off.
    let up = Arc::new(parking_lot::Mutex::new(Some(up)));
    let on_liftoff = up.clone();
    let rocket = rocket.attach(AdHoc::on_liftoff("port", move |rocket| {
        Box::pin(async move {
            if let Some(up) = on_liftoff.lock().take() {
                let _ = up.send(Ok((Handle::current(), rocket.config().port, rocket.shutdown())));
            }
        })
    }));
    // Rocket's error panics when it is dropped unseen, so it is formatted in every case.
    if let Err(e) = rocket.launch().await {
        let why = e.to_string();
        match up.lock().take() {
            Some(up) => drop(up.send(Err(why))),
            None => error!("the web server ended: {why}"),
        }
    }
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
        });
        (name.to_owned(), shown)
    };
    stats.into_iter().map(shown).collect::<serde_json::Map<_, _>>().into()
}

#[rocket::get("/healthz")]
fn healthz(node: &rocket::State<Node>) -> (Status, (ContentType, String)) {
    let status = node.status();
    let body = serde_json::json!({
        "node": node.name(),
        "phase": format!("{:?}", node.phase()).to_lowercase(),
        "sessions": status.sessions,
        "parents": status.parents.iter().map(|(n, up)| (n.to_string(), (*up).into())).collect::<serde_json::Map<_, _>>(),
        "children": status.children,
        "databases": databases(node),
        "tables": tables(node),
        "counters": status.counters.into_iter().map(|(n, count)| (n, count.into())).collect::<serde_json::Map<_, _>>(),
    });
    // The node serves while one of its processes follows the other; whoever polls sees no gap.
    let serves = matches!(node.phase(), Phase::Ready | Phase::HandedOver);
    let code = if serves { Status::Ok } else { Status::ServiceUnavailable };
    (code, (ContentType::JSON, format!("{body}\n")))
}

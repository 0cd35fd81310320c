//! The node's web server: Rocket with the app's routes and /healthz, on a thread and runtime of its own,
//! so that it answers while the node is busy.
//!
//! Rocket 0.5 opens its own port and takes no listening socket. The node's webport therefore belongs to a
//! front, which hands each connection to Rocket on a private loopback port: webport stays open while the
//! node restarts, like every other port.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use rocket::fairing::AdHoc;
use rocket::http::{ContentType, Status};
use rocket::{Build, Config, Rocket, Shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::net::{Open, accept_failed};
use crate::node::{Node, Phase};

/// HTTP connections of one node at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;

/// A running Rocket. Dropping it tells Rocket to stop.
pub(crate) struct Web {
    inner: SocketAddr,
    shutdown: Shutdown,
}

impl Web {
    /// Starts Rocket; returns when it serves.
    pub(crate) async fn start(
        node: Node,
        mounts: Vec<(&'static str, Vec<rocket::Route>)>,
    ) -> Result<Self, String> {
        let (up, is_up) = oneshot::channel();
        let name = format!("{} web", node.name());
        let rocket = build(node, mounts);
        thread::Builder::new().name(name).spawn(move || run(rocket, up)).map_err(|e| e.to_string())?;
        let (port, shutdown) =
            is_up.await.unwrap_or_else(|_| Err("the web server's thread ended".to_owned()))?;
        Ok(Self { inner: (Ipv4Addr::LOCALHOST, port).into(), shutdown })
    }

    /// Hands the connections of `listener` to Rocket while `open`, until `stop`.
    pub(crate) async fn serve(&self, listener: TcpListener, mut open: Open, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                accepted = open.accept(&listener) => match accepted {
                    Ok((client, _)) => {
                        let inner = self.inner;
                        tokio::spawn(async move {
                            forward(client, inner).await;
                            drop(permit);
                        });
                    }
                    Err(e) => accept_failed("webport", &e).await,
                },
            }
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shutdown.clone().notify();
    }
}

async fn forward(mut client: TcpStream, inner: SocketAddr) {
    let moved = async {
        let mut server = TcpStream::connect(inner).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    if let Err(e) = moved.await {
        debug!("an HTTP connection broke: {e}");
    }
}

fn build(node: Node, mounts: Vec<(&'static str, Vec<rocket::Route>)>) -> Rocket<Build> {
    let config = Config {
        address: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        workers: 1,
        cli_colors: false,
        log_level: rocket::config::LogLevel::Off,
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

type Up = oneshot::Sender<Result<(u16, Shutdown), String>>;

fn run(rocket: Rocket<Build>, up: Up) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("web").enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(launch(rocket, up)),
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
                let _ = up.send(Ok((rocket.config().port, rocket.shutdown())));
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

#[rocket::get("/healthz")]
fn healthz(node: &rocket::State<Node>) -> (Status, (ContentType, String)) {
    let status = node.status();
    let body = serde_json::json!({
        "node": node.name(),
        "phase": format!("{:?}", node.phase()).to_lowercase(),
        "sessions": status.sessions,
        "parents": status.parents.iter().map(|(n, up)| (n.to_string(), (*up).into())).collect::<serde_json::Map<_, _>>(),
        "children": status.children,
    });
    let code = if node.phase() == Phase::Ready { Status::Ok } else { Status::ServiceUnavailable };
    (code, (ContentType::JSON, format!("{body}\n")))
}

//! Administration over HTTP: Rocket behind a front of `ffhttp`, on threads of their own, so that it answers whatever the rest does
//! and whoever connects.

mod guard;
mod page;
mod routes;
mod run;
mod sessions;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Chance;
use ffconfig::Master;
use ffhttp::{Front, Places, Timeouts, WebServer};
use rocket::{Build, Rocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::supervisor::Handle;
use crate::supervisor::rotation::Tokens;

/// How long the web server may take to start.
const START_MAX: Duration = Duration::from_secs(5);
/// How long answers that are being written may take at the end.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long clients may be silent: who has begun a request sends it at once, and a page asks again within seconds.
const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(5), idle: Duration::from_secs(30) };
/// The pages that are answered also when requests run on all connections.
const ALWAYS: &[&str] = &["/healthz", "/status", "/metrics"];

/// Readers of `/events` at once: each is a connection and a place in the window.
const READERS_MAX: usize = 64;

/// What the routes need to know.
struct Site {
    handle: Handle,
    /// Readers of `/events` at once.
    readers: Arc<Semaphore>,
    /// Asked for on everything but `/healthz`.
    tokens: Tokens,
    /// Bound to loopback: only names of this host are right then.
    loopback: bool,
}

/// The running administration.
pub(crate) struct Admin {
    server: WebServer,
    front: Front,
}

impl Admin {
    /// Lets running answers end, briefly.
    pub(crate) async fn stop(self) {
        // Readers of events wait for this.
        drop(self.server);
        self.front.end(Instant::now() + STOP_MAX).await;
    }
}

/// Starts the administration on its listening socket, for at most so many connections at a time.
///
/// # Errors
/// One line that says why it does not.
pub(crate) async fn start(
    master: &Master,
    listener: TcpListener,
    tokens: Tokens,
    handle: Handle,
    connections: usize,
    chance: &Chance,
) -> Result<Admin, String> {
    let readers = Arc::new(Semaphore::new(READERS_MAX.min(connections / 2)));
    let site = Site { handle, readers, tokens, loopback: master.webport.ip().is_loopback() };
    let mut secret = [0; 16];
    chance.fill(&mut secret).map_err(|error| error.to_string())?;
    let started = WebServer::start("admin".to_owned(), secret, |rocket| set_up(site, rocket));
    let server = match timeout(START_MAX, started).await {
        Ok(started) => started.map_err(|error| error.to_string())?,
        Err(_late) => return Err(format!("the web server did not start within {} s", START_MAX.as_secs())),
    };
    let places = Places { connections, always: ALWAYS };
    let front = server.front(listener, TIMEOUTS, places).map_err(|error| error.to_string())?;
    Ok(Admin { server, front })
}

/// The site's routes, which tests call without a port.
fn set_up(site: Site, rocket: Rocket<Build>) -> Rocket<Build> {
    rocket
        .manage(site)
        .mount("/", routes::all())
        .mount("/", sessions::all())
        .mount("/", run::all())
        .register("/", rocket::catchers![guard::fault])
}

//! Administration over HTTP: Rocket behind a front of `ffhttp`, on threads of their own, so that it answers whatever the rest does
//! and whoever connects.

mod backoff;
mod guard;
mod page;
mod routes;
mod run;
mod sessions;
#[cfg(test)]
mod tests;
mod who;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Chance;
use ffconfig::Master;
use ffhttp::{Asks, Certificates, Front, Places, Timeouts, WebServer};
use parking_lot::Mutex;
use rocket::{Build, Rocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::backoff::Backoff;
pub(crate) use self::backoff::Source;
use crate::supervisor::Handle;
use crate::supervisor::operators::Operators;

/// How long the web server may take to start.
const START_MAX: Duration = Duration::from_secs(5);
/// How long answers that are being written may take at the end.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long clients may be silent: who has begun a request sends it at once, and a page asks again within seconds.
const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(5), idle: Duration::from_secs(30) };
/// The pages that are answered also when requests run on all connections.
const ALWAYS: &[&str] = &["/healthz", "/status", "/metrics"];

/// How often the files of the certificate are looked at, and refusals are counted together.
const LOOK: Duration = Duration::from_secs(5);

/// Readers of `/events` at once: each is a connection and a place in the window.
const READERS_MAX: usize = 64;

/// What the routes need to know.
struct Site {
    handle: Handle,
    /// Readers of `/events` at once.
    readers: Arc<Semaphore>,
    /// Who may come in by a token.
    operators: Operators,
    /// Who has shown wrong ones.
    backoff: Mutex<Backoff>,
    /// The user that this master runs as.
    uid: u32,
    /// The certificate that this port shows.
    certificates: Option<Arc<Certificates>>,
}

/// The running administration.
pub(crate) struct Admin {
    server: WebServer,
    front: Front,
    handle: Handle,
    housekeeping: JoinHandle<()>,
}

impl Admin {
    /// Lets running answers end, briefly.
    pub(crate) async fn stop(self) {
        // Readers of events wait for this.
        drop(self.server);
        self.front.end(Instant::now() + STOP_MAX).await;
        self.housekeeping.abort();
        let audit = self.handle.audit;
        let _ = tokio::task::spawn_blocking(move || audit.flush()).await;
    }
}

/// Starts the administration on its listening socket, for at most so many connections at a time.
///
/// # Errors
/// One line that says why it does not.
pub(crate) async fn start(
    master: &Master,
    listener: TcpListener,
    operators: Operators,
    handle: Handle,
    connections: usize,
    chance: &Chance,
) -> Result<Admin, String> {
    let readers = Arc::new(Semaphore::new(READERS_MAX.min(connections / 2)));
    let tls = master.tls.as_ref().map(|tls| Certificates::read(&tls.cert, &tls.key).map(Arc::new));
    let tls = tls.transpose().map_err(|error| format!("tls: {error}"))?;
    let site = Site {
        handle: handle.clone(),
        readers,
        operators,
        backoff: Mutex::default(),
        uid: nix::unistd::geteuid().as_raw(),
        certificates: tls.clone(),
    };
    let mut secret = [0; 16];
    chance.fill(&mut secret).map_err(|error| error.to_string())?;
    let started = WebServer::start("admin".to_owned(), secret, |rocket| set_up(site, rocket));
    let server = match timeout(START_MAX, started).await {
        Ok(started) => started.map_err(|error| error.to_string())?,
        Err(_late) => return Err(format!("the web server did not start within {} s", START_MAX.as_secs())),
    };
    let places = Places { connections, always: ALWAYS };
    let asks = Asks { peer: true, tls: tls.clone() };
    let front = server.asking_front(listener, TIMEOUTS, places, asks).map_err(|error| error.to_string())?;
    let housekeeping = tokio::spawn(keep_house(handle.clone(), tls));
    Ok(Admin { server, front, handle, housekeeping })
}

/// Takes a certificate that has changed, and has refusals told that nothing else tells of.
async fn keep_house(handle: Handle, certificates: Option<Arc<Certificates>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = looks.tick().await;
        handle.audit.sweep(now);
        if let Some(certificates) = &certificates {
            refresh(certificates);
        }
    }
}

/// Reads the files of the certificate again, if they have changed.
fn refresh(certificates: &Certificates) {
    match certificates.refresh() {
        Ok(true) => info!("master.tls: the certificate was read again"),
        Ok(false) => {}
        Err(error) => warn!("master.tls: the certificate of before is shown on: {error}"),
    }
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

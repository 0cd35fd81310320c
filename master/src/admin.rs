//! Administration over HTTP: Rocket on a thread of its own, so that it answers whatever the rest does.

mod guard;
mod page;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::supervisor::Handle;
use crate::supervisor::rotation::Tokens;
use ffconfig::Master;
use parking_lot::Mutex;
use rocket::config::{LogLevel, Shutdown as ShutdownConfig};
use rocket::fairing::AdHoc;
use rocket::{Build, Config, Rocket, Shutdown};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// How long it may take to open its port.
const START_MAX: Duration = Duration::from_secs(5);
/// How long answers that are being written may take at the end. Idle connections would take longer.
const STOP_MAX: Duration = Duration::from_millis(300);

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
    shutdown: Shutdown,
    ended: oneshot::Receiver<()>,
}

impl Admin {
    /// Lets running answers end, briefly.
    pub(crate) async fn stop(self) {
        self.shutdown.notify();
        let _ = timeout(2 * STOP_MAX, self.ended).await;
    }
}

/// Starts it and waits until it listens.
///
/// # Errors
/// One line that says why it does not.
pub(crate) async fn start(master: &Master, tokens: Tokens, handle: Handle) -> Result<Admin, String> {
    let at = master.webport;
    let readers = Arc::new(Semaphore::new(READERS_MAX));
    let site = Site { handle, readers, tokens, loopback: at.ip().is_loopback() };
    let (up, is_up) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let serve = move || {
        // Multi-threaded, as Rocket wants it, with one worker: people are few.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(serve(site, at, up));
                runtime.shutdown_background();
            }
            Err(error) => drop(up.send(Err(error.to_string()))),
        }
        let _ = end.send(());
    };
    let thread = std::thread::Builder::new().name("admin".into()).spawn(serve);
    thread.map_err(|error| error.to_string())?;
    match timeout(START_MAX, is_up).await {
        Ok(Ok(started)) => started.map(|shutdown| Admin { shutdown, ended }),
        Ok(Err(_)) => Err("the web server did not start".into()),
        Err(_late) => Err(format!("the web server did not start within {} s", START_MAX.as_secs())),
    }
}

/// Runs the site until it is told to stop. Rocket's errors panic when they are dropped unseen: each is
/// formatted here.
async fn serve(site: Site, at: SocketAddr, up: oneshot::Sender<Result<Shutdown, String>>) {
    let up = Arc::new(Mutex::new(Some(up)));
    let say = |up: &Mutex<Option<oneshot::Sender<_>>>, what| {
        if let Some(up) = up.lock().take() {
            let _ = up.send(what);
        }
    };
    let on_liftoff = Arc::clone(&up);
    let liftoff = AdHoc::on_liftoff("says that it listens", move |rocket| {
        say(&on_liftoff, Ok(rocket.shutdown()));
        Box::pin(std::future::ready(()))
    });
    let rocket = match rocket(site, at).attach(liftoff).ignite().await {
        Ok(rocket) => rocket,
        Err(error) => return say(&up, Err(error.to_string())),
    };
    let shutdown = rocket.shutdown();
    let told_to_stop = async {
        shutdown.await;
        tokio::time::sleep(STOP_MAX).await;
    };
    tokio::select! {
        ended = rocket.launch() => if let Err(error) = ended {
            say(&up, Err(error.to_string()));
        },
        () = told_to_stop => {}
    }
}

/// The site without a port, which tests call directly.
fn rocket(site: Site, at: SocketAddr) -> Rocket<Build> {
    // Signals are the master's.
    let shutdown = ShutdownConfig {
        ctrlc: false,
        signals: HashSet::new(),
        grace: 1,
        mercy: 1,
        force: false,
        ..ShutdownConfig::default()
    };
    let config = Config {
        address: at.ip(),
        port: at.port(),
        log_level: LogLevel::Off,
        cli_colors: false,
        shutdown,
        ..Config::release_default()
    };
    rocket::custom(config)
        .manage(site)
        .mount("/", routes::all())
        .register("/", rocket::catchers![guard::fault])
}

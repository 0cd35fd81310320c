//! The web server behind a front: Rocket on a private loopback port, with the threads that it shares with its fronts.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rocket::fairing::AdHoc;
use rocket::http::uncased::Uncased;
use rocket::{Build, Config, Rocket, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::error;

use crate::config::{FrontConfig, Timeouts};
use crate::front::Front;
use crate::proxy;

/// Threads of the fronts and Rocket together: a route that blocks one leaves the other.
const THREADS: usize = 2;

/// A running Rocket. Dropping it tells Rocket to stop, and ends its fronts.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    runtime: Handle,
    shutdown: Shutdown,
    /// The threads run until this sender is dropped.
    _lives: oneshot::Sender<()>,
}

/// Why a web server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no thread, or no event loop for it.
    #[error(transparent)]
    Threads(#[from] io::Error),
    /// Rocket refused its routes, or found no port.
    #[error("{0}")]
    Rocket(String),
    /// The thread ended before Rocket served.
    #[error("the web server's thread ended")]
    Ended,
}

impl WebServer {
    /// Starts Rocket on a thread called `name`, with the routes and the state that `set_up` adds to it; returns when
    /// Rocket serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        name: String,
        set_up: impl FnOnce(Rocket<Build>) -> Rocket<Build>,
    ) -> Result<Self, StartError> {
        let (up, is_up) = oneshot::channel();
        let (lives, gone) = oneshot::channel();
        let rocket = set_up(rocket::custom(config()));
        thread::Builder::new().name(name).spawn(move || run(rocket, up, gone))?;
        let Up { runtime, port, shutdown } = is_up.await.unwrap_or(Err(StartError::Ended))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { address, runtime, shutdown, _lives: lives })
    }

    /// Serves the connections of `listener`, at most `connections_max` at a time.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn front(
        &self,
        listener: TcpListener,
        timeouts: Timeouts,
        connections_max: usize,
    ) -> io::Result<Front> {
        let config = FrontConfig { upstream: self.address, timeouts, connections_max };
        Front::start(listener, config, self.runtime.clone())
    }

    /// Tells Rocket to stop; its fronts go on, and answer 502.
    #[cfg(test)]
    pub(crate) fn end_rocket(&self) {
        self.shutdown.clone().notify();
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shutdown.clone().notify();
    }
}

fn config() -> Config {
    Config {
        address: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        workers: 1,
        cli_colors: false,
        log_level: rocket::config::LogLevel::Off,
        ip_header: Some(Uncased::from_borrowed(proxy::REAL_IP)),
        // The process's signals belong to the program, not to Rocket.
        shutdown: rocket::config::Shutdown {
            ctrlc: false,
            signals: HashSet::new(),
            grace: 2,
            mercy: 1,
            ..Default::default()
        },
        ..Config::release_default()
    }
}

/// Rocket, as far as it is known once it serves.
struct Up {
    runtime: Handle,
    port: u16,
    shutdown: Shutdown,
}

type TellUp = oneshot::Sender<Result<Up, StartError>>;

/// Runs Rocket, and the fronts until `gone`: when Rocket has ended by itself, the fronts say so.
fn run(rocket: Rocket<Build>, up: TellUp, gone: oneshot::Receiver<()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(THREADS).thread_name("web").enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            launch(rocket, up).await;
            let _ = gone.await;
        }),
        Err(e) => drop(up.send(Err(e.into()))),
    }
}

async fn launch(rocket: Rocket<Build>, up: TellUp) {
    // The chosen port is known only once Rocket has lifted off.
    let up = Arc::new(Mutex::new(Some(up)));
    let on_liftoff = up.clone();
    let rocket = rocket.attach(AdHoc::on_liftoff("port", move |rocket| {
        Box::pin(async move {
            if let Some(up) = on_liftoff.lock().take() {
                let (port, shutdown) = (rocket.config().port, rocket.shutdown());
                let _ = up.send(Ok(Up { runtime: Handle::current(), port, shutdown }));
            }
        })
    }));
    // Rocket's error panics when it is dropped unseen, so it is formatted in every case.
    if let Err(e) = rocket.launch().await {
        let why = e.to_string();
        match up.lock().take() {
            Some(up) => drop(up.send(Err(StartError::Rocket(why)))),
            None => error!("the web server ended: {why}"),
        }
    }
}

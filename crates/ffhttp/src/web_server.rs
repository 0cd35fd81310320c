//! The web server behind a front: Rocket on a loopback port for its fronts alone, with the threads that it shares with its fronts.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;

use hyper::header::HeaderValue;
use parking_lot::Mutex;
use rocket::fairing::AdHoc;
use rocket::http::uncased::Uncased;
use rocket::http::uri::Origin;
use rocket::http::{Header, Method, Status};
use rocket::{Build, Config, Rocket, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::error;

use crate::config::{Asks, FrontConfig, Places, Timeouts};
use crate::front::Front;
use crate::proxy;
use crate::secret::is_same_secret;
use crate::upstream::{SECRET_NAME, Upstream};

/// Threads of the fronts and Rocket together: a route that blocks one leaves the other.
const THREADS: usize = 2;

/// A running Rocket. Dropping it tells Rocket to stop, and ends its fronts.
#[derive(Debug)]
pub struct WebServer {
    upstream: Arc<Upstream>,
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
    /// Rocket serves. `secret` is random, and keeps everybody but the fronts out.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        name: String,
        secret: [u8; 16],
        set_up: impl FnOnce(Rocket<Build>) -> Rocket<Build>,
    ) -> Result<Self, StartError> {
        let (up, is_up) = oneshot::channel();
        let (lives, gone) = oneshot::channel();
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let header = HeaderValue::from_str(&secret).map_err(|e| StartError::Rocket(e.to_string()))?;
        let rocket = for_fronts_alone(set_up(rocket::custom(config())), secret);
        thread::Builder::new().name(name).spawn(move || run(rocket, header, up, gone))?;
        let Up { runtime, upstream, shutdown } = is_up.await.unwrap_or(Err(StartError::Ended))?;
        Ok(Self { upstream, runtime, shutdown, _lives: lives })
    }

    /// Serves the connections of `listener`, as many at a time as `places` has.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn front(&self, listener: TcpListener, timeouts: Timeouts, places: Places) -> io::Result<Front> {
        self.asking_front(listener, timeouts, places, Asks::default())
    }

    /// The same, for a front that asks something of each connection.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn asking_front(
        &self,
        listener: TcpListener,
        timeouts: Timeouts,
        places: Places,
        asks: Asks,
    ) -> io::Result<Front> {
        let config = FrontConfig { upstream: self.upstream.clone(), timeouts, places, asks };
        Front::start(listener, config, self.runtime.clone())
    }

    /// Where Rocket listens.
    #[cfg(test)]
    pub(crate) fn inner_address(&self) -> std::net::SocketAddr {
        self.upstream.address()
    }

    /// A connection to Rocket, as a front makes it.
    #[cfg(test)]
    pub(crate) async fn connect_inside(&self) -> io::Result<tokio::net::TcpStream> {
        self.upstream.connect().await
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

/// Answers 403 to every request that has not come through a front, whatever routes there are; the others have no secret any more
/// when a route sees them.
fn for_fronts_alone(rocket: Rocket<Build>, secret: String) -> Rocket<Build> {
    // Nobody else can ask for the path of the refusal: the secret is in it.
    let path = format!("/{secret}");
    let routes = rocket::routes![refusal];
    let mounted = rocket.mount(path.clone(), routes);
    mounted.attach(AdHoc::on_request("for fronts alone", move |request, _| {
        let given = request.headers().get_one(SECRET_NAME);
        let is_from_front = given.is_some_and(|given| is_same_secret(given.as_bytes(), secret.as_bytes()));
        if is_from_front {
            request.replace_header(Header::new(SECRET_NAME, ""));
        } else if let Ok(path) = Origin::parse_owned(path.clone()) {
            request.set_method(Method::Get);
            request.set_uri(path);
        }
        Box::pin(std::future::ready(()))
    }))
}

#[rocket::get("/")]
fn refusal() -> Status {
    Status::Forbidden
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
    upstream: Arc<Upstream>,
    shutdown: Shutdown,
}

type TellUp = oneshot::Sender<Result<Up, StartError>>;

/// Runs Rocket, and the fronts until `gone`: when Rocket has ended by itself, the fronts say so.
fn run(rocket: Rocket<Build>, secret: HeaderValue, up: TellUp, gone: oneshot::Receiver<()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(THREADS).thread_name("web").enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            launch(rocket, secret, up).await;
            let _ = gone.await;
        }),
        Err(e) => drop(up.send(Err(e.into()))),
    }
}

async fn launch(rocket: Rocket<Build>, secret: HeaderValue, up: TellUp) {
    // The chosen port is known only once Rocket has lifted off.
    let up = Arc::new(Mutex::new(Some(up)));
    let served = Arc::new(Mutex::new(None));
    let (on_liftoff, serves) = (up.clone(), served.clone());
    let rocket = rocket.attach(AdHoc::on_liftoff("port", move |rocket| {
        Box::pin(async move {
            if let Some(up) = on_liftoff.lock().take() {
                let address = (Ipv4Addr::LOCALHOST, rocket.config().port).into();
                let upstream = Arc::new(Upstream::new(address, secret.clone()));
                *serves.lock() = Some(upstream.clone());
                let shutdown = rocket.shutdown();
                // From then on Rocket accepts nobody.
                let (stops, ended) = (shutdown.clone(), upstream.clone());
                tokio::spawn(async move {
                    stops.await;
                    ended.end().await;
                });
                let _ = up.send(Ok(Up { runtime: Handle::current(), upstream, shutdown }));
            }
        })
    }));
    // Rocket's error panics when it is dropped unseen, so it is formatted in every case.
    let launched = rocket.launch().await;
    let upstream: Option<Arc<Upstream>> = served.lock().take();
    if let Some(upstream) = upstream {
        upstream.end().await;
    }
    if let Err(e) = launched {
        let why = e.to_string();
        match up.lock().take() {
            Some(up) => drop(up.send(Err(StartError::Rocket(why)))),
            None => error!("the web server ended: {why}"),
        }
    }
}

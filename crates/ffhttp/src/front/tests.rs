//! The front as clients see it, while one web server gives its connections to the next.

mod asks;
mod raw;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocket::data::{ByteUnit, Data, IoHandler, IoStream};
use rocket::response::stream::TextStream;
use rocket::response::{self, Responder};
use rocket::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use self::raw::Client;
use crate::{Front, Places, Retirement, Timeouts, WebServer};

const PATIENCE: Duration = Duration::from_secs(20);

const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(10), idle: Duration::from_secs(60) };
const CONNECTIONS_MAX: usize = 1024;

/// A web server with its front, as one process has it.
struct Server {
    web: WebServer,
    front: Front,
}

/// A port, whose socket every server of a test inherits.
struct Port(std::net::TcpListener);

impl Port {
    fn open() -> Result<Self> {
        Ok(Self(std::net::TcpListener::bind("127.0.0.1:0")?))
    }

    async fn serve(&self) -> Result<Server> {
        self.serve_with(TIMEOUTS, CONNECTIONS_MAX).await
    }

    async fn serve_with(&self, timeouts: Timeouts, connections: usize) -> Result<Server> {
        let routes = rocket::routes![hello, length, ignored, slow, held, ticks, whole, client, secret, echo];
        let web = WebServer::start("web".to_owned(), [7; 16], |rocket| rocket.mount("/", routes)).await?;
        let places = Places { connections, always: &["/hello/1"] };
        let front = web.front(self.0.try_clone()?, timeouts, places)?;
        Ok(Server { web, front })
    }

    async fn client(&self) -> Result<Client> {
        Client::connect(self.0.local_addr()?).await
    }
}

impl Server {
    fn retire(&self) -> Retirement {
        self.front.retire(Instant::now() + PATIENCE)
    }

    /// Everything that `self` has goes to `next`; how many connections that were.
    async fn hand_over(self, next: &Server) -> Result<usize> {
        let mut retirement = self.retire();
        let mut moved = 0;
        while let Some((stream, unread)) = retirement.next().await {
            next.front.adopt(stream, unread)?;
            moved += 1;
        }
        Ok(moved)
    }

    async fn until_connections(&self, n: usize) -> Result<()> {
        let reached = async {
            while self.front.connections() != n {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let last = || format!("{} connections instead of {n}", self.front.connections());
        timeout(PATIENCE, reached).await.with_context(last)
    }
}

#[rocket::get("/hello/<n>")]
fn hello(n: u64) -> String {
    n.to_string()
}

#[rocket::post("/length", data = "<data>")]
async fn length(data: Data<'_>) -> io::Result<String> {
    let all = data.open(ByteUnit::Gibibyte(1)).stream_to(rocket::tokio::io::sink()).await?;
    Ok(all.written.to_string())
}

#[rocket::post("/ignored")]
fn ignored() -> &'static str {
    "not read"
}

#[rocket::get("/slow/<ms>")]
async fn slow(ms: u64) -> String {
    sleep(Duration::from_millis(ms)).await;
    format!("after {ms}")
}

/// A request of which the test knows that it has begun, and that ends when the test says so. Each test has its own.
struct Held {
    begun: Semaphore,
    may_end: Semaphore,
}

static HELD: [Held; 6] =
    [const { Held { begun: Semaphore::const_new(0), may_end: Semaphore::const_new(0) } }; 6];

impl Held {
    async fn until_begun(&self) -> Result<()> {
        timeout(PATIENCE, self.begun.acquire()).await.context("the request does not begin")??.forget();
        Ok(())
    }

    fn let_go(&self) {
        self.may_end.add_permits(1);
    }
}

#[rocket::get("/held/<n>")]
async fn held(n: usize) -> &'static str {
    HELD[n].begun.add_permits(1);
    HELD[n].may_end.acquire().await.expect("it is never closed").forget();
    "let go"
}

#[rocket::get("/ticks/<n>/<ms>")]
fn ticks(n: u64, ms: u64) -> TextStream![String] {
    TextStream! {
        for tick in 1..=n {
            yield format!("tick {tick}\n");
            sleep(Duration::from_millis(ms)).await;
        }
    }
}

#[rocket::get("/whole/<kib>")]
fn whole(kib: usize) -> Vec<u8> {
    vec![b'x'; kib * 1024]
}

struct Seen(String);

#[rocket::async_trait]
impl<'r> rocket::request::FromRequest<'r> for Seen {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> rocket::request::Outcome<Self, Self::Error> {
        let of = |name| request.headers().get(name).collect::<Vec<_>>().join(" and ");
        rocket::request::Outcome::Success(Self(format!(
            "{:?}, {}, {}, {}, {}",
            request.client_ip(),
            of("X-Real-IP"),
            of("X-Forwarded-For"),
            of("Forwarded"),
            of("X-Other")
        )))
    }
}

struct Secret(String);

#[rocket::async_trait]
impl<'r> rocket::request::FromRequest<'r> for Secret {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> rocket::request::Outcome<Self, Self::Error> {
        let all: String = request.headers().get("X-FF-Front").collect();
        rocket::request::Outcome::Success(Self(all))
    }
}

#[rocket::get("/secret")]
fn secret(seen: Secret) -> String {
    if seen.0.is_empty() { "no secret is seen".to_owned() } else { seen.0 }
}

#[rocket::get("/client")]
fn client(seen: Seen) -> String {
    seen.0
}

/// Speaks the protocol "echo" after an upgrade.
struct Echo;

#[rocket::get("/echo")]
fn echo() -> Echo {
    Echo
}

impl<'r> Responder<'r, 'r> for Echo {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'r> {
        Response::build().upgrade("echo", self).ok()
    }
}

#[rocket::async_trait]
impl IoHandler for Echo {
    async fn io(self: Pin<Box<Self>>, io: IoStream) -> io::Result<()> {
        let (mut read, mut write) = rocket::tokio::io::split(io);
        rocket::tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_keep_alive_clients_in_closed_loop_notice_none_of_ten_replacements() -> Result<()> {
    let port = Port::open()?;
    let mut server = port.serve().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = port.client().await?;
        let (stop, answered) = (stop.clone(), answered.clone());
        clients.push(tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let got = client.get(&format!("/hello/{n}")).await?;
                ensure!(got.status == 200 && got.body == n.to_string(), "{got:?}");
                ensure!(got.header("connection").is_none(), "{got:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for _ in 0..10 {
        server.until_connections(200).await?;
        let before = answered.load(Ordering::Relaxed);
        let next = port.serve().await?;
        let moved = server.hand_over(&next).await?;
        assert_eq!(moved, 200, "every connection travels");
        assert!(answered.load(Ordering::Relaxed) > before, "the load went on");
        server = next;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    Ok(())
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_then_its_connection_travels() -> Result<()> {
    let port = Port::open()?;
    let (old, new) = (port.serve().await?, port.serve().await?);
    // Who connects is served by either; the new one must not accept yet.
    let pause = new.retire();
    let mut client = port.client().await?;
    old.until_connections(1).await?;
    client.send("GET /held/1 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    client.send("GET /hel").await?;
    HELD[1].until_begun().await?;
    let mut retirement = old.retire();
    assert_eq!(old.front.connections(), 1, "it is still answered");
    HELD[1].let_go();
    let (stream, unread) = retirement.next().await.context("it travels")?;
    assert_eq!(client.receive().await?.body, "let go");
    // What nobody has read yet is in the socket, and travels with it.
    assert!(b"GET /hel".starts_with(&unread), "{unread:?}");
    assert!(retirement.next().await.is_none());
    drop(pause);
    drop(old);
    new.front.adopt(stream, unread)?;
    client.send("lo/7 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    assert_eq!(client.receive().await?.body, "7");
    Ok(())
}

#[tokio::test]
async fn a_fresh_connection_and_half_a_head_travel_at_once() -> Result<()> {
    let port = Port::open()?;
    let old = port.serve().await?;
    let (mut fresh, mut half) = (port.client().await?, port.client().await?);
    half.send("GET /hello/2 HTTP/1.1\r\nHo").await?;
    old.until_connections(2).await?;
    sleep(Duration::from_millis(50)).await;
    let new = port.serve().await?;
    let begin = Instant::now();
    assert_eq!(old.hand_over(&new).await?, 2);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(fresh.get("/hello/1").await?.body, "1");
    half.send("st: here\r\n\r\n").await?;
    assert_eq!(half.receive().await?.body, "2");
    Ok(())
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_by_one_server_after_the_other() -> Result<()> {
    let port = Port::open()?;
    let mut server = port.serve().await?;
    let mut client = port.client().await?;
    server.until_connections(1).await?;
    let mut waiting = VecDeque::new();
    for n in 0..2_000 {
        client.send(&format!("GET /hello/{n} HTTP/1.1\r\nHost: here\r\n\r\n")).await?;
        waiting.push_back(n.to_string());
        if n % 200 == 100 {
            let next = port.serve().await?;
            let mut moving = Box::pin(server.hand_over(&next));
            // The client goes on reading, or the front would have to wait for it.
            loop {
                tokio::select! {
                    moved = &mut moving => {
                        assert_eq!(moved?, 1);
                        break;
                    }
                    got = client.receive(), if waiting.len() > 1 => {
                        assert_eq!(Some(got?.body), waiting.pop_front());
                    }
                }
            }
            drop(moving);
            server = next;
        }
    }
    while let Some(wanted) = waiting.pop_front() {
        assert_eq!(client.receive().await?.body, wanted);
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_goes_on_while_the_front_retires_and_its_connection_travels_afterwards() -> Result<()> {
    let port = Port::open()?;
    let old = port.serve().await?;
    let mut client = port.client().await?;
    client.send("POST /length HTTP/1.1\r\nHost: here\r\nContent-Length: 3000000\r\n\r\n").await?;
    client.send(&"x".repeat(1_000_000)).await?;
    old.until_connections(1).await?;
    let new = port.serve().await?;
    let moving = tokio::spawn(async move { old.hand_over(&new).await.map(|moved| (moved, new)) });
    client.send(&"x".repeat(1_000_000)).await?;
    sleep(Duration::from_millis(50)).await;
    client.send(&"x".repeat(1_000_000)).await?;
    assert_eq!(client.receive().await?.body, "3000000");
    let (moved, _new) = moving.await??;
    assert_eq!(moved, 1);
    assert_eq!(client.get("/hello/1").await?.body, "1");
    Ok(())
}

#[tokio::test]
async fn a_connection_whose_request_was_not_read_to_its_end_does_not_travel() -> Result<()> {
    let port = Port::open()?;
    let old = port.serve().await?;
    let mut client = port.client().await?;
    // The rest of this body would look like a request.
    client.send("POST /ignored HTTP/1.1\r\nHost: here\r\nContent-Length: 10000000\r\n\r\n").await?;
    client.send("GET /hello/1 HTTP/1.1\r\n").await?;
    assert_eq!(client.receive().await?.body, "not read");
    let mut retirement = old.front.retire(Instant::now() + Duration::from_millis(200));
    assert!(retirement.next().await.is_none());
    client.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn what_does_not_end_is_cut_when_the_time_is_over() -> Result<()> {
    let port = Port::open()?;
    let old = port.serve().await?;
    let mut client = port.client().await?;
    client.send("GET /held/3 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    HELD[3].until_begun().await?;
    let begin = Instant::now();
    let mut retirement = old.front.retire(begin + Duration::from_millis(300));
    assert!(retirement.next().await.is_none());
    assert!(client.until_closed().await? < Duration::from_secs(2));
    old.until_connections(0).await
}

#[tokio::test]
async fn a_retirement_that_breaks_off_resumes_with_every_connection() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(port.client().await?);
    }
    server.until_connections(10).await?;
    clients[9].send("GET /held/0 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    HELD[0].until_begun().await?;
    let retirement = server.retire();
    server.until_connections(1).await?;
    let mut late = port.client().await?;
    drop(retirement);
    for client in &mut clients[..9] {
        assert_eq!(client.get("/hello/1").await?.body, "1");
    }
    HELD[0].let_go();
    assert_eq!(clients[9].receive().await?.body, "let go");
    assert_eq!(late.get("/hello/2").await?.body, "2", "it waited in the backlog");
    Ok(())
}

#[tokio::test]
async fn a_front_that_has_given_everything_away_resumes_and_takes_it_back() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    let mut client = port.client().await?;
    client.get("/hello/1").await?;
    let mut retirement = server.retire();
    let (stream, unread) = retirement.next().await.context("one")?;
    assert!(retirement.next().await.is_none());
    drop(retirement);
    server.front.resume();
    server.front.adopt(stream, unread)?;
    assert_eq!(client.get("/hello/2").await?.body, "2");
    assert_eq!(port.client().await?.get("/hello/3").await?.body, "3");
    Ok(())
}

#[tokio::test]
async fn at_a_stop_the_running_request_ends_and_says_that_its_connection_does() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    let (mut idle, mut busy) = (port.client().await?, port.client().await?);
    idle.get("/hello/1").await?;
    busy.send("GET /held/2 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    HELD[2].until_begun().await?;
    let end = server.front.end(Instant::now() + PATIENCE);
    let let_go = async {
        idle.until_closed().await?;
        HELD[2].let_go();
        anyhow::Ok(())
    };
    let ((), closed) = tokio::join!(end, let_go);
    closed?;
    assert_eq!(server.front.connections(), 0);
    let got = busy.receive().await?;
    assert_eq!((got.body.as_str(), got.header("connection")), ("let go", Some("close")));
    busy.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn rocket_sees_the_clients_address_and_not_what_the_client_says_of_it() -> Result<()> {
    let port = Port::open()?;
    let _server = port.serve().await?;
    let mut client = port.client().await?;
    client
        .send(
            "GET /client HTTP/1.1\r\nHost: here\r\nX-Real-IP: 6.6.6.6\r\nx-forwarded-for: 6.6.6.6\r\n\
             Forwarded: for=6.6.6.6\r\nConnection: X-Real-IP, X-Other\r\nX-Other: this hop\r\n\r\n",
        )
        .await?;
    assert_eq!(client.receive().await?.body, "Some(127.0.0.1), 127.0.0.1, 127.0.0.1, , ");
    Ok(())
}

#[tokio::test]
async fn heads_without_bodies_chunks_and_a_continue_are_passed_as_they_are() -> Result<()> {
    let port = Port::open()?;
    let _server = port.serve().await?;
    let mut client = port.client().await?;
    client.send("HEAD /whole/5 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    let head = client.receive_to("HEAD").await?;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5120")));

    client.send("POST /length HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    client.send("5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n").await?;
    assert_eq!(client.receive().await?.body, "8");

    client
        .send("POST /length HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await?;
    assert_eq!(client.receive().await?.status, 100);
    client.send("body").await?;
    assert_eq!(client.receive().await?.body, "4");

    assert_eq!(client.get("/nothing-here").await?.status, 404);
    client.send("GET http://here/hello/9 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    assert_eq!(client.receive().await?.body, "9", "a target may be absolute");
    client.send("CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere:80\r\n\r\n").await?;
    assert_eq!(client.receive().await?.status, 501);

    let mut old = port.client().await?;
    old.send("GET /hello/4 HTTP/1.0\r\n\r\n").await?;
    let got = old.receive().await?;
    assert_eq!((got.body.as_str(), got.head.starts_with("HTTP/1.0 200")), ("4", true));
    old.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_pieces_come_when_they_are_made() -> Result<()> {
    let port = Port::open()?;
    let _server = port.serve().await?;
    let mut client = port.client().await?;
    assert_eq!(client.get("/whole/20000").await?.body.len(), 20_000 * 1024);
    client.send("GET /ticks/3/200 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    client.until("\r\n\r\n").await?;
    let begin = Instant::now();
    assert_eq!(client.chunk().await?, "tick 1\n");
    assert!(begin.elapsed() < Duration::from_millis(190), "the first is not kept until the second");
    assert_eq!(client.chunk().await? + &client.chunk().await?, "tick 2\ntick 3\n");
    Ok(())
}

#[tokio::test]
async fn an_upgraded_connection_is_carried_both_ways_and_drains_until_the_time_is_over() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    let mut client = port.client().await?;
    // The first bytes of the new protocol come along with the request.
    client.send("GET /echo HTTP/1.1\r\nHost: here\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nfirst").await?;
    let got = client.receive().await?;
    assert_eq!((got.status, got.header("upgrade")), (101, Some("echo")), "{got:?}");
    assert_eq!(client.take(5).await?, "first");
    let mut retirement = server.front.retire(Instant::now() + Duration::from_millis(400));
    client.send("second").await?;
    assert_eq!(client.take(6).await?, "second");
    assert!(retirement.next().await.is_none(), "it cannot travel");
    client.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn when_the_web_server_has_ended_the_front_says_so() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    let mut client = port.client().await?;
    assert_eq!(client.get("/hello/1").await?.status, 200);
    server.web.end_rocket();
    let refused = async {
        loop {
            match client.get("/hello/2").await {
                Ok(got) if got.status == 502 => return got,
                _ => client = port.client().await.unwrap(),
            }
        }
    };
    let got = timeout(PATIENCE, refused).await?;
    assert_eq!(got.body, "the web server of this node does not answer\n");
    Ok(())
}

#[tokio::test]
async fn a_slow_head_a_silent_client_and_a_stopped_upload_are_closed() -> Result<()> {
    let port = Port::open()?;
    let timeouts = Timeouts { head: Duration::from_secs(2), idle: Duration::from_secs(4) };
    let _server = port.serve_with(timeouts, CONNECTIONS_MAX).await?;
    let (mut head, mut idle, mut body) = (port.client().await?, port.client().await?, port.client().await?);
    idle.get("/hello/1").await?;
    head.send("GET / HT").await?;
    body.send("POST /length HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nfive.").await?;
    let (head, idle, body) = tokio::join!(head.until_closed(), idle.until_closed(), body.until_closed());
    let (head, idle, body) = (head?, idle?, body?);
    assert!(head >= Duration::from_secs(1) && head < Duration::from_secs(4), "{head:?}");
    assert!(idle >= Duration::from_secs(3), "{idle:?}");
    assert!(body >= Duration::from_secs(3), "{body:?}");
    Ok(())
}

#[tokio::test]
async fn the_oldest_idle_connection_makes_room_and_a_running_request_does_not() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve_with(TIMEOUTS, 3).await?;
    let (mut busy, mut idle, mut silent) = (port.client().await?, port.client().await?, port.client().await?);
    server.until_connections(3).await?;
    busy.send("GET /held/3 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    HELD[3].until_begun().await?;
    idle.get("/hello/2").await?;
    let mut fourth = port.client().await?;
    assert_eq!(fourth.get("/hello/4").await?.body, "4");
    silent.until_closed().await?;
    let mut fifth = port.client().await?;
    assert_eq!(fifth.get("/hello/5").await?.body, "5");
    idle.until_closed().await?;
    assert_eq!(fourth.get("/hello/6").await?.body, "6", "it is younger");
    HELD[3].let_go();
    assert_eq!(busy.receive().await?.body, "let go");
    Ok(())
}

#[tokio::test]
async fn where_requests_run_on_all_places_some_are_left_for_what_is_always_answered() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve_with(TIMEOUTS, 1).await?;
    let mut busy = port.client().await?;
    busy.send("GET /held/4 HTTP/1.1\r\nHost: here\r\n\r\n").await?;
    HELD[4].until_begun().await?;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(port.client().await?);
    }
    assert_eq!(port.client().await?.get("/hello/1").await?.body, "1");
    let mut other = port.client().await?;
    let got = other.get("/hello/2").await?;
    assert_eq!((got.status, got.header("connection")), (503, Some("close")));
    other.until_closed().await?;
    HELD[4].let_go();
    assert_eq!(busy.receive().await?.body, "let go");
    drop(server);
    Ok(())
}

#[tokio::test]
async fn a_thousand_silent_connections_do_not_keep_anybody_out() -> Result<()> {
    let port = Port::open()?;
    let _server = port.serve_with(TIMEOUTS, 20).await?;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(port.client().await?);
    }
    assert_eq!(port.client().await?.get("/hello/1").await?.body, "1");
    Ok(())
}

#[tokio::test]
async fn a_request_says_once_which_host_it_is_for() -> Result<()> {
    let port = Port::open()?;
    let _server = port.serve().await?;
    for head in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nhost: a\r\n"] {
        let mut client = port.client().await?;
        client.send(&format!("GET /hello/1 HTTP/1.1\r\n{head}\r\n")).await?;
        assert_eq!(client.receive().await?.status, 400, "{head:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_inner_port_is_for_fronts_alone() -> Result<()> {
    let port = Port::open()?;
    let server = port.serve().await?;
    // As where the kernel takes no filter: who gets through to Rocket has no secret.
    let mut stream = server.web.connect_inside().await?;
    let spoofed = "GET /client HTTP/1.1\r\nHost: here\r\nX-Real-IP: 6.6.6.6\r\nX-FF-Front: guess\r\n\r\n";
    stream.write_all(spoofed.as_bytes()).await?;
    let mut stranger = Client { stream, read: Vec::new() };
    assert_eq!(stranger.receive().await?.status, 403);
    // And through the front a client's own word is not passed on.
    let mut client = port.client().await?;
    client.send("GET /secret HTTP/1.1\r\nHost: here\r\nX-FF-Front: mine\r\n\r\n").await?;
    assert_eq!(client.receive().await?.body, "no secret is seen");
    Ok(())
}

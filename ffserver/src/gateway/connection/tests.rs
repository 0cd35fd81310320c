//! A connection as facts, over a socket whose other end the test holds.

use std::future::pending;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;

use ffnet::transport::tcp::TcpClient;
use ffproto::CommandId;
use tokio::net::TcpStream;

use super::*;
use crate::runtime::server::bare;

/// Ten thousand idle clients have one each: `bench idle` asks for less than 2 KiB for all that a client has.
#[test]
fn a_connection_is_small() {
    assert!(size_of::<Connection>() <= 256, "{}", size_of::<Connection>());
}

/// A connection of a node without anything, and the client's end of it.
async fn connection() -> (Connection, TcpStream) {
    let config = r#"{ "master": { "rootport": 1, "webport": 2 },
                      "servers": { "net": { "netport": 3, "app": "net" } } }"#;
    let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
    let executor = bare(&cluster, "net").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, address) = listener.accept().await.unwrap();
    stream.writable().await.unwrap();
    let session = executor.node.all_sessions().registry().open(address).unwrap();
    (Connection::new(Arc::new(TcpClient::new(stream).unwrap()), session, executor), client)
}

/// The wait for the client's first bytes, which a greeting has, must not use up the timer of the hook that greets.
#[tokio::test(start_paused = true)]
async fn a_hook_at_the_opening_meets_its_deadline_although_it_greets_a_silent_client() {
    let (mut connection, _client) = connection().await;
    let (session, limit) = (connection.session().clone(), Duration::from_secs(1));
    let handler = Execution::hook(pending());
    connection.running = Some(RunningHandler { handler, request: None, deadline: Instant::now() + limit });
    session.set_running(true);
    session.push(CommandId(1), b"welcome").unwrap();
    let served = tokio::spawn(connection);
    tokio::time::sleep(limit / 2).await;
    assert!(session.is_at_work());
    tokio::time::sleep(limit).await;
    assert!(!session.is_at_work(), "the hook still runs");
    served.abort();
}

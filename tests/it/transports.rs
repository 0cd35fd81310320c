//! Transports of clients that an author brings, from a crate of its own (`tests/authors`): every byte goes over them, and a
//! connection goes on in the successor, or is drained.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use authors::sealed;
use bytes::Bytes;
use ffnet::listen::Inherited;
use ffproto::frame::Firefly;
use ffproto::{CommandId, Incarnation, NodeNumber};
use ffserver::prelude::{App, Body, handlers, net_handle};
use ffserver::transport::MemoryTransport;
use ffserver::{FFServer, InProcessNet};
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn program(name: &str) -> Result<PathBuf> {
    Ok(bins::folder()?.join(name))
}

async fn running(fixture: Fixture, node: &str) -> Result<Cluster> {
    Cluster::installed(fixture, &program("master")?, &program(node)?).await
}

/// A client that opens what comes, record by record.
struct SealedClient {
    stream: TcpStream,
    sealed: Vec<u8>,
    records: u32,
    opened: Vec<u8>,
}

impl SealedClient {
    async fn connect(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).await?;
        Ok(Self { stream, sealed: Vec::new(), records: 0, opened: Vec::new() })
    }

    async fn send(&mut self, command: u32, body: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        Firefly::default().write(CommandId(command), body, &mut frame);
        Ok(self.stream.write_all(&frame).await?)
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Result<Option<(u32, Bytes)>> {
        loop {
            if let Some(frame) = Firefly::default().read(&self.opened, u32::MAX)? {
                let message = (frame.command.0, Bytes::copy_from_slice(frame.body));
                let bytes = frame.bytes;
                self.opened.drain(..bytes);
                return Ok(Some(message));
            }
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.sealed)).await.context("silence")??;
            if read == 0 {
                ensure!(self.sealed.is_empty() && self.opened.is_empty(), "it ends in the middle");
                return Ok(None);
            }
            while let Some((payload, bytes)) = sealed::open(&self.sealed, self.records) {
                self.opened.extend(payload);
                self.sealed.drain(..bytes);
                self.records += 1;
            }
        }
    }

    async fn receive(&mut self) -> Result<(u32, Bytes)> {
        self.next().await?.context("the connection has ended")
    }

    async fn call(&mut self, command: u32, body: &[u8]) -> Result<Bytes> {
        self.send(command, body).await?;
        let (answered, body) = self.receive().await?;
        ensure!(answered == command, "{answered} {body:?}");
        Ok(body)
    }
}

#[tokio::test]
async fn every_byte_goes_over_the_transport_also_past_a_connections_turn_and_through_a_reload() -> Result<()>
{
    let cluster = running(Fixture::hall()?, "sealednode").await?;
    let mut client = SealedClient::connect(cluster.at("net")).await?;
    for round in 0..3 {
        // Answers that come alone are written by who has them, those that come together by the connection, pushes by the
        // link's batch.
        client.call(2101, b"").await?;
        client.send(2104, b"300").await?;
        for n in 0..300 {
            assert_eq!(client.receive().await?, (9, n.to_string().into()));
        }
        assert_eq!(client.receive().await?, (2104, "pushed".into()));
        for _ in 0..50 {
            client.send(2101, b"").await?;
        }
        for _ in 0..50 {
            assert_eq!(client.receive().await?.0, 2101);
        }
        // More than a socket takes at once, and the client reads late.
        client.send(2109, format!("all 40 {}", 20_000).as_bytes()).await?;
        for n in 0..41 {
            let (command, body) = client.receive().await?;
            ensure!([10, 2109].contains(&command), "{n}: {command} {body:?}");
        }
        if round < 2 {
            let before = cluster.pid("net").await?;
            assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
            assert_ne!(cluster.pid("net").await?, before, "the connection goes on in another process");
        }
    }
    assert!(client.records > 100, "{}", client.records);
    cluster.stop().await
}

#[tokio::test]
async fn connections_that_cannot_travel_are_served_by_the_old_process_and_then_told_the_end() -> Result<()> {
    let fixture = Fixture::hall()?.replace(r#""app": "hallnet""#, r#""drain_s": 4, "app": "hallnet""#);
    let cluster = running(fixture, "stayingnode").await?;
    let mut client = SealedClient::connect(cluster.at("net")).await?;
    client.call(2107, b"guild").await?;
    let before = cluster.pid("net").await?;
    let reload = async { cluster.admin("POST", "/reload").await };
    let play = async {
        cluster.until_logged("net is ready after").await?;
        cluster.until("net", "is another process", |net| net["pid"] != before).await?;
        let mut newer = SealedClient::connect(cluster.at("net")).await?;
        // Both are served: what the client asks here and elsewhere, and what others send to it.
        for _ in 0..20 {
            client.call(20, b"").await?;
            client.call(2101, b"").await?;
            client.send(2104, b"3").await?;
            for n in 0..3 {
                assert_eq!(client.receive().await?, (9, n.to_string().into()), "a push of another node");
            }
            assert_eq!(client.receive().await?, (2104, "pushed".into()));
            newer.call(2101, b"").await?;
        }
        for who in ["all", "group:guild"] {
            newer.send(2109, format!("{who} 1 1").as_bytes()).await?;
            assert_eq!(client.receive().await?, (10, "0".into()), "a broadcast to {who}");
            while newer.receive().await?.0 != 2109 {}
        }
        anyhow::Ok(newer)
    };
    let (reloaded, newer) = tokio::join!(reload, play);
    let (reloaded, mut newer) = (reloaded?, newer?);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_eq!(client.next().await?, None, "nothing twice, and then the end");
    cluster.until_logged("client logged out: the node is stopping").await?;
    newer.call(2101, b"").await?;
    cluster.stop().await
}

#[net_handle(1)]
async fn echo(Body(text): Body<String>) -> String {
    text
}

#[tokio::test]
async fn a_client_in_memory_is_served_as_one_over_a_socket_is() -> Result<()> {
    let text = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": { "net": { "netport": "127.0.0.1:0", "app": "net" } } }"#
        .replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()?));
    let config = ffconfig::parse(&text, std::path::Path::new("config.json"), &|_| None)?.cluster;
    let transport = MemoryTransport::default();
    let app = App::new("net").handlers(handlers![echo]).transport(transport.clone());
    let server = FFServer::new(&config, "net", vec![app], Incarnation(1))?;
    let server = server.in_process(InProcessNet::default(), NodeNumber(1));
    let stop = server.stop_handle();
    let running = tokio::spawn(server.run(Inherited::default()));
    let mut client =
        wait::until("it takes a client", async || transport.connect().map_err(|e| e.to_string())).await?;
    let body = vec![b'x'; 60_000];
    for _ in 0..20 {
        let mut frame = Vec::new();
        Firefly::default().write(CommandId(1), &body, &mut frame);
        client.write_all(&frame).await?;
        let mut answer = vec![0; frame.len()];
        timeout(PATIENCE, client.read_exact(&mut answer)).await??;
        ensure!(answer == frame, "another answer");
    }
    stop.begin(None);
    running.await??;
    assert_eq!(client.read(&mut [0; 1]).await?, 0, "its end is the client's");
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

//! A protocol of clients that an author brings, from a crate of its own (`tests/authors`): beside the built-in ones, through
//! a reload, and with a program that does not have it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn program(name: &str) -> Result<PathBuf> {
    Ok(bins::folder()?.join(name))
}

/// The cluster of the trials, whose net node speaks lines as well.
async fn speaking_lines(fixture: Fixture) -> Result<Cluster> {
    Cluster::installed(fixture, &program("master")?, &program("linesnode")?).await
}

/// A client that speaks lines.
struct LinesClient(BufReader<TcpStream>);

impl LinesClient {
    async fn connect(at: SocketAddr) -> Result<Self> {
        let mut client = Self(BufReader::new(TcpStream::connect(at).await?));
        client.send("LINES 1\n").await?;
        assert_eq!(client.line().await?, "LINES 1 OK");
        Ok(client)
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(text.as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.context("no line comes")??;
        ensure!(line.ends_with('\n'), "the connection has ended: {line:?}");
        Ok(line.trim_end().to_owned())
    }

    async fn ask(&mut self, text: &str) -> Result<String> {
        self.send(&format!("{text}\n")).await?;
        self.line().await
    }
}

#[tokio::test]
async fn an_authors_protocol_answers_by_request_ids_beside_the_built_in_ones() -> Result<()> {
    let cluster = speaking_lines(Fixture::trial()?).await?;
    let mut lines = LinesClient::connect(cluster.at("net")).await?;
    assert_eq!(lines.ask("1#7 hello").await?, "1#7 hello");
    // A concurrent handler's answer comes late, and says whose it is.
    lines.send("7#1 300\n7#2 1\n1#3 beside\n").await?;
    let mut answers = [lines.line().await?, lines.line().await?, lines.line().await?];
    assert_eq!(answers[2], "7#1 300");
    answers.sort();
    assert_eq!(answers, ["1#3 beside", "7#1 300", "7#2 1"]);
    // On another node, with an answer and with an error.
    assert_eq!(lines.ask("1001#8 1").await?, "1001#8 1");
    assert!(lines.ask("1002#9 x").await?.starts_with("!1002#9 panic "));
    assert_eq!(lines.ask("4711#9").await?, "!4711#9 no_route no handler and no route for command 4711");
    // A message that nobody has asked for.
    assert!(lines.ask("8#10 1").await?.starts_with("9 xxxx"));
    assert_eq!(lines.line().await?, "8#10 1");
    let mut firefly = cluster.client().await?;
    assert_eq!(firefly.call(1, b"as ever").await?, "as ever");
    assert_eq!(lines.ask("no command").await?, "BYE a line begins with COMMAND[#ID]");
    cluster.stop().await
}

#[tokio::test]
async fn connections_of_an_authors_protocol_go_through_a_reload_in_the_middle_of_a_line() -> Result<()> {
    let cluster = speaking_lines(Fixture::replaced()?).await?;
    let mut lines = LinesClient::connect(cluster.at("net")).await?;
    assert_eq!(lines.ask("1 first").await?, "1#1 first");
    lines.send("1 sec").await?;
    let before = cluster.pid("net").await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    assert_ne!(cluster.pid("net").await?, before);
    assert_eq!(lines.ask("ond").await?, "1#2 second");
    assert!(lines.ask("1001 1").await?.starts_with("1001#3 1"));
    // What waits for the opening to be whole goes on, too.
    let mut late = LinesClient(BufReader::new(TcpStream::connect(cluster.at("net")).await?));
    late.send("LIN").await?;
    cluster.until("net", "has both clients", |net| net["sessions"] == 2).await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    late.send("ES 1\n1 x\n").await?;
    assert_eq!((late.line().await?, late.line().await?), ("LINES 1 OK".to_owned(), "1#1 x".to_owned()));
    assert_eq!(lines.ask("1 on").await?, "1#4 on");
    cluster.stop().await
}

#[tokio::test]
async fn a_reload_to_a_program_without_a_protocol_that_is_spoken_is_refused_before_anything_moves()
-> Result<()> {
    let cluster = speaking_lines(Fixture::replaced()?).await?;
    let mut lines = LinesClient::connect(cluster.at("net")).await?;
    assert_eq!(lines.ask("1 first").await?, "1#1 first");
    let before = cluster.pids().await?;
    cluster.install_node(&program("testnode")?)?;
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 500, "{answer:?}");
    let why = "clients speak `lines` with the old process, and this program does not have that";
    assert!(answer.json()?["nodes"].to_string().contains(why), "{answer:?}");
    let net = cluster.pid("net").await?;
    assert!(before.contains(&net), "the old process goes on");
    assert_eq!(lines.ask("1 on").await?, "1#2 on");
    // Once nobody speaks it, the program is as good as any.
    drop(lines);
    cluster.until("net", "has no client", |net| net["sessions"] == 0).await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    assert_ne!(cluster.pid("net").await?, net);
    cluster.stop().await
}

#[tokio::test]
async fn a_config_names_the_protocols_and_one_that_no_program_has_is_a_fault_before_anything_moves()
-> Result<()> {
    let fixture = Fixture::replaced()?
        .replace(r#""limits""#, r#""client": { "protocols": ["lines", "firefly"] }, "limits""#);
    let cluster = speaking_lines(fixture).await?;
    let mut lines = LinesClient::connect(cluster.at("net")).await?;
    let before = cluster.pids().await?;
    cluster.install_node(&program("testnode")?)?;
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 409, "{answer:?}");
    let why =
        "this program has no protocol `lines` for clients; it has firefly, websocket-binary, websocket-json";
    assert!(answer.json()?["faults"].to_string().contains(why), "{answer:?}");
    assert_eq!(lines.ask("1 on").await?, "1#1 on");
    assert_eq!(cluster.pids().await?, before, "every old process goes on");
    // What is not in the list is not spoken.
    let mut socket = TcpStream::connect(cluster.at("net")).await?;
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    cluster.until_logged("illegal: the first bytes begin no lines, firefly").await?;
    cluster.stop().await
}

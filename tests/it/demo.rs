//! firefly's demo, as its users know it: the same bytes, the same nine lines, the same log in our format.

use std::process::Command;

use anyhow::Result;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;

/// What the demo shows on the client's side.
const NINE_LINES: &str = "\
----------------
send commandId: 100
netHandle_100 completed
----------------
send commandId: 200
gateHandle Completed
----------------
send commandId: 300
game1Handle completed
";

fn run_client(address: &str) -> Result<String> {
    let output = Command::new(bins::folder()?.join("client")).arg(address).output()?;
    Ok(String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?)
}

#[tokio::test]
async fn the_test_client_prints_the_seeds_nine_lines_and_the_nodes_log_the_seeds_story() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    assert_eq!(run_client(&cluster.at("net").to_string())?, NINE_LINES);
    for line in [
        "client connected",
        "call command 100: net_handle_100",
        "netHandle_100: msgdata",
        "netHandle_200: msgdata forward to gate",
        "call method gate_handle_1",
        "gateHandle: msgdata",
        "netHandle_300: msgdata forward to gate",
        "gateHandle2: msgdata forward to game1:",
        "call method game1_handle",
        "game1Handle: msgdata",
        "client logged out",
    ] {
        cluster.until_logged(line).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn the_demos_replies_are_fireflys_byte_for_byte() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    let header = |length: u8, command: u16| {
        let [high, low] = command.to_be_bytes();
        vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, length, 0, 0, high, low]
    };
    for (command, text) in
        [(100, "netHandle_100 completed"), (200, "gateHandle Completed"), (300, "game1Handle completed")]
    {
        client.send(command, b"msgdata").await?;
        let want = [header(text.len() as u8 + 4, command as u16), text.into()].concat();
        assert_eq!(client.receive_bytes(want.len()).await?, want, "{command}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_hundred_and_fifty_glued_requests_on_one_connection_come_back_in_order() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    let commands: Vec<u32> = (0..150).map(|n| [100, 200, 300][n % 3]).collect();
    let glued: Vec<u8> = commands.iter().flat_map(|&c| client.frame(c, b"msgdata")).collect();
    client.send_bytes(&glued).await?;
    let mut answered = Vec::new();
    for _ in &commands {
        answered.push(client.receive().await?.0);
    }
    assert_eq!(answered, commands);
    cluster.stop().await
}

#[tokio::test]
async fn requests_split_at_every_byte_are_answered() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    for byte in [client.frame(100, b"x"), client.frame(200, b"y")].concat() {
        client.send_bytes(&[byte]).await?;
    }
    assert_eq!(client.receive().await?, (100, "netHandle_100 completed".into()));
    assert_eq!(client.receive().await?, (200, "gateHandle Completed".into()));
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_its_answers() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    client.send(300, b"last words").await?;
    client.half_close().await?;
    assert_eq!(client.receive().await?, (300, "game1Handle completed".into()));
    client.until_closed().await?;
    cluster.stop().await
}

#[tokio::test]
async fn seed_003s_own_config_text_starts_unchanged() -> Result<()> {
    // The only test on fixed ports: they are the demo's.
    let text = std::fs::read_to_string(bins::root().join("crates/ffconfig/testdata/firefly.json"))?;
    let fixture = Fixture::fixed(&text, [("master", 9999), ("admin", 9998), ("gate", 10000), ("net", 10001)]);
    wait::until("the demo's ports are free", async || {
        match fixture.ports().find(|(_, at)| std::net::TcpListener::bind(at).is_err()) {
            None => Ok(()),
            Some((_, at)) => Err(format!("{at} is in use: is the sample cluster running?")),
        }
    })
    .await?;
    let cluster = Cluster::processes(fixture).await?;
    assert!(cluster.log().contains("given twice"), "the duplicate key is a warning");
    assert_eq!(run_client("127.0.0.1:10001")?, NINE_LINES);
    cluster.stop().await
}

//! A cluster over two hosts, which are two network namespaces: needs root and iproute2.

use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use socket2::{Domain, Socket, Type};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::host::Host;
use tests::trials::{Say, chaos};
use tests::wait;

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

/// Somebody who reads along.
struct Tap {
    socket: Socket,
    there: Ipv4Addr,
}

impl Tap {
    /// Of what goes over the cable from now on.
    fn of(host: &Host) -> Result<Self> {
        // ETH_P_ALL: this host's loopback, too, of which nothing comes from there or goes there.
        let all = socket2::Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all))?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, there: host.there().parse()? })
    }

    /// What has gone over the cable in TCP, one packet after the other.
    fn heard(mut self) -> Result<Vec<u8>> {
        let (mut all, mut frame) = (Vec::new(), vec![0; 1 << 17]);
        loop {
            match self.socket.read(&mut frame) {
                Ok(bytes) => {
                    // Ethernet, and IPv4 without options: source and destination.
                    let (frame, there) = (&frame[..bytes], self.there.octets());
                    if frame.get(26..30) == Some(&there) || frame.get(30..34) == Some(&there) {
                        all.extend_from_slice(&frame[34..]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The demo, whose game1 is on the other host.
fn two_hosts(host: &Host) -> Result<Fixture> {
    let text = r#"{
  "master": { "rootport": "0.0.0.0:@master", "webport": @admin, "roothost": "HERE", "token": "a-secret-of-sixteen" },
  "servers": {
    "gate":  { "rootport": "0.0.0.0:@gate", "app": "gateserver" },
    "net":   { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "host": "FAR", "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#;
    Fixture::new(&text.replace("HERE", &host.here()).replace("FAR", &host.there()))
}

#[tokio::test]
async fn a_node_on_another_host_is_started_there_registers_and_is_seen_here() -> Result<()> {
    let Some(host) = Host::or_skip() else { return Ok(()) };
    let fixture = two_hosts(&host)?;
    let cluster = Cluster::processes(fixture).await?;
    cluster.until_logged("to be started on their hosts by `master single NODE CONFIG`: game1").await?;
    let node = cluster.node("game1").await?;
    assert_eq!((&node["state"], &node["here"]), (&"absent".into(), &false.into()), "{node}");
    let error = cluster.client().await?.call_error(300, b"x").await?;
    assert_eq!(error.code, "no_node");

    let single = host.single("game1", &cluster)?;
    let node = cluster.until("game1", "registered from there", |node| node["state"] == "ready").await?;
    assert_eq!(node["host"], host.there().as_str(), "{node}");
    cluster.until_linked("game1", "gate").await?;
    let mut client = cluster.client().await?;
    client.call(300, b"over the cable").await?;

    // It is supervised there.
    let old = cluster.kill_hard("game1").await?;
    cluster.until_back("game1", old).await?;
    wait::until("it serves again", async || {
        client.call(300, b"again").await.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    let refused = cluster.admin("POST", "/nodes/game1/restart").await?;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("`master single game1 CONFIG` on its host"), "{refused:?}");
    // A reload leaves it alone, and links it to the new gate.
    let pid = cluster.pid("game1").await?;
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", cluster.log());
    assert_eq!(cluster.pid("game1").await?, pid);
    wait::until("it serves behind the new gate", async || {
        client.call(300, b"behind the new gate").await.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    cluster.stop_with([single]).await
}

/// Said by a client, and by the name of a method in the handshake.
const SECRETS: [&str; 2] = ["a secret of the player", "game1Handle"];

#[tokio::test]
async fn nothing_of_what_nodes_say_to_each_other_can_be_read_on_the_cable() -> Result<()> {
    let Some(host) = Host::or_skip() else { return Ok(()) };
    for encrypt in ["auto", "never"] {
        let master = format!("\"master\": {{ \"encrypt\": \"{encrypt}\",");
        let cluster = Cluster::processes(two_hosts(&host)?.replace("\"master\": {", &master)).await?;
        let tap = Tap::of(&host)?;
        let single = host.single("game1", &cluster)?;
        cluster.until_linked("game1", "gate").await?;
        cluster.client().await?.call(300, SECRETS[0].as_bytes()).await?;
        let heard = tap.heard()?;
        ensure!(heard.len() > 1000, "nothing of it has gone over the cable");
        let found = |secret: &str| heard.windows(secret.len()).any(|said| said == secret.as_bytes());
        let found = SECRETS.map(found);
        // That it is found without encryption shows that it would be.
        ensure!(found == [encrypt == "never"; 2], "{encrypt}: {found:?}");
        cluster.stop_with([single]).await?;
    }
    Ok(())
}

/// The games are killed and stopped there, the others and the master here, and the cable is unplugged.
#[tokio::test]
async fn chaos_over_two_hosts_loses_and_doubles_nothing() -> Result<()> {
    let Some(host) = Host::or_skip() else { return Ok(()) };
    drop(host);
    let (encrypt, two_hosts, plan) = (false, true, false);
    let size = chaos::Size {
        seconds: 30,
        seed: 2,
        connections: 60,
        deep: 1,
        per_s: 300.0,
        encrypt,
        two_hosts,
        plan,
    };
    chaos::run(&size, SAY).await
}

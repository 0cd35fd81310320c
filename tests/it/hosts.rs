//! A cluster over two hosts, which are two network namespaces: needs root and iproute2.

use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::single::Single;
use tests::wait;

/// Another host: a network namespace that reaches this one over a cable of its own. Dropping it removes it.
pub(crate) struct Host {
    pub(crate) name: String,
    subnet: String,
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}

impl Host {
    /// `None`, and why, where this cannot be tried.
    pub(crate) fn new() -> Option<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let name = format!("ff{pid}x{number}");
        let subnet = format!("10.{}.{}", 64 + 32 * (number % 6) + pid / 256 % 32, pid % 256);
        let host = Self { name, subnet };
        match host.connect() {
            Ok(()) => Some(host),
            Err(error) => {
                tests::skip::lacks_privilege(&format!("it needs root and iproute2: {error:#}"));
                None
            }
        }
    }

    fn connect(&self) -> Result<()> {
        ensure!(nix::unistd::geteuid().is_root(), "this is not root");
        let Self { name, subnet } = self;
        ip(&format!("netns add {name}")).context("no network namespaces")?;
        ip(&format!("link add {name}a type veth peer name {name}b"))?;
        ip(&format!("link set {name}b netns {name}"))?;
        ip(&format!("addr add {subnet}.1/24 dev {name}a"))?;
        ip(&format!("link set {name}a up"))?;
        ip(&format!("netns exec {name} ip addr add {subnet}.2/24 dev {name}b"))?;
        ip(&format!("netns exec {name} ip link set {name}b up"))?;
        ip(&format!("netns exec {name} ip link set lo up"))
    }

    /// The address of this host as that one reaches it.
    pub(crate) fn here(&self) -> String {
        format!("{}.1", self.subnet)
    }

    fn there(&self) -> String {
        format!("{}.2", self.subnet)
    }

    /// What goes over the cable from now on, until it is dropped.
    fn tap(&self) -> Result<Tap> {
        // ETH_P_ALL: this host's loopback, too, of which nothing comes from there or goes there.
        let all = socket2::Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all))?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_nonblocking(true)?;
        Ok(Tap { socket, there: self.there().parse()? })
    }

    /// `master single NODE CONFIG` there.
    fn single(&self, node: &str, cluster: &Cluster) -> Result<Single> {
        let config = cluster.folder().join("config.json");
        Single::start_by(&["ip", "netns", "exec", &self.name], node, &config)
    }
}

/// Somebody who reads along.
struct Tap {
    socket: Socket,
    there: Ipv4Addr,
}

impl Tap {
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

impl Drop for Host {
    fn drop(&mut self) {
        // The cable goes with its end.
        let _ = ip(&format!("netns del {}", self.name));
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
    let Some(host) = Host::new() else { return Ok(()) };
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
    cluster.stop_with(single).await
}

/// Said by a client, and by the name of a method in the handshake.
const SECRETS: [&str; 2] = ["a secret of the player", "game1Handle"];

#[tokio::test]
async fn nothing_of_what_nodes_say_to_each_other_can_be_read_on_the_cable() -> Result<()> {
    let Some(host) = Host::new() else { return Ok(()) };
    for encrypt in ["auto", "never"] {
        let master = format!("\"master\": {{ \"encrypt\": \"{encrypt}\",");
        let cluster = Cluster::processes(two_hosts(&host)?.replace("\"master\": {", &master)).await?;
        let tap = host.tap()?;
        let single = host.single("game1", &cluster)?;
        cluster.until_linked("game1", "gate").await?;
        cluster.client().await?.call(300, SECRETS[0].as_bytes()).await?;
        let heard = tap.heard()?;
        ensure!(heard.len() > 1000, "nothing of it has gone over the cable");
        let found = |secret: &str| heard.windows(secret.len()).any(|said| said == secret.as_bytes());
        let found = SECRETS.map(found);
        // That it is found without encryption shows that it would be.
        ensure!(found == [encrypt == "never"; 2], "{encrypt}: {found:?}");
        cluster.stop_with(single).await?;
    }
    Ok(())
}

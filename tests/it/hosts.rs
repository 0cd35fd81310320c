//! A cluster over two hosts, which are two network namespaces: needs root and iproute2.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let host = Self {
            name: format!("ff{pid}x{number}"),
            subnet: format!("10.{}.{}", 64 + (pid / 256 + 8 * number) % 64, pid % 256),
        };
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

    /// `master single NODE CONFIG` there.
    fn single(&self, node: &str, cluster: &Cluster) -> Result<Single> {
        let config = cluster.folder().join("config.json");
        Single::start_by(&["ip", "netns", "exec", &self.name], node, &config)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The cable goes with its end.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

#[tokio::test]
async fn a_node_on_another_host_is_started_there_registers_and_is_seen_here() -> Result<()> {
    let Some(host) = Host::new() else { return Ok(()) };
    let text = r#"{
  "master": { "rootport": "0.0.0.0:@master", "webport": @admin, "roothost": "HERE", "token": "a-secret-of-sixteen" },
  "servers": {
    "gate":  { "rootport": "0.0.0.0:@gate", "app": "gateserver" },
    "net":   { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "host": "FAR", "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#;
    let fixture = Fixture::new(&text.replace("HERE", &host.here()).replace("FAR", &host.there()))?;
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

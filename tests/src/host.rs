//! Another host, which is a network namespace of this one: needs root and iproute2.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::single::Single;
use crate::skip;

/// Another host: a network namespace that reaches this one over a cable of its own. Dropping it removes it.
pub struct Host {
    name: String,
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
    #[must_use]
    pub fn or_skip() -> Option<Self> {
        let host = Self::new();
        host.inspect_err(|error| skip::lacks_privilege(&format!("it needs root and iproute2: {error:#}")))
            .ok()
    }

    /// Makes it.
    ///
    /// # Errors
    /// This is not root, or there are no network namespaces here.
    pub fn new() -> Result<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let name = format!("ff{pid}x{number}");
        let subnet = format!("10.{}.{}", 64 + 32 * (number % 6) + pid / 256 % 32, pid % 256);
        let host = Self { name, subnet };
        host.connect()?;
        Ok(host)
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
    #[must_use]
    pub fn here(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// The address of that host.
    #[must_use]
    pub fn there(&self) -> String {
        format!("{}.2", self.subnet)
    }

    /// Words that run a program there.
    #[must_use]
    pub fn words(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Plugs the cable in, or out: nobody is told, and what is on its way is lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn plug(&self, is_in: bool) -> Result<()> {
        ip(&format!("link set {}a {}", self.name, if is_in { "up" } else { "down" }))
    }

    /// `master single NODE CONFIG` there.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn single(&self, node: &str, cluster: &Cluster) -> Result<Single> {
        Single::start_by(&self.words(), node, &cluster.folder().join("config.json"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The cable goes with its end.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

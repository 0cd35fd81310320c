//! Configs on free ports.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

use crate::host::Host;

/// A config whose ports are written as names: `"netport": @net`.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The text, with the ports filled in.
    pub text: String,
    ports: BTreeMap<String, u16>,
}

impl Fixture {
    /// Fills every `@name` in with a free port, the same for the same name.
    ///
    /// # Errors
    /// No free port.
    pub fn new(template: &str) -> Result<Self> {
        let (mut text, mut ports) = (String::new(), BTreeMap::new());
        let mut parts = template.split('@');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
            let (name, rest) = part.split_at(end);
            let port = match ports.get(name) {
                Some(&known) => known,
                None => free_port()?,
            };
            ports.insert(name.to_owned(), port);
            text.push_str(&format!("{port}{rest}"));
        }
        Ok(Self { text, ports })
    }

    /// A text with its own ports, under names.
    #[must_use]
    pub fn fixed<const N: usize>(text: &str, ports: [(&str, u16); N]) -> Self {
        let ports = ports.into_iter().map(|(name, port)| (name.to_owned(), port)).collect();
        Self { text: text.to_owned(), ports }
    }

    /// firefly's demo: net → gate → game1.
    ///
    /// # Errors
    /// No free port.
    pub fn demo() -> Result<Self> {
        Self::new(
            r#"{
  "master": { "rootport": @master, "webport": @admin },
  "servers": {
    "gate":  { "rootport": @gate, "app": "app.gateserver" },
    "net":   { "netport": @net, "remoteport": [{ "rootport": @gate, "rootname": "gate" }], "app": "app.netserver" },
    "game1": { "remoteport": [{ "rootport": @gate, "rootname": "gate" }], "app": "app.game1server" }
  }
}"#,
        )
    }

    /// The same with a part of the text replaced.
    ///
    /// # Panics
    /// When the text has no such part: a fault of the test.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "no {from} in {}", self.text);
        self.text = self.text.replacen(from, to, 1);
        self
    }

    /// Every port by its name.
    pub fn ports(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.ports.iter().map(|(name, port)| (name.as_str(), (Ipv4Addr::LOCALHOST, *port).into()))
    }

    /// Two game nodes behind a gate, with every handler that complains: see `tests/apps/src/trial.rs`.
    ///
    /// # Errors
    /// No free port.
    pub fn trial() -> Result<Self> {
        Self::trial_with(1000)
    }

    /// The same with another `limits.call_timeout_ms`.
    ///
    /// # Errors
    /// No free port.
    pub fn trial_with(call_timeout_ms: u64) -> Result<Self> {
        // A node that is killed again and again is back at once: how long it waits is another test's matter.
        let text = r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100, "max": 0 } },
  "limits": { "call_timeout_ms": TIMEOUT },
  "servers": {
    "gate": { "rootport": @gate, "app": "trialgate" },
    "net":  { "netport": @net, "webport": @web, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1000, 1999]] }, "stateless": [[1500, 1599]] } },
    "game": { "count": 2, "type": "game", "remoteport": [{ "rootname": "gate" }], "app": "trialgame" }
  }
}"#;
        Self::new(&text.replace("TIMEOUT", &call_timeout_ms.to_string()))
    }

    /// The same for replacements; only game nodes have a world to hand over, see `tests/apps/src/trial/world.rs`. gate has a webport too, and what a new binary does wrong shows early.
    ///
    /// # Errors
    /// No free port.
    pub fn replaced() -> Result<Self> {
        Self::new(
            r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100 } },
  "limits": { "start_s": 5, "hang_s": 3, "prove_ms": 1500 },
  "servers": {
    "gate": { "rootport": @gate, "webport": @gateweb, "app": "trialgate" },
    "net":  { "netport": @net, "webport": @web, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1000, 1999]] } } },
    "game": { "count": 2, "type": "game", "remoteport": [{ "rootname": "gate" }], "app": "trialgame" }
  }
}"#,
        )
    }

    /// The same with the nodes of these entries in one process, `world`.
    ///
    /// # Panics
    /// When the config has no such entry: a fault of the test.
    #[must_use]
    pub fn together(self, entries: &[&str]) -> Self {
        let in_world = |fixture: Self, entry: &&str| {
            let mark = format!("\"{entry}\":");
            let opens = |at: &usize| fixture.text[at + mark.len()..].trim_start().starts_with('{');
            let at = fixture.text.match_indices(&mark).map(|(at, _)| at).find(opens);
            let (before, rest) = fixture.text.split_at(at.unwrap_or(fixture.text.len()));
            let text = format!("{before}{}", rest.replacen('{', r#"{ "process": "world","#, 1));
            assert_ne!(text, fixture.text, "no entry {entry}");
            Self { text, ..fixture }
        };
        entries.iter().fold(self, in_world)
    }

    /// The same with all links and control connections encrypted, on loopback too.
    #[must_use]
    pub fn encrypted(self) -> Self {
        self.replace("\"master\": {", "\"master\": { \"encrypt\": \"always\",")
    }

    /// The same of [`Fixture::chaos`] with its game nodes on that host.
    #[must_use]
    pub fn with_games_at(self, host: &Host) -> Self {
        let port = |name| format!(r#""rootport": {}"#, self.at(name).port());
        let open = |name| format!(r#""rootport": "0.0.0.0:{}""#, self.at(name).port());
        let master =
            format!(r#""roothost": "{}", "token": "a-secret-of-sixteen", {}"#, host.here(), open("master"));
        let game = format!(r#""game": {{ "host": "{}","#, host.there());
        let (gate, opened) = (port("gate"), open("gate"));
        let master_was = port("master");
        self.replace(&master_was, &master).replace(&gate, &opened).replace(r#""game": {"#, &game)
    }

    /// The same with worlds at net and gate, too.
    #[must_use]
    pub fn with_worlds(self) -> Self {
        self.replace("trialgate", "worldgate").replace("trialnet", "worldnet")
    }

    /// The same for chaos: two net nodes, so that clients of one are not closed with those of the other, and
    /// a node that hangs is left alone for `hang_s`.
    ///
    /// # Errors
    /// No free port.
    pub fn chaos(hang_s: u64) -> Result<Self> {
        let text = r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 500, "max": 0 } },
  "limits": { "hang_s": HANG },
  "servers": {
    "gate": { "rootport": @gate, "app": "trialgate" },
    "net1": { "netport": @net1, "webport": @web, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1000, 1999]] } } },
    "net2": { "netport": @net2, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1000, 1999]] } } },
    "game": { "count": 2, "type": "game", "remoteport": [{ "rootname": "gate" }], "app": "trialgame" }
  }
}"#;
        Self::new(&text.replace("HANG", &hang_s.to_string()))
    }

    /// The same with a third game node, `spare`, of a kind that no client's message goes to.
    #[must_use]
    pub fn with_spare(self) -> Self {
        let spare = r#""spare": { "remoteport": [{ "rootname": "gate" }], "app": "trialgame" }, "game": {"#;
        self.replace(r#""game": { "count""#, &format!(r#"{spare} "count""#))
    }

    /// Two net nodes and two halls behind a gate: see `tests/apps/src/hall.rs`.
    ///
    /// # Errors
    /// No free port.
    pub fn hall() -> Result<Self> {
        Self::new(
            r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100 } },
  "limits": { "net_lost_ms": 3000 },
  "servers": {
    "gate": { "rootport": @gate, "app": "hallgate" },
    "net":  { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "hallnet",
              "route": { "range": { "hall": [[2000, 2999]] }, "stateless": [2000] } },
    "net2": { "netport": @net2, "remoteport": [{ "rootname": "gate" }], "app": "hallnet",
              "route": { "range": { "hall": [[2000, 2999]] }, "stateless": [2000] } },
    "hall": { "count": 2, "remoteport": [{ "rootname": "gate" }], "app": "hall" }
  }
}"#,
        )
    }

    /// The same with a `login` on both net nodes, of these keys: 100 decides on the net node, 101 on its gate,
    /// 2110 on a hall.
    ///
    /// # Errors
    /// No free port.
    pub fn login(keys: &str) -> Result<Self> {
        let mut fixture = Self::hall()?;
        fixture.text = fixture.text.replace("\"route\":", &format!("\"login\": {{ {keys} }}, \"route\":"));
        Ok(fixture)
    }

    /// Four levels of gates with two at each, and rooms at their end: see `tests/apps/src/maze.rs`.
    ///
    /// # Errors
    /// No free port.
    pub fn maze() -> Result<Self> {
        Self::new(
            r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100 } },
  "servers": {
    "hub":   { "rootport": @hub, "app": "mazegate", "type": "hub" },
    "gate1": { "rootport": @gate1, "app": "mazegate", "remoteport": [{ "rootname": "hub" }] },
    "gate2": { "rootport": @gate2, "app": "mazegate", "remoteport": [{ "rootname": "hub" }] },
    "far1":  { "rootport": @far1, "app": "mazegate", "remoteport": [{ "rootname": "hub" }] },
    "far2":  { "rootport": @far2, "app": "mazegate", "remoteport": [{ "rootname": "hub" }] },
    "net":   { "netport": @net, "app": "mazenet", "limits": { "hops_max": 16 },
               "remoteport": [{ "rootname": "gate1" }, { "rootname": "gate2" }],
               "route": { "range": { "room": [[3000, 3099]], "lobby": [[3100, 3299]] },
                          "to": { "room.2": [3010] }, "stateless": [3001] } },
    "net2":  { "netport": @net2, "app": "mazenet", "remoteport": [{ "rootname": "gate2" }],
               "route": { "range": { "room": [[3000, 3999]] } } },
    "room":  { "count": 2, "app": "mazeroom", "type": "room",
               "remoteport": [{ "rootname": "far1" }, { "rootname": "far2" }] },
    "lobby": { "app": "mazelobby", "type": "lobby", "remoteport": [{ "rootname": "far1" }],
               "route": { "range": { "room": [[3200, 3299]] } } }
  }
}"#,
        )
    }

    /// Nodes whose handlers come and go, see `tests/apps/src/turnover.rs`, and one that takes no clients' messages at first.
    ///
    /// # Errors
    /// No free port.
    pub fn turnover() -> Result<Self> {
        Self::new(
            r#"{
  "master": { "rootport": @master, "webport": @admin },
  "servers": {
    "gate": { "rootport": @gate, "app": "turngate" },
    "net":  { "netport": @net, "app": "turnnet", "remoteport": [{ "rootname": "gate" }],
              "route": { "range": { "game": [[200, 299]], "late": [[300, 300]] } } },
    "game": { "app": "turngame", "type": "game", "remoteport": [{ "rootname": "gate" }] },
    "late": { "app": "turnlate", "type": "late", "remoteport": [{ "rootname": "gate" }] }
  }
}"#,
        )
    }

    /// A net node on its own, with these limits.
    ///
    /// # Errors
    /// No free port.
    pub fn solo(limits: &str) -> Result<Self> {
        let text = r#"{
  "master": { "rootport": @master, "webport": @admin },
  "limits": { LIMITS },
  "servers": { "net": { "netport": @net, "app": "trialsolo" } }
}"#;
        Self::new(&text.replace("LIMITS", limits))
    }

    /// Where the port of that name is.
    ///
    /// # Panics
    /// When the template has no such name: a fault of the test.
    #[must_use]
    pub fn at(&self, name: &str) -> SocketAddr {
        let port = self.ports.get(name).unwrap_or_else(|| panic!("no @{name} in {}", self.text));
        (Ipv4Addr::LOCALHOST, *port).into()
    }
}

/// A port that nobody listens on, below the range that the kernel gives to outgoing connections, and not
/// given out before by this process.
///
/// # Errors
/// None is free.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at a time start at different places.
    let offset = (std::process::id() % 180) as u16 * 100;
    for _ in 0..COUNT {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset.wrapping_add(n)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

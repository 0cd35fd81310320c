//! A stranger: somebody on the host, or on the network, who knows the config and the protocol and has no key, and what each
//! of his attacks comes to.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bincode::Options;
use ffambient::Ambient;
use ffconfig::Cluster;
use ffkeys::{ClusterKeys, ClusterSecret};
use ffnet::handshake::{HandshakeError, Local};
use ffnet::{channel, key_desk};
use ffproto::control::{ControlMessage, ToMaster};
use ffproto::credential::{Claims, Signature};
use ffproto::encrypt::Encrypt;
use ffproto::handshake::{Hello, Methods, Opening, PREAMBLE_BYTES, Purpose, Reply, Transcript};
use ffproto::link::{Head, Kind};
use ffproto::{Incarnation, NodeName, Version, Versions};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// What an acceptor says to everybody: its preamble and its nonce.
const FIRST_WORDS: usize = PREAMBLE_BYTES + 32;
/// Longer than a handshake may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who has no key of the cluster.
pub struct Stranger {
    cluster: Cluster,
    host: IpAddr,
    run: PathBuf,
    ambient: Ambient,
    /// Those of a secret of his own.
    keys: ClusterKeys,
}

/// One attack, and what it has brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Attack {
    /// What was tried.
    pub what: String,
    /// What was got by it; `None`: nothing.
    pub got: Option<String>,
}

/// A port that nodes dial.
struct Port {
    at: SocketAddr,
    purpose: Purpose,
    to: NodeName,
}

impl Stranger {
    /// Somebody who knows the config of a cluster, reaches its ports at `host`, and its master's run folder at `run`.
    ///
    /// # Errors
    /// There is no chance.
    pub fn new(cluster: Cluster, host: IpAddr, run: PathBuf) -> Result<Self> {
        let ambient = Ambient::system();
        let keys = ClusterKeys::new(&ClusterSecret::new(&ambient.chance)?, 0, None)?;
        Ok(Self { cluster, host, run, ambient, keys })
    }

    /// Everything that a stranger can think of.
    ///
    /// # Errors
    /// An attack could not be tried: it has shown nothing.
    pub async fn attack(&self) -> Result<Vec<Attack>> {
        let mut attacks = self.files().await;
        for port in self.ports() {
            for (claims, incarnation) in self.claims()? {
                for encrypt in [Encrypt::Never, Encrypt::Always] {
                    attacks.push(self.link(&port, &claims, incarnation, encrypt).await?);
                }
                attacks.push(self.hurry(&port, &claims, incarnation).await?);
            }
            attacks.extend(self.noise(&port).await?);
        }
        Ok(attacks)
    }

    fn ports(&self) -> Vec<Port> {
        let at = |port| SocketAddr::from((self.host, port));
        let control = Port {
            at: at(self.cluster.master.rootport.port()),
            purpose: Purpose::Control,
            to: NodeName::master(),
        };
        let links = self.cluster.nodes.iter().filter_map(|node| {
            let port = node.rootport?.port();
            Some(Port { at: at(port), purpose: Purpose::Link, to: node.name.clone() })
        });
        links.chain([control]).collect()
    }

    /// Whom he says to be: every node of the config, in the starts of now and of the end of all time, and one of no config.
    fn claims(&self) -> Result<Vec<(Claims, Incarnation)>> {
        let now = Incarnation::next(self.ambient.clock.now_ms(), None);
        let mut all: Vec<Claims> = self.cluster.nodes.iter().map(|node| self.cluster.claims(node)).collect();
        let evil = NodeName::try_from("evil-not-in-config")?;
        let below = self.cluster.nodes.iter().map(|node| node.kind.clone()).collect();
        let like = all.first().context("a config without nodes")?.clone();
        all.push(Claims { name: evil, below, ..like });
        let starts = |claims: Claims| [(claims.clone(), now), (claims, Incarnation(u64::MAX))];
        Ok(all.into_iter().flat_map(starts).collect())
    }

    fn local(&self, claims: &Claims, incarnation: Incarnation) -> Result<Local> {
        Ok(Local {
            keys: Arc::new(self.keys.start(claims.clone(), incarnation, &self.ambient.chance)?),
            versions: Versions::OURS,
            methods: vec!["@@to".to_owned()],
            chance: self.ambient.chance.clone(),
            clock: self.ambient.clock.clone(),
            binding: Vec::new(),
        })
    }

    /// The handshake as nodes do it, with a key of his own, and the end of the connection.
    async fn link(
        &self,
        port: &Port,
        claims: &Claims,
        incarnation: Incarnation,
        encrypt: Encrypt,
    ) -> Result<Attack> {
        let local = self.local(claims, incarnation)?;
        let stream = TcpStream::connect(port.at).await.with_context(|| port.at.to_string())?;
        let dialled = channel::dial(stream, encrypt, port.purpose, local, &port.to, Incarnation(0)).await;
        let got = match dialled {
            // Beyond the host an unencrypted one gets no further than the word that it is one.
            Err(HandshakeError::Silent | HandshakeError::UnencryptedHere) => None,
            other => Some(format!("{other:?}")),
        };
        let what =
            format!("{} as {} in its start {incarnation}, encrypted: {encrypt:?}", port.to, claims.name);
        Ok(Attack { what, got })
    }

    /// The same, with everything that a node says after it sent at once: frames to push and to broadcast, or a
    /// registration with another root address.
    async fn hurry(&self, port: &Port, claims: &Claims, incarnation: Incarnation) -> Result<Attack> {
        let local = self.local(claims, incarnation)?;
        let mut stream = TcpStream::connect(port.at).await.with_context(|| port.at.to_string())?;
        let ours = port.purpose.preamble(local.versions);
        let mut theirs = [0; PREAMBLE_BYTES];
        stream.write_all(&ours).await?;
        let mut nonce = [0; 32];
        let what = format!("{} as {} in its start {incarnation}, without waiting", port.to, claims.name);
        // Who takes encrypted connections only ends this one without a nonce.
        if stream.read_exact(&mut theirs).await.is_err() || stream.read_exact(&mut nonce).await.is_err() {
            return Ok(Attack { what, got: None });
        }
        let (purpose, version) = (port.purpose, Versions::OURS.max);
        let (dialer, acceptor, nonce) = (&ours, &theirs, &nonce);
        let mut hello = Hello {
            credential: local.keys.credential().clone(),
            to: port.to.clone(),
            nonce: [7; 32],
            pid: 1,
            program: String::new(),
            signature: Signature([0; 32], [0; 32]),
        };
        let opening = Opening { purpose, version, dialer, acceptor, nonce, binding: &[] };
        hello.signature = local.keys.sign(&Transcript { opening, hello: &hello }.of_dialer());
        let mut bytes = message(&hello)?;
        bytes.extend(message(&Reply::Methods(Methods(local.methods)))?);
        bytes.extend(match purpose {
            Purpose::Control => registration(version)?,
            Purpose::Link => frames(),
        });
        let _ = stream.write_all(&bytes).await;
        let heard = rest_of(stream).await?;
        Ok(Attack { what, got: (!heard.is_empty()).then(|| format!("{heard:?}")) })
    }

    /// Bytes that prove nothing, and what the acceptor says itself.
    async fn noise(&self, port: &Port) -> Result<Vec<Attack>> {
        let preamble = port.purpose.preamble(Versions::OURS);
        let other = match port.purpose {
            Purpose::Control => Purpose::Link,
            Purpose::Link => Purpose::Control,
        };
        let mut attacks = Vec::new();
        for (what, bytes) in [
            ("nothing", vec![]),
            ("half a preamble", preamble[..6].to_vec()),
            ("a preamble for another purpose", other.preamble(Versions::OURS).to_vec()),
            ("a Hello of zeros", [&preamble[..], &100_u32.to_le_bytes(), &[0; 100]].concat()),
            ("a Hello that is too long", [&preamble[..], &5000_u32.to_le_bytes(), &[0; 5000]].concat()),
            ("frames instead of a Hello", [&preamble[..], &frames()].concat()),
            ("a ClientHello of zeros", [&[0x16, 3, 1, 1, 0, 1, 0, 0, 252][..], &[0; 252]].concat()),
            ("half a ClientHello", [&[0x16, 3, 1, 64, 0, 1, 0, 63, 252][..], &[0; 8000]].concat()),
            ("a request of HTTP", b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ] {
            let mut stream = TcpStream::connect(port.at).await?;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            attacks.push(heard_of(port, what, &rest_of(stream).await?));
        }
        let mut stream = TcpStream::connect(port.at).await?;
        // An acceptor waits for the first byte: it tells whether the connection is encrypted.
        let _ = stream.write_all(&preamble).await;
        let mut words = vec![0; FIRST_WORDS];
        let heard = stream.read(&mut words).await.unwrap_or_default();
        words.truncate(heard);
        let _ = stream.write_all(&words.repeat(200)).await;
        let _ = stream.shutdown().await;
        words.extend(rest_of(stream).await?);
        attacks.push(heard_of(port, "its own words", &words));
        Ok(attacks)
    }

    /// What lies in the run folder, and the desk there.
    async fn files(&self) -> Vec<Attack> {
        let mut attacks = Vec::new();
        for file in ["secret", "nodes.json", "lock"] {
            let read = std::fs::read(self.run.join(file));
            let got = read.ok().map(|bytes| format!("{} bytes", bytes.len()));
            attacks.push(Attack { what: format!("to read `{file}`"), got });
        }
        let list = std::fs::read_dir(&self.run).ok().map(|list| format!("{} files", list.count()));
        attacks.push(Attack { what: "to list the run folder".into(), got: list });
        let uid = std::fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or_default();
        for node in &self.cluster.nodes {
            let what = format!("the key desk, for {}, by user {uid}", node.name);
            attacks.push(Attack { what, got: self.desk(&node.name).await });
        }
        attacks
    }

    /// Asks for a key; what is said is what was got, and so is a key.
    async fn desk(&self, name: &NodeName) -> Option<String> {
        let mut stream = UnixStream::connect(self.run.join(key_desk::SOCKET)).await.ok()?;
        let now = self.ambient.clock.now_ms();
        let question = [format!("{name}\n").as_bytes(), &now.to_le_bytes()].concat();
        let _ = stream.write_all(&question).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        Some(match answer.split_first() {
            Some((0, why)) => format!("a refusal: {}", String::from_utf8_lossy(why)),
            other => format!("{other:?}"),
        })
    }
}

/// What an acceptor has said: nothing, but for what it says to everybody.
fn heard_of(port: &Port, what: &str, heard: &[u8]) -> Attack {
    let got = (heard.len() > FIRST_WORDS).then(|| format!("{heard:?}"));
    Attack { what: format!("{}, sent {what}", port.to), got }
}

/// Everything until the end of the connection, which may be a reset.
async fn rest_of(mut stream: TcpStream) -> Result<Vec<u8>> {
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    ensure!(ended.is_ok(), "a connection that has proved nothing is still open after {PATIENCE:?}");
    Ok(heard)
}

fn message(message: &impl Serialize) -> Result<Vec<u8>> {
    let body = bincode::DefaultOptions::new().with_fixint_encoding().serialize(message)?;
    Ok(framed(&body))
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// What a node registers with, somewhere else than where it is.
fn registration(version: Version) -> Result<Vec<u8>> {
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let ready = ToMaster::Ready { root: Some(elsewhere), net: None, web: None };
    Ok(framed(&ready.to_bytes(version).context("no bytes")?))
}

/// A call and a notify of each of the first methods, which are those that nodes call each other by.
fn frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    for method in 0..16 {
        for kind in [Kind::Notify, Kind::Call] {
            let head = Head { method, call: 1, time_left_ms: 1000, ..Head::new(kind) };
            head.write(b"from a stranger", &mut bytes);
        }
    }
    bytes
}

//! A rogue: a link with a node's own proven key, which says on it whatever a test wants.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ffnet::handshake::dial;
use ffproto::handshake::Purpose;
use ffproto::link::{self, Client, Head, Kind};
use ffproto::relay::{self, Op, ReachChange, Reachable};
use ffproto::{Code, CommandId, Fault, Incarnation, NodeName, NodeNumber, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// A rogue node on a link of its own. Heartbeats are answered, what else comes but answers is thrown away.
pub struct Rogue {
    /// The name that the key is for.
    pub name: NodeName,
    /// The incarnation of the key.
    pub incarnation: Incarnation,
    methods: Vec<String>,
    writing: Arc<Mutex<OwnedWriteHalf>>,
    answers: mpsc::UnboundedReceiver<Result<Bytes, Fault>>,
    reader: JoinHandle<Result<()>>,
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Rogue {
    /// Links to the gate as the node `name`, of the config's key `like`, in its newest incarnation.
    ///
    /// # Errors
    /// The gate does not let it link.
    pub async fn link(cluster: &Cluster, like: &str, name: &str) -> Result<Self> {
        let incarnation = Incarnation(ffserver::Clock::system().now_ms());
        let mut stream = TcpStream::connect(cluster.at("gate")).await?;
        let local = cluster.local_of(like, name, incarnation)?;
        let peer = dial(&mut stream, Purpose::Link, &local, &NodeName::try_from("gate")?).await?;
        let (reading, writing) = stream.into_split();
        let writing = Arc::new(Mutex::new(writing));
        let (answered, answers) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(reading, writing.clone(), answered));
        let name = NodeName::try_from(name)?;
        Ok(Self { name, incarnation, methods: peer.methods, writing, answers, reader })
    }

    /// Its own entry, as the node of that number.
    #[must_use]
    pub fn entry(&self, number: u16, kind: &str) -> Reachable {
        Reachable {
            number: NodeNumber(number),
            name: self.name.clone(),
            kind: kind.to_owned(),
            net: false,
            incarnation: self.incarnation,
            since: SessionId(u64::from(number) << 52),
        }
    }

    /// Says that it reaches these nodes, and no others.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn reach(&self, nodes: Vec<Reachable>) -> Result<()> {
        let change = ReachChange { all: true, add: nodes, remove: Vec::new() };
        let body = bincode::serialize(&change)?;
        self.send(Kind::Notify, relay::REACH, None, 0, &body).await
    }

    /// Writes a frame; the time left is that of a call.
    ///
    /// # Errors
    /// The link has ended, or the gate has no such method.
    pub async fn send(
        &self,
        kind: Kind,
        method: &str,
        about: Option<(SessionId, u32)>,
        time_left_ms: u32,
        body: &[u8],
    ) -> Result<()> {
        let known = self.methods.iter().position(|known| known == method);
        let method = u16::try_from(known.with_context(|| format!("no `{method}` in {:?}", self.methods))?)?;
        let client = |(session, command)| Client { session, command: CommandId(command), stateless: false };
        let head = Head { method, call: 7, time_left_ms, client: about.map(client), ..Head::new(kind) };
        let mut out = Vec::new();
        head.write(body, &mut out);
        Ok(self.writing.lock().await.write_all(&out).await?)
    }

    /// Calls a method of the gate, and waits for the outcome.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn call(
        &mut self,
        method: &str,
        about: Option<(SessionId, u32)>,
        body: &[u8],
    ) -> Result<Result<Bytes, Fault>> {
        self.send(Kind::Call, method, about, 5000, body).await?;
        self.answered().await
    }

    /// Waits for the outcome of the call.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn answered(&mut self) -> Result<Result<Bytes, Fault>> {
        self.answers.recv().await.context("the link was closed")
    }

    /// Sends another node an envelope as a call, and waits for the outcome.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn ask(
        &mut self,
        (from, to): (u16, u16),
        op: Op,
        session: Option<SessionId>,
        payload: &[u8],
    ) -> Result<Result<Bytes, Fault>> {
        let body = envelope((from, to), op, payload);
        self.call(relay::TO, session.map(|session| (session, 9)), &body).await
    }

    /// Sends another node an envelope as a notify.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn tell(
        &self,
        (from, to): (u16, u16),
        op: Op,
        session: Option<SessionId>,
        payload: &[u8],
    ) -> Result<()> {
        let body = envelope((from, to), op, payload);
        self.send(Kind::Notify, relay::TO, session.map(|session| (session, 9)), 0, &body).await
    }
}

/// The body of an envelope.
#[must_use]
pub fn envelope((from, to): (u16, u16), op: Op, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    relay::write(NodeNumber(to), NodeNumber(from), op, payload, &mut body);
    body
}

async fn read(
    mut reading: OwnedReadHalf,
    writing: Arc<Mutex<OwnedWriteHalf>>,
    answered: mpsc::UnboundedSender<Result<Bytes, Fault>>,
) -> Result<()> {
    let mut received = Vec::new();
    loop {
        while let Some(frame) = link::read(&received, 1 << 24)? {
            let (head, body, bytes) = (frame.head, Bytes::copy_from_slice(frame.body), frame.bytes);
            received.drain(..bytes);
            match head.kind {
                Kind::Ping => {
                    let mut pong = Vec::new();
                    Head::new(Kind::Pong).write(&[], &mut pong);
                    writing.lock().await.write_all(&pong).await?;
                }
                Kind::Reply | Kind::Done if head.call == 7 => drop(answered.send(Ok(body))),
                Kind::Fault if head.call == 7 => {
                    drop(answered.send(Err(Fault::read_body(Code::from_number(head.method), &body)?)));
                }
                _ => {}
            }
        }
        if reading.read_buf(&mut received).await? == 0 {
            bail!("the link was closed");
        }
    }
}

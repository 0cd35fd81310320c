//! The shell of the handshake: moves the messages of `ffproto::handshake` over a connection, on both sides, within one
//! deadline.

use std::io;
use std::time::Duration;

use bincode::Options;
use ffambient::Chance;
use ffproto::handshake::{
    BadPreamble, Challenge, FromAcceptor, FromDialer, Hello, MESSAGE_BYTES_MAX, Nonce, PREAMBLE_BYTES,
    Purpose, Refusal, Side, Transcript, fence,
};
use ffproto::{ClusterName, Incarnation, NodeName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A handshake takes a few round trips; a peer that needs longer than this is not one of ours.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// This side of a handshake, as it tells the other.
#[derive(Debug, Clone)]
pub struct Local {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node.
    pub name: NodeName,
    /// The node's kind.
    pub kind: String,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The methods that the other side may call, in the order of their numbers.
    pub methods: Vec<String>,
    /// The shared token; empty when the config has none.
    pub token: String,
    /// Where this side's nonces come from: the system's outside of tests, for a proof is worth what its nonce is.
    pub chance: Chance,
}

/// The peer: what the other side has told of itself, and has proved.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The peer's name.
    pub name: NodeName,
    /// The node's kind.
    pub kind: String,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The peer's process id; 0 for an acceptor, which does not tell it.
    pub pid: u32,
    /// The version of the peer's program; empty for an acceptor.
    pub program: String,
    /// The methods that may be called on the peer, in the order of their numbers.
    pub methods: Vec<String>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Another version, another purpose, or another protocol.
    #[error(transparent)]
    Preamble(BadPreamble),
    /// This side refused; the other side has been told.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side refused and said why.
    #[error("refused by the other side: {0}")]
    RefusedByPeer(Refusal),
    /// A message was too long or no message.
    #[error("a malformed handshake message")]
    Malformed,
    /// Nothing within [`DEADLINE`].
    #[error("no handshake within {} s", DEADLINE.as_secs())]
    TooSlow,
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Io(#[from] io::Error),
}

/// Opens a connection that this side dialled: `to` is whom it expects there.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use then.
pub async fn dial<S>(
    io: &mut S,
    purpose: Purpose,
    local: &Local,
    to: &NodeName,
) -> Result<Peer, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    dial_start(io, purpose, local, to, Incarnation(0)).await
}

/// As [`dial`], for the incarnation `since` of `to`, or a later one: an older process that answers there is left before
/// it has taken anything for a link.
///
/// # Errors
/// [`HandshakeError`]; [`Refusal::Older`] in it when an older process answers.
pub async fn dial_start<S>(
    io: &mut S,
    purpose: Purpose,
    local: &Local,
    to: &NodeName,
    since: Incarnation,
) -> Result<Peer, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within_deadline(async {
        preambles(io, purpose).await?;
        let nonce = new_nonce(&local.chance)?;
        let hello = Hello {
            cluster: local.cluster.to_string(),
            name: local.name.clone(),
            kind: local.kind.clone(),
            incarnation: local.incarnation,
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").into(),
            to: to.clone(),
            nonce,
            methods: local.methods.clone(),
        };
        send(io, &FromDialer::Hello(hello)).await?;
        let challenge = match receive(io).await? {
            FromAcceptor::Challenge(challenge) => challenge,
            FromAcceptor::Refused(why) => return Err(HandshakeError::RefusedByPeer(why)),
            FromAcceptor::Welcome => return refuse_acceptor(io, Refusal::Unexpected).await,
        };
        let transcript = Transcript {
            purpose,
            cluster: &local.cluster,
            dialer: (&local.name, local.incarnation, &nonce),
            acceptor: (&challenge.name, challenge.incarnation, &challenge.nonce),
        };
        if challenge.name != *to {
            let why = Refusal::Name { ours: challenge.name.clone(), wanted: to.clone() };
            return refuse_acceptor(io, why).await;
        }
        if let Err(why) = fence(to, Some(since), challenge.incarnation) {
            return refuse_acceptor(io, why).await;
        }
        if let Err(why) = transcript.check(&local.token, Side::Acceptor, &challenge.proof) {
            return refuse_acceptor(io, why).await;
        }
        send(io, &FromDialer::Proof(transcript.prove(&local.token, Side::Dialer))).await?;
        match receive(io).await? {
            FromAcceptor::Welcome => Ok(Peer {
                name: challenge.name,
                kind: challenge.kind,
                incarnation: challenge.incarnation,
                pid: 0,
                program: String::new(),
                methods: challenge.methods,
            }),
            FromAcceptor::Refused(why) => Err(HandshakeError::RefusedByPeer(why)),
            FromAcceptor::Challenge(_) => Err(HandshakeError::Malformed),
        }
    })
    .await
}

/// Opens a connection that this side accepted. `admit` decides on names and incarnations; it is asked
/// after the cluster has been compared and before anything is proved, so it must not change any state.
///
/// # Errors
/// [`HandshakeError`]; the other side has been told the reason where there was one to tell.
pub async fn accept<S>(
    io: &mut S,
    purpose: Purpose,
    local: &Local,
    admit: impl FnOnce(&Hello) -> Result<(), Refusal>,
) -> Result<Peer, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within_deadline(async {
        preambles(io, purpose).await?;
        let hello = match receive(io).await? {
            FromDialer::Hello(hello) => hello,
            FromDialer::Refused(why) => return Err(HandshakeError::RefusedByPeer(why)),
            FromDialer::Proof(_) => return refuse_dialer(io, Refusal::Unexpected).await,
        };
        if let Err(why) = check_hello(local, &hello).and_then(|()| admit(&hello)) {
            return refuse_dialer(io, why).await;
        }
        let nonce = new_nonce(&local.chance)?;
        let transcript = Transcript {
            purpose,
            cluster: &local.cluster,
            dialer: (&hello.name, hello.incarnation, &hello.nonce),
            acceptor: (&local.name, local.incarnation, &nonce),
        };
        let challenge = Challenge {
            name: local.name.clone(),
            kind: local.kind.clone(),
            incarnation: local.incarnation,
            nonce,
            proof: transcript.prove(&local.token, Side::Acceptor),
            methods: local.methods.clone(),
        };
        send(io, &FromAcceptor::Challenge(challenge)).await?;
        let proof = match receive(io).await? {
            FromDialer::Proof(proof) => proof,
            FromDialer::Refused(why) => return Err(HandshakeError::RefusedByPeer(why)),
            FromDialer::Hello(_) => return refuse_dialer(io, Refusal::Unexpected).await,
        };
        if let Err(why) = transcript.check(&local.token, Side::Dialer, &proof) {
            return refuse_dialer(io, why).await;
        }
        send(io, &FromAcceptor::Welcome).await?;
        let Hello { name, kind, incarnation, pid, program, methods, .. } = hello;
        Ok(Peer { name, kind, incarnation, pid, program, methods })
    })
    .await
}

fn check_hello(local: &Local, hello: &Hello) -> Result<(), Refusal> {
    if local.cluster != hello.cluster.as_str() {
        return Err(Refusal::Cluster { ours: local.cluster.to_string(), theirs: hello.cluster.clone() });
    }
    if local.name != hello.to {
        return Err(Refusal::Name { ours: local.name.clone(), wanted: hello.to.clone() });
    }
    Ok(())
}

async fn within_deadline<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(DEADLINE, handshake).await.unwrap_or(Err(HandshakeError::TooSlow))
}

async fn preambles<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    purpose: Purpose,
) -> Result<(), HandshakeError> {
    // Each side sends its preamble before it reads the other's, so that both can tell a wrong version.
    io.write_all(&purpose.preamble()).await?;
    io.flush().await?;
    let mut theirs = [0; PREAMBLE_BYTES];
    io.read_exact(&mut theirs).await?;
    purpose.check_preamble(theirs).map_err(HandshakeError::Preamble)
}

async fn refuse_acceptor<S, T>(io: &mut S, why: Refusal) -> Result<T, HandshakeError>
where
    S: AsyncWrite + Unpin,
{
    // The other side may be gone already; what matters is that this side has a reason.
    let _ = send(io, &FromDialer::Refused(why.clone())).await;
    Err(HandshakeError::Refused(why))
}

async fn refuse_dialer<S, T>(io: &mut S, why: Refusal) -> Result<T, HandshakeError>
where
    S: AsyncWrite + Unpin,
{
    let _ = send(io, &FromAcceptor::Refused(why.clone())).await;
    Err(HandshakeError::Refused(why))
}

fn new_nonce(chance: &Chance) -> Result<Nonce, HandshakeError> {
    let mut nonce = [0; 32];
    chance.fill(&mut nonce).map_err(io::Error::from)?;
    Ok(nonce)
}

fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MESSAGE_BYTES_MAX as u64)
}

async fn send<S: AsyncWrite + Unpin, M: Serialize>(io: &mut S, message: &M) -> Result<(), HandshakeError> {
    let body = coding().serialize(message).map_err(|_| HandshakeError::Malformed)?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    io.write_all(&frame).await?;
    io.flush().await?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin, M: DeserializeOwned>(io: &mut S) -> Result<M, HandshakeError> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(HandshakeError::Malformed);
    }
    let mut body = vec![0; length];
    io.read_exact(&mut body).await?;
    coding().deserialize(&body).map_err(|_| HandshakeError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str, cluster: &str, token: &str) -> Local {
        Local {
            cluster: ClusterName::try_from(cluster).unwrap(),
            name: NodeName::try_from(name).unwrap(),
            kind: name.into(),
            incarnation: Incarnation(1),
            methods: vec![format!("{name}Method")],
            token: token.into(),
            chance: Chance::system(),
        }
    }

    type Both = (Result<Peer, HandshakeError>, Result<Peer, HandshakeError>);

    async fn shake(dialer: Local, acceptor: Local, to: &str, admit: Result<(), Refusal>) -> Both {
        let (mut a, mut b) = tokio::io::duplex(1024);
        let to = NodeName::try_from(to).unwrap();
        tokio::join!(
            dial(&mut a, Purpose::Link, &dialer, &to),
            accept(&mut b, Purpose::Link, &acceptor, |_| admit)
        )
    }

    #[tokio::test]
    async fn two_nodes_with_one_token_learn_each_others_methods() {
        let (a, b) = shake(local("net", "c", "t"), local("gate", "c", "t"), "gate", Ok(())).await;
        assert_eq!(a.unwrap().methods, ["gateMethod"]);
        let b = b.unwrap();
        assert_eq!((b.name.as_str(), b.pid), ("net", std::process::id()));
    }

    #[tokio::test]
    async fn a_wrong_token_is_refused_by_name_on_both_sides() {
        let (a, b) = shake(local("net", "c", "right"), local("gate", "c", "wrong"), "gate", Ok(())).await;
        assert!(matches!(a, Err(HandshakeError::Refused(Refusal::Token))), "{a:?}");
        assert!(matches!(b, Err(HandshakeError::RefusedByPeer(Refusal::Token))), "{b:?}");
    }

    #[tokio::test]
    async fn a_wrong_cluster_name_or_an_older_start_is_refused_with_a_reason_on_both_sides() {
        let (a, b) = shake(local("net", "other", "t"), local("gate", "c", "t"), "gate", Ok(())).await;
        assert_eq!(a.unwrap_err().to_string(), "refused by the other side: this is cluster `c`, not `other`");
        assert_eq!(b.unwrap_err().to_string(), "refused: this is cluster `c`, not `other`");

        let (a, b) = shake(local("net", "c", "t"), local("gate", "c", "t"), "hub", Ok(())).await;
        assert!(a.unwrap_err().to_string().ends_with("this is `gate`, not `hub`: is the port right?"));
        assert!(b.is_err());

        let older = Refusal::Older {
            name: NodeName::try_from("net").unwrap(),
            newer: Incarnation(2),
            older: Incarnation(1),
        };
        let (a, b) = shake(local("net", "c", "t"), local("gate", "c", "t"), "gate", Err(older)).await;
        let text = "a newer `net` is known: incarnation 2, this one is 1";
        assert!(a.unwrap_err().to_string().ends_with(text));
        assert!(b.unwrap_err().to_string().ends_with(text));
    }

    #[tokio::test]
    async fn another_version_is_named_on_both_sides() {
        let (mut a, mut b) = tokio::io::duplex(1024);
        let mut other = Purpose::Link.preamble();
        other[4] = 7;
        a.write_all(&other).await.unwrap();
        let refused = accept(&mut b, Purpose::Link, &local("gate", "c", ""), |_| Ok(())).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("speaks version 7 of") && text.contains("this side version 2: stop"), "{text}");
        let mut theirs = [0; PREAMBLE_BYTES];
        a.read_exact(&mut theirs).await.unwrap();
        assert_eq!(theirs, Purpose::Link.preamble());
    }

    #[tokio::test]
    async fn the_bytes_of_a_handshake_are_the_same_for_one_seed_and_differ_for_another() {
        async fn bytes_of_dialer(seed: u64) -> Vec<u8> {
            let (mut a, mut near) = tokio::io::duplex(1024);
            let (mut far, mut b) = tokio::io::duplex(1024);
            let drawn = Chance::seeded(seed);
            let of = |name| Local { chance: drawn.stream(name), ..local(name, "c", "t") };
            let (dialer, acceptor, to) = (of("net"), of("gate"), NodeName::try_from("gate").unwrap());
            let mut said = Vec::new();
            let both = async {
                let shaken = tokio::join!(
                    dial(&mut a, Purpose::Link, &dialer, &to),
                    accept(&mut b, Purpose::Link, &acceptor, |_| Ok(()))
                );
                (shaken.0.unwrap(), shaken.1.unwrap())
            };
            let carry = async {
                let (mut there, mut back) = ([0; 512], [0; 512]);
                loop {
                    tokio::select! {
                        n = near.read(&mut there) => {
                            let n = n.unwrap();
                            said.extend_from_slice(&there[..n]);
                            far.write_all(&there[..n]).await.unwrap();
                        }
                        n = far.read(&mut back) => near.write_all(&back[..n.unwrap()]).await.unwrap(),
                    }
                }
            };
            tokio::select! { _ = both => {}, () = carry => {} }
            said
        }
        // Its nonce and its proof over both nonces are among them.
        let first = bytes_of_dialer(7).await;
        assert!(first.len() > 100 && first == bytes_of_dialer(7).await);
        assert_ne!(first, bytes_of_dialer(8).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_after_the_deadline() {
        let (_a, mut b) = tokio::io::duplex(1024);
        let late = accept(&mut b, Purpose::Control, &local("gate", "c", ""), |_| Ok(())).await;
        assert!(matches!(late, Err(HandshakeError::TooSlow)));
    }

    #[tokio::test]
    async fn a_huge_length_takes_no_memory() {
        let (mut a, mut b) = tokio::io::duplex(1024);
        a.write_all(&Purpose::Link.preamble()).await.unwrap();
        a.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let refused = accept(&mut b, Purpose::Link, &local("gate", "c", ""), |_| Ok(())).await;
        assert!(matches!(refused, Err(HandshakeError::Malformed)));
    }
}

//! The shell of the handshake: moves the messages of `ffproto::handshake` over a connection, on both sides, within one
//! deadline. The dialer proves first; whoever does not is left without a word.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bincode::Options;
use ffambient::{Chance, Clock};
use ffkeys::{CredentialFault, NodeKeys, verify};
use ffproto::credential::{Credential, PublicKey, Role, Signature};
use ffproto::handshake::{
    Answer, BadPreamble, Hello, MESSAGE_BYTES_MAX, Methods, Nonce, OLD_PREAMBLE_BYTES, Opening,
    PREAMBLE_BYTES, PROOF_BYTES_MAX, Purpose, Refusal, Reply, Transcript, Verdict, fence, not_of_the_future,
    takes_encrypted_only,
};
use ffproto::{Incarnation, NodeName, Version, Versions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::admission::Slot;

/// A handshake takes a few round trips; a peer that needs longer than this is not one of ours.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// This side of a handshake.
#[derive(Debug, Clone)]
pub struct Local {
    /// Who this side is, and what it knows others by.
    pub keys: Arc<NodeKeys>,
    /// The versions that this side speaks.
    pub versions: Versions,
    /// The methods that the other side may call, in the order of their numbers.
    pub methods: Vec<String>,
    /// Where this side's nonces come from: the system's outside of tests, for a proof is worth what its nonce is.
    pub chance: Chance,
    /// By which incarnations of the future are told.
    pub clock: Clock,
    /// What lies below the handshake and is the same for both ends, such as the exporter of TLS; empty without.
    pub binding: Vec<u8>,
}

/// The peer: what the other side has proved, and has told of itself.
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
    /// The version of everything that is said from here on.
    pub version: Version,
    /// The key of the cluster that its credential is of.
    pub root: PublicKey,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No version that both speak, another purpose, or another protocol.
    #[error(transparent)]
    Preamble(BadPreamble),
    /// The other side has not proved who it is; it was told nothing.
    #[error("a stranger: {0}")]
    Stranger(CredentialFault),
    /// This side refused; the other side has been told.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side refused and said why.
    #[error("refused by the other side: {0}")]
    RefusedByPeer(Refusal),
    /// The acceptor closed after this side's proof.
    #[error(
        "it closed without a word, as to a stranger: are both of one cluster, with one master.token? A node that was \
         started by hand needs a key of the master that runs now"
    )]
    Silent,
    /// This node has no key.
    #[error("this node has no key of its cluster, so it links to nobody")]
    NoKey,
    /// It came unencrypted, and is told so.
    #[error(
        "it is not encrypted, and only encrypted connections are taken from there: has `master.encrypt` the same value in the \
         config of both sides?"
    )]
    Unencrypted,
    /// The acceptor takes only encrypted connections.
    #[error(
        "the other side takes only encrypted connections from here: has `master.encrypt` the same value in the config of both \
         sides?"
    )]
    UnencryptedHere,
    /// No encrypted channel could be opened.
    #[error("no encrypted channel")]
    Channel(#[source] io::Error),
    /// There were too many others that had proved nothing, and this was the oldest.
    #[error("it has proved nothing while many others came")]
    Crowded,
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
        let ours = purpose.preamble(local.versions);
        write(io, &ours).await?;
        let (theirs, version) = read_preamble(io, purpose, local.versions).await?;
        if takes_encrypted_only(&theirs) {
            return Err(HandshakeError::UnencryptedHere);
        }
        let mut nonce = Nonce::default();
        io.read_exact(&mut nonce).await?;
        let (dialer, acceptor, binding) = (&ours, &theirs, local.binding.as_slice());
        let opening = Opening { purpose, version, dialer, acceptor, nonce: &nonce, binding };
        let hello = hello(local, to, opening)?;
        send(io, &hello, PROOF_BYTES_MAX).await?;
        let answer: Answer = receive(io, PROOF_BYTES_MAX).await.map_err(silent)?;
        let transcript = Transcript { opening, hello: &hello };
        let peer = answered(local, &transcript, answer)?;
        let Credential { claims, incarnation, root, .. } = &peer;
        if let Err(why) = wanted(local, to, since, &peer) {
            // The other side may be gone already; what matters is that this side has a reason.
            let _ = send(io, &Reply::Refused(why.clone()), PROOF_BYTES_MAX).await;
            return Err(HandshakeError::Refused(why));
        }
        send(io, &Reply::Methods(Methods(local.methods.clone())), MESSAGE_BYTES_MAX).await?;
        let Methods(methods) = receive(io, MESSAGE_BYTES_MAX).await?;
        let (name, kind) = (claims.name.clone(), claims.kind.clone());
        let (pid, program) = (0, String::new());
        Ok(Peer { name, kind, incarnation: *incarnation, pid, program, methods, version, root: *root })
    })
    .await
}

fn hello(local: &Local, to: &NodeName, opening: Opening<'_>) -> Result<Hello, HandshakeError> {
    let mut hello = Hello {
        credential: local.keys.credential().clone(),
        to: to.clone(),
        nonce: new_nonce(&local.chance)?,
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").into(),
        signature: Signature([0; 32], [0; 32]),
    };
    hello.signature = local.keys.sign(&Transcript { opening, hello: &hello }.of_dialer());
    Ok(hello)
}

/// The acceptor, when it has proved who it is and lets this side stay. Its word is not taken before that: an impostor on
/// its port could end a node by telling it that a newer one is known.
fn answered(
    local: &Local,
    transcript: &Transcript<'_>,
    answer: Answer,
) -> Result<Credential, HandshakeError> {
    let Answer { credential, verdict, signature } = answer;
    let signed = transcript.of_acceptor(&credential, &verdict);
    let role = transcript.opening.purpose.acceptor();
    proved(local, &credential, role, &signed, &signature).map_err(HandshakeError::Stranger)?;
    match verdict {
        Verdict::Welcome => Ok(credential),
        Verdict::Refused(why) => Err(HandshakeError::RefusedByPeer(why)),
    }
}

fn wanted(local: &Local, to: &NodeName, since: Incarnation, peer: &Credential) -> Result<(), Refusal> {
    let name = &peer.claims.name;
    if name != to {
        return Err(Refusal::Name { ours: name.clone(), wanted: to.clone() });
    }
    not_of_the_future(peer.incarnation, local.clock.now_ms())?;
    fence(to, Some(since), peer.incarnation)
}

/// Opens a connection that this side accepted. `admit` decides on who has proved to be it, and whether its incarnation may be
/// ([`not_of_the_future`]); it must not change any state. It is asked before anything behind the proof is read.
/// `slot` is the connection's among those that have proved nothing, if it has one: while this side answers to a proof it is lost to
/// nobody.
///
/// # Errors
/// [`HandshakeError`]. Who has proved who it is was told the reason; anybody else was told nothing.
pub async fn accept<S>(
    io: &mut S,
    purpose: Purpose,
    local: &Local,
    slot: Option<&Slot>,
    admit: impl FnOnce(&Credential) -> Result<(), Refusal>,
) -> Result<Peer, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = within_deadline(async {
        let ours = purpose.preamble(local.versions);
        let nonce = new_nonce(&local.chance)?;
        write(io, &[&ours[..], &nonce].concat()).await?;
        let (theirs, version) = read_preamble(io, purpose, local.versions).await?;
        let hello: Hello = receive(io, PROOF_BYTES_MAX).await?;
        let (dialer, acceptor, binding) = (&theirs, &ours, local.binding.as_slice());
        let opening = Opening { purpose, version, dialer, acceptor, nonce: &nonce, binding };
        let transcript = Transcript { opening, hello: &hello };
        let (credential, signed) = (&hello.credential, transcript.of_dialer());
        proved(local, credential, Role::Node, &signed, &hello.signature).map_err(HandshakeError::Stranger)?;
        slot.inspect(|slot| slot.busy());
        let admitted = meant(local, &hello).and_then(|()| admit(credential));
        let verdict = admitted.clone().map_or_else(Verdict::Refused, |()| Verdict::Welcome);
        answer(io, local, &transcript, verdict).await?;
        admitted.map_err(HandshakeError::Refused)?;
        // Whoever has proved a name and says no more is as silent as a stranger.
        slot.inspect(|slot| slot.idle());
        let methods = match receive(io, MESSAGE_BYTES_MAX).await? {
            Reply::Methods(Methods(methods)) => methods,
            Reply::Refused(why) => return Err(HandshakeError::RefusedByPeer(why)),
        };
        // The last word is this side's: what the dialer says or does next comes behind what this side makes of it.
        send(io, &Methods(local.methods.clone()), MESSAGE_BYTES_MAX).await?;
        let Hello { credential: Credential { claims, incarnation, root, .. }, pid, program, .. } = hello;
        Ok(Peer { name: claims.name, kind: claims.kind, incarnation, pid, program, methods, version, root })
    });
    tokio::select! {
        accepted = accepting => accepted,
        () = evicted(slot) => Err(HandshakeError::Crowded),
    }
}

/// Returns when the connection has lost its slot.
pub(crate) async fn evicted(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.evicted().await,
        None => std::future::pending().await,
    }
}

async fn answer<S: AsyncWrite + Unpin>(
    io: &mut S,
    local: &Local,
    transcript: &Transcript<'_>,
    verdict: Verdict,
) -> Result<(), HandshakeError> {
    let keys = local.keys.shown_to(transcript.hello.credential.root);
    let credential = keys.credential().clone();
    let signature = keys.sign(&transcript.of_acceptor(&credential, &verdict));
    send(io, &Answer { credential, verdict, signature }, PROOF_BYTES_MAX).await
}

/// Whether who shows a credential is who it says: of this cluster, in the role that is asked for, and with its key.
fn proved(
    local: &Local,
    credential: &Credential,
    role: Role,
    signed: &[u8],
    signature: &Signature,
) -> Result<(), CredentialFault> {
    let keys = &local.keys;
    if credential.claims.role != role {
        return Err(CredentialFault::Role);
    }
    keys.roots().check(&keys.claims().cluster, credential)?;
    verify(credential, signed, signature)
}

fn meant(local: &Local, hello: &Hello) -> Result<(), Refusal> {
    let ours = &local.keys.claims().name;
    match *ours == hello.to {
        true => Ok(()),
        false => Err(Refusal::Name { ours: ours.clone(), wanted: hello.to.clone() }),
    }
}

pub(crate) async fn within_deadline<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(DEADLINE, handshake).await.unwrap_or(Err(HandshakeError::TooSlow))
}

/// The other side's preamble, and the version that both speak.
async fn read_preamble<S: AsyncRead + Unpin>(
    io: &mut S,
    purpose: Purpose,
    ours: Versions,
) -> Result<([u8; PREAMBLE_BYTES], Version), HandshakeError> {
    let mut theirs = [0; PREAMBLE_BYTES];
    // Releases before the first version that is negotiated send no more than these, and wait.
    let (first, rest) = theirs.split_at_mut(OLD_PREAMBLE_BYTES);
    io.read_exact(first).await?;
    let first = first.first_chunk().copied().unwrap_or_default();
    purpose.check_first(ours, first).map_err(HandshakeError::Preamble)?;
    io.read_exact(rest).await?;
    let version = purpose.negotiate(ours, theirs).map_err(HandshakeError::Preamble)?;
    Ok((theirs, version))
}

/// An acceptor that ends the connection instead of an answer has taken this side for a stranger.
fn silent(error: HandshakeError) -> HandshakeError {
    match error {
        HandshakeError::Io(error)
            if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
        {
            HandshakeError::Silent
        }
        error => error,
    }
}

fn new_nonce(chance: &Chance) -> Result<Nonce, HandshakeError> {
    let mut nonce = [0; 32];
    chance.fill(&mut nonce).map_err(io::Error::from)?;
    Ok(nonce)
}

fn coding(bytes_max: usize) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(bytes_max as u64)
}

async fn write<S: AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> Result<(), HandshakeError> {
    io.write_all(bytes).await?;
    io.flush().await?;
    Ok(())
}

async fn send<S: AsyncWrite + Unpin, M: Serialize>(
    io: &mut S,
    message: &M,
    bytes_max: usize,
) -> Result<(), HandshakeError> {
    let body = coding(bytes_max).serialize(message).map_err(|_| HandshakeError::Malformed)?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    write(io, &frame).await
}

async fn receive<S: AsyncRead + Unpin, M: DeserializeOwned>(
    io: &mut S,
    bytes_max: usize,
) -> Result<M, HandshakeError> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(HandshakeError::Malformed);
    }
    let mut body = vec![0; length];
    io.read_exact(&mut body).await?;
    coding(bytes_max).deserialize(&body).map_err(|_| HandshakeError::Malformed)
}

#[cfg(test)]
pub(crate) mod tests;

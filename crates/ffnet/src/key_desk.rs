//! The key desk: a socket in the run folder, at which a node that is started by hand gets its key from the master that runs.
//! It serves the master's own user and root, by what the kernel says of who asks.
//!
//! ```text
//! node      name, a line break, incarnation u64        (little-endian)
//! master    1, the keys' bytes                         or 0, why not, as text; then the end
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffproto::{Incarnation, NodeName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The socket's name in the run folder.
pub const SOCKET: &str = "keys.sock";
/// What is asked and answered stands in the socket's buffers at once.
const TALK_MAX: Duration = Duration::from_secs(2);
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// The longest question: a name, a line break and a number.
const QUESTION_BYTES_MAX: u64 = 64 + 1 + 8;

/// The master's side.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    uid: u32,
}

/// A node that asks for its key, and may.
#[derive(Debug)]
pub struct Asking {
    /// The node that it wants to be.
    pub name: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
    stream: UnixStream,
}

/// Why a node has no key.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No master runs there.
    #[error("no master of this config runs here ({path})", path = path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else's process is there.
    #[error("{path} is a socket of user {uid}, who is neither this one nor root", path = path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The master gives none.
    #[error("the master gives no key: {0}")]
    Refused(String),
    /// The master has not answered.
    #[error("the master has not answered")]
    Talk(#[from] io::Error),
}

/// Whether a process of `theirs` may have a key of the cluster of `ours`.
pub fn may_ask(theirs: u32, ours: u32) -> bool {
    theirs == ours || theirs == 0
}

impl Desk {
    /// Opens it in a run folder, whose lock the caller has: what another master has left there is of nobody.
    ///
    /// # Errors
    /// The path is too long, or the folder is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let uid = nix::unistd::geteuid().as_raw();
        Ok(Self { listener: UnixListener::bind(&path)?, uid })
    }

    /// The next node that may have a key. Who may not is told so, and what asks for nothing is left. Cancel-safe: a question
    /// that is half read then is lost, and asked again.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn next(&self) -> io::Result<Asking> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if !may_ask(uid, self.uid) {
                let why = format!("user {uid} is neither the master's ({}) nor root", self.uid);
                tracing::warn!(limited_by = uid, "a node's key was asked for: {why}");
                let _ = timeout(TALK_MAX, answer(stream, 0, why.as_bytes())).await;
                continue;
            }
            if let Ok(Some(asking)) = timeout(TALK_MAX, question(stream)).await {
                return Ok(asking);
            }
        }
    }
}

async fn question(mut stream: UnixStream) -> Option<Asking> {
    let mut asked = Vec::new();
    (&mut stream).take(QUESTION_BYTES_MAX).read_to_end(&mut asked).await.ok()?;
    let (name, incarnation) = asked.split_last_chunk()?;
    let name = std::str::from_utf8(name.strip_suffix(b"\n")?).ok()?;
    let (name, incarnation) = (NodeName::try_from(name).ok()?, Incarnation(u64::from_le_bytes(*incarnation)));
    Some(Asking { name, incarnation, stream })
}

async fn answer(mut stream: UnixStream, good: u8, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&[good]).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

impl Asking {
    /// Gives the key, or says why not. Who asked may be gone.
    pub async fn answer(self, keys: Result<&[u8], &str>) {
        let (good, bytes) = keys.map_or_else(|why| (0, why.as_bytes()), |keys| (1, keys));
        let _ = timeout(TALK_MAX, answer(self.stream, good, bytes)).await;
    }
}

/// Asks the master of a run folder for the keys of a start.
///
/// # Errors
/// [`AskError`].
pub async fn ask(
    folder: &Path,
    name: &NodeName,
    incarnation: Incarnation,
) -> Result<Zeroizing<Vec<u8>>, AskError> {
    let path = folder.join(SOCKET);
    let talk = async {
        let connected = UnixStream::connect(&path).await;
        let mut stream = connected.map_err(|source| AskError::Nobody { path: path.clone(), source })?;
        let (uid, ours) = (stream.peer_cred()?.uid(), nix::unistd::geteuid().as_raw());
        if !may_ask(uid, ours) {
            return Err(AskError::Stranger { path, uid });
        }
        let question = [format!("{name}\n").as_bytes(), &incarnation.0.to_le_bytes()].concat();
        stream.write_all(&question).await?;
        stream.shutdown().await?;
        let mut answer = Zeroizing::new(Vec::with_capacity(1024));
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        match answer.split_first() {
            Some((1, keys)) => Ok(Zeroizing::new(keys.to_vec())),
            Some((_, why)) => Err(AskError::Refused(String::from_utf8_lossy(why).into_owned())),
            None => Err(AskError::Talk(io::ErrorKind::UnexpectedEof.into())),
        }
    };
    timeout(TALK_MAX * 2, talk).await.unwrap_or_else(|_| Err(AskError::Talk(io::ErrorKind::TimedOut.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_the_masters_user_and_for_root() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000));
        assert!(!may_ask(1001, 1000) && !may_ask(65534, 0));
    }

    #[tokio::test]
    async fn a_node_gets_what_the_master_gives_it_or_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let name = NodeName::try_from("game.1").unwrap();
        let nobody = ask(folder.path(), &name, Incarnation(7)).await.unwrap_err().to_string();
        assert!(nobody.starts_with("no master of this config runs here"), "{nobody}");
        std::fs::write(folder.path().join(SOCKET), "left by a master that was killed").unwrap();
        let desk = Desk::open(folder.path()).unwrap();
        let serve = async {
            let asking = desk.next().await.unwrap();
            assert_eq!((asking.name.as_str(), asking.incarnation), ("game.1", Incarnation(7)));
            asking.answer(Ok(b"keys")).await;
            desk.next().await.unwrap().answer(Err("there is no such node")).await;
        };
        let ask = async {
            let given = ask(folder.path(), &name, Incarnation(7)).await.unwrap();
            (given, ask(folder.path(), &name, Incarnation(8)).await.unwrap_err().to_string())
        };
        let ((given, refused), ()) = tokio::join!(ask, serve);
        assert_eq!(given.as_slice(), b"keys");
        assert_eq!(refused, "the master gives no key: there is no such node");
    }

    #[tokio::test]
    async fn who_asks_for_nothing_holds_up_nobody_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path()).unwrap();
        for noise in [&b""[..], b"x", b"no such name!\n12345678", &[b'x'; 500]] {
            let mut stream = UnixStream::connect(folder.path().join(SOCKET)).await.unwrap();
            let _ = stream.write_all(noise).await;
        }
        let name = NodeName::try_from("game").unwrap();
        let (given, ()) = tokio::join!(ask(folder.path(), &name, Incarnation(1)), async {
            desk.next().await.unwrap().answer(Ok(b"keys")).await;
        });
        assert!(given.is_ok());
    }
}

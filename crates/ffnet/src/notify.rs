//! The words with which a process tells its supervisor that it is ready and that its loop turns: the protocol of
//! `sd_notify(3)`, which systemd speaks, too. One datagram per word, to the Unix socket that `NOTIFY_SOCKET` names.
//!
//! Nobody waits here: what the other side does not take is dropped, as a supervisor that stands still must not stop
//! the node.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use ffambient::Chance;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::door::random_name;

/// The environment variable that names the socket: a path, or `@` and a name in Linux's abstract namespace.
pub const ENV: &str = "NOTIFY_SOCKET";

/// A longer datagram is no word of this protocol.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// A word of a process to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The process serves.
    Ready,
    /// The process's loop turns: told again and again.
    Turns,
    /// The process has begun to leave.
    Stopping,
    /// The process, a master, has reloaded because of a signal, or has not, and why. Systemd passes over a word that begins with
    /// `X_`; a long reason is cut.
    Reloaded(Result<(), String>),
}

/// A word without a value, as it is written.
const PLAIN: [(&str, Word); 3] =
    [("READY=1", Word::Ready), ("WATCHDOG=1", Word::Turns), ("STOPPING=1", Word::Stopping)];
/// What stands before the outcome of a reload: nothing when it was done, or why it was not.
const RELOADED: &str = "X_FF_RELOADED=";
/// A line break in a value, which is one line: as a character that no text for people has.
const BREAK: char = '\u{1e}';

impl Word {
    fn text(&self) -> String {
        let why = match self {
            Self::Reloaded(Ok(())) => "",
            Self::Reloaded(Err(why)) if why.is_empty() => "it failed",
            Self::Reloaded(Err(why)) => why,
            plain => {
                let text = PLAIN.iter().find(|(_, word)| word == plain).map_or("", |(text, _)| text);
                return text.to_owned();
            }
        };
        let longest = DATAGRAM_BYTES_MAX - RELOADED.len();
        let why = why.get(..why.floor_char_boundary(longest)).unwrap_or_default();
        format!("{RELOADED}{}", why.replace('\n', &BREAK.to_string()))
    }

    /// The words of a datagram, a line each. What else systemd knows (`STATUS=…`) is passed over.
    fn read(datagram: &[u8]) -> Vec<Self> {
        datagram.split(|byte| *byte == b'\n').filter_map(Self::of_line).collect()
    }

    fn of_line(line: &[u8]) -> Option<Self> {
        if let Some(why) = line.strip_prefix(RELOADED.as_bytes()) {
            let why = String::from_utf8_lossy(why).replace(BREAK, "\n");
            return Some(Self::Reloaded(if why.is_empty() { Ok(()) } else { Err(why) }));
        }
        PLAIN.iter().find(|(text, _)| text.as_bytes() == line).map(|(_, word)| word.clone())
    }
}

/// The process's side of the protocol.
#[derive(Debug)]
pub struct Notifier(StdDatagram);

impl Notifier {
    /// A notifier to the socket that [`ENV`] has named.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn to(socket: &str) -> io::Result<Self> {
        let address = match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        let datagram = StdDatagram::unbound()?;
        datagram.set_nonblocking(true)?;
        datagram.connect_addr(&address)?;
        Ok(Self(datagram))
    }

    /// Tells a word; false when the other side did not take it.
    pub fn say(&self, word: &Word) -> bool {
        self.0.send(word.text().as_bytes()).is_ok()
    }
}

/// The supervisor's side of the protocol.
#[derive(Debug)]
pub struct NotifyListener {
    name: String,
    socket: UnixDatagram,
}

impl NotifyListener {
    /// Listens under a name that nobody can guess. Needs a tokio runtime.
    ///
    /// # Errors
    /// No more descriptors, or no randomness.
    pub fn open(chance: &Chance) -> io::Result<Self> {
        let name = random_name(chance)?;
        let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { name, socket: UnixDatagram::from_std(socket)? })
    }

    /// The value of [`ENV`] for the process.
    pub fn env_value(&self) -> String {
        format!("@{}", self.name)
    }

    /// The next words of a process of the same user, or of root; others are not heard. Cancel-safe.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next(&self) -> io::Result<Vec<Word>> {
        loop {
            let (datagram, theirs) = self.socket.async_io(Interest::READABLE, || self.receive()).await?;
            if theirs.is_some_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw()) {
                return Ok(Word::read(&datagram));
            }
        }
    }

    fn receive(&self) -> io::Result<(Vec<u8>, Option<u32>)> {
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::DONTWAIT,
        )?;
        let uid = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(of) => Some(of.uid.as_raw()),
            _ => None,
        });
        bytes.truncate(got.bytes);
        Ok((bytes, uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_and_others_are_passed_over() {
        let read = |text: &str| Word::read(text.as_bytes());
        assert_eq!(read("READY=1\nSTATUS=up\nWATCHDOG=1\n"), [Word::Ready, Word::Turns]);
        assert_eq!(read("STOPPING=1"), [Word::Stopping]);
        assert_eq!(read("ready=1\nREADY=10\n READY=1\n\n"), []);
        assert_eq!(Word::read(&[0xff; 100]), []);
    }

    #[test]
    fn why_a_reload_was_not_done_is_a_word_of_one_datagram() {
        let said = |word: &Word| Word::read(word.text().as_bytes());
        for word in [Word::Reloaded(Ok(())), Word::Reloaded(Err("a: wrong\nb: wrong\n2 faults".into()))] {
            assert_eq!(said(&word), [word]);
        }
        let long = Word::Reloaded(Err("ä".repeat(DATAGRAM_BYTES_MAX)));
        assert!(long.text().len() <= DATAGRAM_BYTES_MAX);
        assert!(matches!(said(&long).as_slice(), [Word::Reloaded(Err(why))] if why.starts_with("ää")));
        assert_eq!(said(&Word::Reloaded(Err(String::new()))), [Word::Reloaded(Err("it failed".into()))]);
    }

    #[tokio::test]
    async fn what_a_process_says_is_heard() {
        let listener = NotifyListener::open(&Chance::system()).unwrap();
        let notifier = Notifier::to(&listener.env_value()).unwrap();
        for word in [Word::Ready, Word::Turns, Word::Stopping] {
            assert!(notifier.say(&word));
            assert_eq!(listener.next().await.unwrap(), [word]);
        }
    }

    #[tokio::test]
    async fn a_supervisor_that_does_not_listen_stops_nobody() {
        let listener = NotifyListener::open(&Chance::system()).unwrap();
        let notifier = Notifier::to(&listener.env_value()).unwrap();
        let taken = (0..100_000).take_while(|_| notifier.say(&Word::Turns)).count();
        assert!((1..100_000).contains(&taken), "{taken}");
        drop(listener);
        assert!(!notifier.say(&Word::Turns));
        assert!(Notifier::to("@nobody listens here").is_err());
        assert!(Notifier::to("/nowhere/at/all").is_err());
    }
}

//! Processes that are not our children: watched and ended through a pidfd, and asked for their sockets.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ffnet::door::{DoorListener, Passage};
use ffnet::listen::Port;
use ffproto::Versions;
use ffproto::handover::{Listeners, Output};
use futures_util::future::BoxFuture;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::machine::Exit;
use super::proc;
use super::process::{Signals, pump};
use crate::output::NodeOutput;

/// How long a node may take to come to the door.
const HAND_BACK_MAX: Duration = Duration::from_secs(5);

/// A process that is watched.
pub struct Adopted {
    /// Ends when it has ended.
    pub exit: BoxFuture<'static, Exit>,
    /// To end it.
    pub signals: Arc<dyn Signals>,
}

/// Watches the process with that number that was started then; `None` when it has ended. Needs a tokio
/// runtime.
///
/// # Errors
/// No more descriptors, or a kernel before 5.3.
pub(crate) fn watch(pid: u32, started: u64) -> io::Result<Option<Adopted>> {
    let Some(number) = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(number, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // From here on the descriptor stands for one process; whether it is the right one is asked now.
    if proc::started(pid) != Some(started) {
        return Ok(None);
    }
    #[allow(deprecated, reason = "it warns of descriptors that change under it, which an `OwnedFd` does not")]
    let pidfd = Arc::new(AsyncFd::new(pidfd)?);
    let signals = PidfdSignals { pidfd: Arc::clone(&pidfd), group: number };
    let exit = async move {
        match pidfd.readable().await {
            // Only its parent hears its code, and that was the master before this one.
            Ok(_) => Exit::Unknown("adopted: only init was told its exit code".into()),
            Err(error) => Exit::Unknown(error.to_string()),
        }
    };
    Ok(Some(Adopted { exit: Box::pin(exit), signals: Arc::new(signals) }))
}

struct PidfdSignals {
    pidfd: Arc<AsyncFd<OwnedFd>>,
    /// The group that it leads.
    group: Pid,
}

impl Signals for PidfdSignals {
    fn terminate(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::TERM);
    }

    fn kill(&self) {
        // A group keeps its number while a process of it lives, and this one does when it can be signalled.
        if pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL).is_ok() {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}

/// Waits at the door for a node: takes its listening sockets, gives it pipes for what it prints.
///
/// # Errors
/// [`TakeBackError`]; the node keeps what it has.
pub(super) async fn take_back(
    door: DoorListener,
    output: NodeOutput,
    ours: Versions,
) -> Result<Vec<(Port, TcpListener)>, TakeBackError> {
    timeout(HAND_BACK_MAX, take(door, output, ours)).await.map_err(|_late| TakeBackError::Late)?
}

/// Why a node keeps its listening sockets.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeBackError {
    /// It did not come.
    #[error("it did not come to the door within {} s", HAND_BACK_MAX.as_secs())]
    Late,
    /// Both speak no version in common: nothing of its has been touched.
    #[error("it speaks {theirs} of the protocol between nodes, and this master {ours}")]
    Versions {
        /// The node's.
        theirs: Versions,
        /// The master's.
        ours: Versions,
    },
    /// The door broke, or something else came.
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn take(
    door: DoorListener,
    output: NodeOutput,
    ours: Versions,
) -> Result<Vec<(Port, TcpListener)>, TakeBackError> {
    let mut passage: Passage<Listeners, Output> = door.accept().await?;
    let Some((which, descriptors)) = passage.receive().await? else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    };
    let theirs = which.versions;
    if ours.with(theirs).is_none() {
        return Err(TakeBackError::Versions { theirs, ours });
    }
    let (out, out_end) = io::pipe()?;
    let (err, err_end) = io::pipe()?;
    passage.send(&Output, &[out_end.as_fd(), err_end.as_fd()]).await?;
    drop((out_end, err_end));
    for end in [out, err] {
        tokio::spawn(pump(Receiver::from_owned_fd(end.into())?, output.clone()));
    }
    let ports = [(Port::Net, which.net), (Port::Root, which.root), (Port::Web, which.web)];
    let ports = ports.into_iter().filter(|(_, comes)| *comes).map(|(port, _)| port);
    ports.zip(descriptors).map(|(port, descriptor)| Ok((port, listening(descriptor)?))).collect()
}

/// What has come must be a listening TCP socket.
fn listening(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "it sent what is no listening socket");
    if !rustix::net::sockopt::socket_acceptconn(&descriptor).map_err(wrong)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it sent a socket that does not listen"));
    }
    let listener = TcpListener::from(descriptor);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use ffnet::door::enter;
    use ffproto::Version;

    use super::*;
    use crate::fixture::name;
    use crate::output::Logs;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_process_that_is_no_child_is_watched_and_ended() {
        let mut child = sleeper();
        let started = proc::started(child.id()).unwrap();
        let adopted = watch(child.id(), started).unwrap().unwrap();
        let mut exit = adopted.exit;
        let early = timeout(Duration::from_millis(20), &mut exit).await;
        assert!(early.is_err(), "it lives: {early:?}");
        adopted.signals.terminate();
        // It is a zombie of this test now, as it would be init's.
        assert!(matches!(timeout(Duration::from_secs(10), exit).await.unwrap(), Exit::Unknown(_)));
        assert_eq!(proc::started(child.id()), None, "a zombie does not live");
        child.wait().unwrap();
        assert!(watch(child.id(), started).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_number_that_was_given_to_another_process_is_not_adopted() {
        let mut child = sleeper();
        let started = proc::started(child.id()).unwrap();
        assert!(watch(child.id(), started + 1).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_node_gives_its_listeners_and_prints_into_new_pipes() {
        let door = DoorListener::open(&ffambient::Chance::system()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut node: Passage<Output, Listeners> = enter(&door.door()).unwrap();
        let logs = Logs::default();
        let output = logs.of(&name("net"), ffproto::Incarnation(1), 3);
        let taken = tokio::spawn(take_back(door, output, Versions::OURS));
        let which = Listeners { versions: Versions::OURS, net: true, root: false, web: false };
        node.send(&which, &[listener.as_fd()]).await.unwrap();
        let (Output, mut pipes) = node.receive().await.unwrap().unwrap();
        let taken = taken.await.unwrap().unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].0, taken[0].1.local_addr().unwrap()), (Port::Net, at));
        let mut out = std::fs::File::from(pipes.remove(0));
        std::io::Write::write_all(&mut out, b"still here\n").unwrap();
        let heard = async {
            while logs.last("net") != ["still here"] {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), heard).await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_sends_something_else_keeps_its_sockets() {
        let door = DoorListener::open(&ffambient::Chance::system()).unwrap();
        let node: Passage<Output, Listeners> = enter(&door.door()).unwrap();
        let output = Logs::default().of(&name("net"), ffproto::Incarnation(1), 3);
        let taken = tokio::spawn(take_back(door, output, Versions::OURS));
        let which = Listeners { versions: Versions::OURS, net: true, root: false, web: false };
        node.send(&which, &[std::fs::File::open("/dev/null").unwrap().as_fd()]).await.unwrap();
        assert_eq!(taken.await.unwrap().unwrap_err().to_string(), "it sent what is no listening socket");
    }

    #[tokio::test]
    async fn a_node_of_no_version_that_the_master_speaks_keeps_its_sockets_and_its_output() {
        let door = DoorListener::open(&ffambient::Chance::system()).unwrap();
        let mut node: Passage<Output, Listeners> = enter(&door.door()).unwrap();
        let output = Logs::default().of(&name("net"), ffproto::Incarnation(1), 3);
        let taken = tokio::spawn(take_back(door, output, Versions::OURS));
        let versions = Versions { min: Version(8), max: Version(9) };
        node.send(&Listeners { versions, net: false, root: false, web: false }, &[]).await.unwrap();
        let refused = taken.await.unwrap().unwrap_err();
        assert!(matches!(refused, TakeBackError::Versions { theirs, .. } if theirs == versions), "{refused}");
        assert!(node.receive().await.unwrap().is_none(), "no pipes come");
    }
}

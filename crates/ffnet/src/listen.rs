//! Listening sockets: opening them, naming who holds a busy one, and handing them to a child process.
//!
//! The master opens every socket and the child inherits it, so a port stays open while its node restarts:
//! connections wait in the backlog. How a child is told: `FF_LISTEN=net=7,root=8,web=9`; a child that runs several nodes:
//! `FF_LISTEN=gate:root=7,net:net=8`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use ffproto::NodeName;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait in the kernel while a node restarts. The kernel's own limit
/// (`net.core.somaxconn`, 4096 by default) cuts larger ones silently.
pub const BACKLOG: i32 = 4096;
/// The environment variable in which a child finds the numbers of its inherited sockets.
pub const ENV: &str = "FF_LISTEN";

/// A port that cannot be listened on: which, who holds it, and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {}", self.why())]
pub struct ListenError {
    /// The address.
    pub at: SocketAddr,
    /// The process that holds it, where that can be known.
    pub holder: Option<Holder>,
    /// The user whose process holds it, where that is all that can be known.
    holder_user: Option<u32>,
    /// The system's reason. It is told with the rest, and no cause of its own: it would be told twice.
    reason: io::Error,
}

impl ListenError {
    /// An error with the process that is in the way, when the system says that one is.
    pub fn new(at: SocketAddr, reason: io::Error) -> Self {
        let in_the_way = match reason.kind() {
            io::ErrorKind::AddrInUse => listening_at(at),
            _ => Vec::new(),
        };
        let holder = holder_of(&in_the_way);
        // What /proc does not show of the processes, it does of the sockets.
        let holder_user = in_the_way.first().map(|socket| socket.user).filter(|_| holder.is_none());
        Self { at, holder, holder_user, reason }
    }

    fn why(&self) -> String {
        let own = nix::unistd::geteuid().as_raw();
        match (&self.holder, self.holder_user) {
            (Some(holder), _) => format!("{holder} is there already"),
            (None, Some(user)) if user != own => {
                format!("a process of {} is there already, which only that user and root see", named(user))
            }
            (None, _) if self.reason.kind() == io::ErrorKind::AddrInUse => {
                format!("{}: by a process that is not shown here, or has just ended", self.reason)
            }
            (None, _) => self.reason.to_string(),
        }
    }

    /// The system's error code, where the reason has one.
    pub fn code(&self) -> Option<i32> {
        self.reason.raw_os_error()
    }
}

/// A user, by the name that the system has for the number.
fn named(user: u32) -> String {
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(user)).ok().flatten();
    known.map_or_else(|| format!("the user {user}"), |known| format!("the user `{}`", known.name))
}

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The name of the process's program.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.name, self.pid)
    }
}

/// Opens a listening socket: address reuse on, close-on-exec, non-blocking, a backlog of [`BACKLOG`].
///
/// # Errors
/// [`ListenError`], with the process that is in the way where it can be known.
pub fn open(at: SocketAddr) -> Result<TcpListener, ListenError> {
    try_open(at).map_err(|source| ListenError::new(at, source))
}

fn try_open(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    // A port whose last connections are still in TIME_WAIT is free for us.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket that listens, as /proc/net/tcp tells of it.
#[derive(Debug, PartialEq, Eq)]
struct ListeningSocket {
    inode: String,
    user: u32,
}

/// The process that listens where `at` would. `None` when there is none, or when it belongs to another
/// user and /proc hides it.
pub fn holder(at: SocketAddr) -> Option<Holder> {
    holder_of(&listening_at(at))
}

/// The sockets that listen where `at` would, whoever has them.
fn listening_at(at: SocketAddr) -> Vec<ListeningSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).filter_map(|row| in_the_way(row, at)).collect()
}

/// The process that has one of the sockets, where /proc shows it.
fn holder_of(sockets: &[ListeningSocket]) -> Option<Holder> {
    let inodes: Vec<String> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let mut open = fs::read_dir(process.join("fd")).ok()?.flatten();
        open.find(|fd| {
            fs::read_link(fd.path())
                .is_ok_and(|to| inodes.iter().any(|inode| to.as_os_str() == inode.as_str()))
        })?;
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some(Holder { pid, name: name.trim_end().to_owned() })
    })
}

/// The socket in a row of /proc/net/tcp, when it listens and is in the way of `at`.
fn in_the_way(row: &str, at: SocketAddr) -> Option<ListeningSocket> {
    const LISTENS: &str = "0A";
    let mut fields = row.split_ascii_whitespace();
    let (local, state, user, inode) = (fields.nth(1)?, fields.nth(1)?, fields.nth(3)?, fields.nth(1)?);
    let there = parse_proc_address(local)?;
    let same = there.ip() == at.ip().to_canonical();
    let overlap = same || there.ip().is_unspecified() || at.ip().is_unspecified();
    let found = ListeningSocket { inode: inode.to_owned(), user: user.parse().ok()? };
    (state == LISTENS && there.port() == at.port() && overlap).then_some(found)
}

/// `0100007F:2710` is 127.0.0.1:10000: each 32-bit word in the machine's byte order, the port in plain hex.
fn parse_proc_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len() / 8)
        .map(|i| Some(u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let ip = match words?.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        v6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(v6.concat()).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

/// Which of a node's listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// `netport`: game clients.
    Net,
    /// `rootport`: children.
    Root,
    /// `webport`: HTTP.
    Web,
}

impl Port {
    /// All ports.
    pub const ALL: [Port; 3] = [Port::Net, Port::Root, Port::Web];

    /// The port's key in the config.
    pub fn key(self) -> &'static str {
        match self {
            Port::Net => "netport",
            Port::Root => "rootport",
            Port::Web => "webport",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Port::Net => "net",
            Port::Root => "root",
            Port::Web => "web",
        }
    }
}

/// Copies of listening sockets that a child will inherit. Spawn the child, then drop this at once:
/// every other process that is started meanwhile inherits them too.
#[derive(Debug)]
pub struct Passed {
    env: String,
    _copies: Vec<OwnedFd>,
}

impl Passed {
    /// The value of [`ENV`] for the child. The numbers are the same in the child.
    pub fn env_value(&self) -> &str {
        &self.env
    }
}

/// Makes copies of `listeners` that stay open when a child process is executed.
///
/// # Errors
/// No more descriptors.
pub fn pass(listeners: &[(Port, &TcpListener)]) -> io::Result<Passed> {
    pass_named(listeners.iter().map(|(port, listener)| (port.word().to_owned(), *listener)))
}

/// Makes such copies of the listeners of several nodes, for one process that runs them all; it finds them by [`take_of_several`].
///
/// # Errors
/// No more descriptors.
pub fn pass_to_several(listeners: &[(&NodeName, Port, &TcpListener)]) -> io::Result<Passed> {
    let named =
        |(node, port, listener): &(&NodeName, Port, _)| (format!("{node}:{}", port.word()), *listener);
    pass_named(listeners.iter().map(named))
}

fn pass_named<'l>(listeners: impl Iterator<Item = (String, &'l TcpListener)>) -> io::Result<Passed> {
    let mut passed = Passed { env: String::new(), _copies: Vec::new() };
    for (word, listener) in listeners {
        // `dup` clears close-on-exec on the copy; the master's own descriptor keeps it.
        let copy = nix::unistd::dup(listener.as_fd())?;
        let comma = if passed.env.is_empty() { "" } else { "," };
        passed.env.push_str(&format!("{comma}{word}={}", copy.as_raw_fd()));
        passed._copies.push(copy);
    }
    Ok(passed)
}

/// The listening sockets that a node has inherited from its master.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For game clients.
    pub net: Option<TcpListener>,
    /// For children.
    pub root: Option<TcpListener>,
    /// For HTTP.
    pub web: Option<TcpListener>,
}

/// Why the value of [`ENV`] is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The value is not of the form `net=7,root=8,web=9`.
    #[error("{ENV}: `{0}` is not of the form net=7,root=8,web=9")]
    Malformed(String),
    /// The value is not of the form `gate:root=7,net:net=8`.
    #[error("{ENV}: `{0}` is not of the form gate:root=7,net:net=8")]
    MalformedOfSeveral(String),
    /// A number that stands for no inherited, listening TCP socket, or that was taken before.
    #[error("{ENV}: descriptor {number} is {what}")]
    Descriptor {
        /// The number.
        number: i32,
        /// What the descriptor is instead.
        what: &'static str,
    },
}

/// Turns the value of [`ENV`] into sockets: non-blocking, and close-on-exec again.
///
/// A descriptor can be taken once: an inherited one has no close-on-exec, a taken one has.
///
/// # Errors
/// [`TakeError`]. Sockets that were taken before the fault are closed again.
pub fn take(env_value: &str) -> Result<Inherited, TakeError> {
    let mut inherited = Inherited::default();
    let malformed = || TakeError::Malformed(env_value.chars().take(100).collect());
    for part in env_value.split(',').filter(|part| !part.is_empty()) {
        inherited.take(part, malformed)?;
    }
    Ok(inherited)
}

/// Turns the value of [`ENV`] of a process of several nodes into the sockets of each, as [`take`] does for one. A node that is not
/// there has none.
///
/// # Errors
/// [`TakeError`]. Sockets that were taken before the fault are closed again.
pub fn take_of_several(env_value: &str) -> Result<BTreeMap<NodeName, Inherited>, TakeError> {
    let mut of_nodes: BTreeMap<NodeName, Inherited> = BTreeMap::new();
    let malformed = || TakeError::MalformedOfSeveral(env_value.chars().take(100).collect());
    for part in env_value.split(',').filter(|part| !part.is_empty()) {
        let (node, socket) = part.split_once(':').ok_or_else(malformed)?;
        let node = NodeName::try_from(node).map_err(|_| malformed())?;
        of_nodes.entry(node).or_default().take(socket, malformed)?;
    }
    Ok(of_nodes)
}

impl Inherited {
    /// Takes what one part of the value names: `net=7`.
    fn take(&mut self, part: &str, malformed: impl Fn() -> TakeError) -> Result<(), TakeError> {
        let (word, number) = part.split_once('=').ok_or_else(&malformed)?;
        let slot = match word {
            "net" => &mut self.net,
            "root" => &mut self.root,
            "web" => &mut self.web,
            _ => return Err(malformed()),
        };
        let number: i32 = number.parse().map_err(|_| malformed())?;
        if slot.is_some() {
            return Err(malformed());
        }
        *slot = Some(take_one(number).map_err(|what| TakeError::Descriptor { number, what })?);
        Ok(())
    }
}

/// Makes "is it untaken? then it is mine" one step, whatever threads call it.
static TAKING: Mutex<()> = Mutex::new(());

#[allow(unsafe_code)]
fn take_one(number: i32) -> Result<TcpListener, &'static str> {
    if number < 3 {
        return Err("one of stdin, stdout, stderr");
    }
    let _one_at_a_time = TAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: `ManuallyDrop` keeps a descriptor that is not ours from being closed; until ownership is
    // proved it is only asked for its flags and its kind, which is harmless for any number. It becomes
    // owned below only when it is open without close-on-exec. Rust opens everything with it, so such a
    // descriptor came through `exec` for us and nobody in this process owns it; setting the flag, under
    // the lock, makes every later call refuse it.
    let unproved = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    let flags = fcntl(unproved.as_fd(), FcntlArg::F_GETFD).map_err(|_| "not open")?;
    let flags = FdFlag::from_bits_retain(flags);
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err("not inherited, or taken already");
    }
    if !getsockopt(&*unproved, sockopt::AcceptConn).map_err(|_| "no socket")? {
        return Err("not a listening socket");
    }
    fcntl(unproved.as_fd(), FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC)).map_err(|_| "not open")?;
    let listener = TcpListener::from(ManuallyDrop::into_inner(unproved));
    listener.set_nonblocking(true).map_err(|_| "not usable")?;
    listener.local_addr().map_err(|_| "no TCP socket")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn loopback() -> TcpListener {
        open("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_busy_port_is_reported_with_the_process_that_holds_it() {
        let first = loopback();
        let at = first.local_addr().unwrap();
        let busy = open(at).unwrap_err();
        let holder = busy.holder.clone().unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(busy.to_string(), format!("cannot listen on {at}: {holder} is there already"));
        let anywhere = open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port())).unwrap_err();
        assert_eq!(anywhere.holder.unwrap().pid, std::process::id());
    }

    #[test]
    fn a_busy_port_whose_process_is_not_shown_says_why_it_may_not_be() {
        let at = "127.0.0.1:7".parse().unwrap();
        let hidden = |holder_user: Option<u32>| {
            let reason = io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
            ListenError { at, holder: None, holder_user, reason }
        };
        let gone = hidden(None).to_string();
        assert!(gone.ends_with(": by a process that is not shown here, or has just ended"), "{gone}");
        let another = nix::unistd::geteuid().as_raw() + 4_000_000;
        let told =
            format!("a process of the user {another} is there already, which only that user and root see");
        assert!(hidden(Some(another)).to_string().ends_with(&told));
        assert!(std::error::Error::source(&hidden(None)).is_none(), "the reason would be told twice");
        assert_eq!(named(0), "the user `root`");
    }

    #[test]
    fn a_busy_port_of_ipv6_has_its_process_too_and_stands_in_the_way_of_ipv4() {
        // A host without IPv6 has no such port.
        for listening in ["[::1]:0", "[::]:0"] {
            let Ok(first) = open(listening.parse().unwrap()) else { continue };
            let at = first.local_addr().unwrap();
            assert_eq!(open(at).unwrap_err().holder.unwrap().pid, std::process::id());
            if at.ip().is_unspecified() {
                let ipv4 = open(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port())).unwrap_err();
                assert_eq!(ipv4.holder.unwrap().pid, std::process::id());
            }
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_reported_without_a_holder() {
        let error = open("192.0.2.1:1".parse().unwrap()).unwrap_err();
        assert!(error.holder.is_none());
        assert!(error.to_string().starts_with("cannot listen on 192.0.2.1:1: "), "{error}");
    }

    #[test]
    fn rows_of_proc_are_read() {
        let row = "   0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4242 1 0 100 0 0 10 0";
        let in_the_way = |row: &str, at: &str| in_the_way(row, at.parse().unwrap());
        let found = || Some(ListeningSocket { inode: "4242".into(), user: 33 });
        assert_eq!(in_the_way(row, "127.0.0.1:10000"), found());
        assert_eq!(in_the_way(row, "0.0.0.0:10000"), found());
        assert_eq!(in_the_way(row, "[::ffff:127.0.0.1]:10000"), found());
        assert_eq!(in_the_way(row, "127.0.0.1:10001"), None);
        assert_eq!(in_the_way(row, "127.0.0.2:10000"), None);
        assert_eq!(in_the_way(&row.replace(" 0A ", " 01 "), "127.0.0.1:10000"), None);
        let v6 = row.replace("0100007F", "0000000000000000FFFF00000100007F");
        assert_eq!(in_the_way(&v6, "127.0.0.1:10000"), found());
        assert_eq!(in_the_way("  sl  local_address rem_address", "127.0.0.1:1"), None);
    }

    #[test]
    fn a_passed_socket_is_taken_once_and_serves() {
        let (net, web) = (loopback(), loopback());
        let passed = pass(&[(Port::Net, &net), (Port::Web, &web)]).unwrap();
        let env = passed.env_value().to_owned();
        // In life the child takes them; here the same process does, so the copies change owner.
        for copy in passed._copies {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(copy);
        }
        let inherited = take(&env).unwrap();
        assert!(inherited.root.is_none());
        let taken = inherited.net.unwrap();
        assert_eq!(taken.local_addr().unwrap(), net.local_addr().unwrap());
        let flags = fcntl(taken.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        drop(net);
        TcpStream::connect(taken.local_addr().unwrap()).unwrap();

        let again = take(&env).unwrap_err().to_string();
        assert!(again.ends_with("is not inherited, or taken already"), "{again}");
    }

    #[test]
    fn the_sockets_of_several_nodes_are_taken_by_whose_they_are() {
        let sockets = [loopback(), loopback(), loopback()];
        let name = |name: &str| NodeName::try_from(name).unwrap();
        let (gate, game) = (name("gate"), name("game.1"));
        let [root, net, web] = &sockets;
        let passed =
            pass_to_several(&[(&gate, Port::Root, root), (&game, Port::Net, net), (&game, Port::Web, web)])
                .unwrap();
        let env = passed.env_value().to_owned();
        for copy in passed._copies {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(copy);
        }
        let mut taken = take_of_several(&env).unwrap();
        let at = |socket: &TcpListener| socket.local_addr().unwrap();
        let of_gate = taken.remove(&gate).unwrap();
        assert!(of_gate.net.is_none() && of_gate.web.is_none());
        assert_eq!(at(&of_gate.root.unwrap()), at(root));
        let of_game = taken.remove(&game).unwrap();
        assert_eq!((at(&of_game.net.unwrap()), at(&of_game.web.unwrap())), (at(net), at(web)));
        assert!(taken.is_empty() && of_game.root.is_none());

        assert!(take_of_several("").unwrap().is_empty());
        for bad in ["net=7", "gate:7", "gate:door=7", ":net=7", "ga te:net=7", "gate:net=x"] {
            let refused = take_of_several(bad).unwrap_err().to_string();
            assert_eq!(
                refused,
                format!("FF_LISTEN: `{bad}` is not of the form gate:root=7,net:net=8"),
                "{bad}"
            );
        }
        let refused = take_of_several("gate:net=1").unwrap_err().to_string();
        assert_eq!(refused, "FF_LISTEN: descriptor 1 is one of stdin, stdout, stderr");
    }

    #[test]
    fn what_is_no_listening_socket_is_refused() {
        let file = fs::File::open("/dev/null").unwrap();
        let inheritable = nix::unistd::dup(file.as_fd()).unwrap();
        let client = TcpStream::connect(loopback().local_addr().unwrap()).unwrap();
        let connected = nix::unistd::dup(client.as_fd()).unwrap();
        let refused = |value: String| take(&value).unwrap_err().to_string();
        let number = inheritable.as_raw_fd();
        assert_eq!(refused(format!("net={number}")), format!("FF_LISTEN: descriptor {number} is no socket"));
        let number = connected.as_raw_fd();
        assert_eq!(
            refused(format!("net={number}")),
            format!("FF_LISTEN: descriptor {number} is not a listening socket")
        );
        assert_eq!(refused("net=1".into()), "FF_LISTEN: descriptor 1 is one of stdin, stdout, stderr");
        assert_eq!(refused("net=99999".into()), "FF_LISTEN: descriptor 99999 is not open");
        assert_eq!(refused("net=-1".into()), "FF_LISTEN: descriptor -1 is one of stdin, stdout, stderr");
        assert_eq!(refused("gate=7".into()), "FF_LISTEN: `gate=7` is not of the form net=7,root=8,web=9");
        assert!(take("").unwrap().net.is_none());
    }
}

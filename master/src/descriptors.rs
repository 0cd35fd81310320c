//! The descriptors of the master's process: its limit is raised as far as the system allows, and connections get a share of it
//! that leaves room for launches, whatever strangers do.

use std::error::Error;
use std::io;

use ffhttp::Places;
use ffnet::admission::Bounds;
use ffnet::launch::allow_descriptors;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// Connections that have proved nothing, at the control port: enough for every node of a host to register at once.
const UNPROVEN_MAX: usize = 256;
/// Registered nodes: far more than a master has.
const REGISTERED_MAX: usize = 8 * 1024;
/// Connections at the administration's port: people, scrapes, and readers of events.
const ADMIN_MAX: usize = 256;
/// The descriptors of one connection at the administration's port: the front's two and the web server's one.
const ADMIN_EACH: usize = 3;
/// What is left to each kind of connection when the limit is absurdly small: below some 600 a half is not enough for all.
const LEAST: usize = 8;
/// What the process has open by itself: loops, log, lock, signals, listening sockets.
const OWN: usize = 64;
/// A node's descriptors while one process of it replaces the other: three listening sockets, and twice two pipes and a pidfd.
const PER_NODE: usize = 9;
/// What is open only while a process is started: copies of three listening sockets, the child's ends of its pipes, its standard
/// input, the pipe that says whether `exec` worked.
const LAUNCH: usize = 12;

/// The limit where the system does not say it: the usual one.
const LIMIT_UNKNOWN: u64 = 1_024;

/// The shares of the limit.
///
/// One half is for connections: a quarter of that half for those that have proved nothing at the control port, a quarter for
/// registered nodes, and half for the administration. Those that have made room for others and are about to end are counted in,
/// and so are the places that are kept for the health. The other half is the master's own: nothing that a stranger opens is
/// counted there, so there is room for each launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    limit: usize,
    /// Connections at the control port that have proved nothing yet.
    pub(crate) unproven: usize,
    /// Connections of registered nodes.
    pub(crate) registered: usize,
    /// Connections at the administration's port.
    pub(crate) admin: usize,
}

impl Shares {
    /// The shares of a process that may have `limit` descriptors.
    pub fn of(limit: usize) -> Self {
        let connections = limit / 2;
        Self {
            limit,
            unproven: Bounds::slots_of(connections / 4).clamp(LEAST, UNPROVEN_MAX),
            registered: (connections / 4).clamp(LEAST, REGISTERED_MAX),
            admin: Places::of_open(connections / 2 / ADMIN_EACH).clamp(LEAST, ADMIN_MAX),
        }
    }

    /// The most descriptors that all connections together have.
    fn of_connections(self) -> usize {
        let unproven = Bounds { connections: self.unproven, per_block: self.unproven }.open_max();
        unproven + self.registered + Places::open_max(self.admin) * ADMIN_EACH
    }

    /// How many descriptors are missing for that many nodes on this host, where half of what is added is for connections; `None`
    /// when there are enough.
    pub fn missing(self, nodes: usize) -> Option<usize> {
        let own = self.limit.saturating_sub(self.of_connections().max(self.limit / 2));
        let needed = OWN + LAUNCH + nodes * PER_NODE;
        needed.checked_sub(own).filter(|missing| *missing > 0).map(|missing| missing * 2)
    }
}

/// Raises this process's limit of open files as far as it may; the shares of what that is now. Nodes inherit the raised limit,
/// and would raise it themselves.
///
/// # Errors
/// The system's reason; the shares are then those of the limit as it is.
pub fn raise() -> (Shares, io::Result<()>) {
    let raised = allow_descriptors();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(LIMIT_UNKNOWN, |(soft, _)| soft);
    (Shares::of(usize::try_from(limit).unwrap_or(usize::MAX)), raised.map(drop))
}

/// Whether a launch failed only because descriptors, memory or processes are short at the moment: nothing is wrong with the node.
/// The system's code may be that of the error itself, or of one that it comes from.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let first: &(dyn Error + 'static) = error;
    let mut chain = std::iter::successors(Some(first), |error| (*error).source());
    let code = chain.find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    let Some(code) = code else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_leave_half_of_the_limit() {
        for limit in (600..5_000).chain([20_000, 1 << 20, usize::MAX]) {
            let shares = Shares::of(limit);
            assert!(shares.of_connections() <= limit / 2, "{shares:?}");
        }
        let shares = Shares::of(1_024);
        assert_eq!((shares.unproven, shares.registered, shares.admin), (96, 128, 39));
        // With those that end, the places that are kept, and those of these that end.
        assert_eq!(shares.of_connections(), (96 + 24 + 8) + 128 + (39 + 9 + 8 + 16 + 4 + 8) * 3);
    }

    #[test]
    fn a_limit_that_is_absurdly_small_leaves_a_few_of_each() {
        for limit in [0, 64] {
            let shares = Shares::of(limit);
            assert_eq!((shares.unproven, shares.registered, shares.admin), (LEAST, LEAST, LEAST));
            assert!(shares.missing(0).is_some());
        }
    }

    #[test]
    fn a_limit_that_is_too_low_for_the_nodes_is_noticed() {
        assert_eq!(Shares::of(1_024).missing(3), None);
        assert_eq!(Shares::of(1_024).missing(48), None);
        assert_eq!(Shares::of(1_024).missing(49), Some(10));
        assert_eq!(Shares::of(1_024 + 10).missing(49), None);
    }

    #[test]
    fn a_shortage_is_no_fault_of_the_node() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN] {
            assert!(is_shortage(&errno.into()), "{errno}");
        }
        assert!(!is_shortage(&Errno::ENOENT.into()));
        assert!(!is_shortage(&io::Error::other("it is not configured")));
    }
}

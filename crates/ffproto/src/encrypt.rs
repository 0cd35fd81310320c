//! When connections between nodes, and of nodes to their master, are encrypted.

use std::net::IpAddr;

/// When connections between nodes, and of nodes to their master, are encrypted: `master.encrypt`. Who dials says so, and who
/// accepts takes an unencrypted one only where it would not have encrypted it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encrypt {
    /// `auto`: when they leave the host.
    #[default]
    Auto,
    /// `always`: on loopback, too.
    Always,
    /// `never`: for a network that is encrypted below this. One that arrives encrypted is taken all the same.
    Never,
}

impl Encrypt {
    /// Whether a connection has to be encrypted.
    pub fn wants(self, leaves_host: bool) -> bool {
        match self {
            Self::Auto => leaves_host,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Whether a connection between these two addresses leaves its host. A process that dials one of its own host's addresses comes
/// from that very address, so nobody has to know which addresses the host has.
pub fn leaves_host(ours: IpAddr, theirs: IpAddr) -> bool {
    let (ours, theirs) = (ours.to_canonical(), theirs.to_canonical());
    !theirs.is_loopback() && ours != theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_leaves_its_host_unless_its_ends_are_loopback_or_one_address() {
        let leaves = |ours: &str, theirs: &str| leaves_host(ours.parse().unwrap(), theirs.parse().unwrap());
        assert!(!leaves("127.0.0.1", "127.0.0.1") && !leaves("127.0.0.1", "127.0.0.9"));
        assert!(!leaves("::1", "::1") && !leaves("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(!leaves("10.0.0.1", "10.0.0.1") && !leaves("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(leaves("10.0.0.1", "10.0.0.2") && leaves("fe80::1", "fe80::2"));
    }

    #[test]
    fn auto_is_encrypted_beyond_the_host_alone() {
        let wants = |encrypt: Encrypt| (encrypt.wants(false), encrypt.wants(true));
        assert_eq!(wants(Encrypt::default()), (false, true));
        assert_eq!((wants(Encrypt::Always), wants(Encrypt::Never)), ((true, true), (false, false)));
    }
}

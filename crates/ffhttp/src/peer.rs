//! The peer of a request, as its front says it to the web server: the facts of the connection that no header of a client can say.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::owner::Owner;

/// The header in which the web server finds a request's [`Peer`], where its front looks for owners; what a client says there is
/// replaced.
pub const PEER_HEADER: &str = "X-FF-Peer";

/// The peer of a request: who is at the other end of its connection.
///
/// ```
/// # fn main() -> Result<(), ffhttp::BadPeer> {
/// let peer: ffhttp::Peer = "127.0.0.1:40000 127.0.0.1:9998 1000/77 http direct".parse()?;
/// assert_eq!(peer.owner.map(|owner| owner.uid), Some(1000));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where the client is.
    pub client: SocketAddr,
    /// Where it has connected to.
    pub server: SocketAddr,
    /// Whose the client's socket is: known on loopback alone.
    pub owner: Option<Owner>,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Whether the request says that it came through a proxy: then the owner of the socket is the proxy's.
    pub forwarded: bool,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.client, self.server)?;
        match self.owner {
            Some(Owner { uid, inode }) => write!(f, "{uid}/{inode}")?,
            None => f.write_str("-")?,
        }
        f.write_str(if self.encrypted { " https" } else { " http" })?;
        f.write_str(if self.forwarded { " forwarded" } else { " direct" })
    }
}

/// A text is no peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no peer of a request")]
pub struct BadPeer;

impl FromStr for Peer {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Self, BadPeer> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(BadPeer);
        let client = word()?.parse().map_err(|_| BadPeer)?;
        let server = word()?.parse().map_err(|_| BadPeer)?;
        let owner = match word()? {
            "-" => None,
            owner => {
                let (uid, inode) = owner.split_once('/').ok_or(BadPeer)?;
                let number = |text: &str| text.parse().map_err(|_| BadPeer);
                Some(Owner { uid: number(uid)?, inode: number(inode)? })
            }
        };
        let encrypted = match word()? {
            "https" => true,
            "http" => false,
            _ => return Err(BadPeer),
        };
        let forwarded = match word()? {
            "forwarded" => true,
            "direct" => false,
            _ => return Err(BadPeer),
        };
        Ok(Self { client, server, owner, encrypted, forwarded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_was_written_and_nothing_else_is_one() {
        for text in ["127.0.0.1:1 127.0.0.1:2 0/9 http direct", "[::1]:1 [::1]:2 - https forwarded"] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
            for length in 0..text.len() {
                assert!(text[..length].parse::<Peer>().is_err(), "{}", &text[..length]);
            }
        }
    }
}

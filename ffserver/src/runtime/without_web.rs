//! The web server of a node in a program without the feature `web`: there is none, and a node that wants one is not put together.

use std::io;
use std::net::TcpListener;

use crate::app::app::Mounts;
use crate::handover::http::Front;
use crate::node::Node;

/// A web server: none can be made.
#[derive(Debug)]
pub(crate) enum Web {}

impl Web {
    /// Is not reached: a webport is a fault when the node is put together.
    pub(crate) async fn start(_node: Node, _mounts: Mounts) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open_front(&self, _listener: TcpListener) -> io::Result<Front> {
        match *self {}
    }
}

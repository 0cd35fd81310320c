//! The web server of a node in a program without the feature `web`: there is none, and a node that wants one is not put together.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;

use crate::app::app::Mounts;
use crate::handover::http::Front;
use crate::node::Node;

/// A web server: none can be made.
#[derive(Debug)]
pub(crate) enum Web {}

impl Web {
    /// Is not reached: a webport is a fault when the node is put together.
    pub(crate) async fn start(_node: Node, _mounts: Mounts, _dev: Option<DevNotice>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open_front(&self, _listener: TcpListener) -> io::Result<Front> {
        match *self {}
    }
}

/// What `master dev` says to pages, which a node without a web server does not have.
#[derive(Debug)]
pub(crate) struct DevNotice;

impl DevNotice {
    pub(crate) fn in_file(_path: PathBuf) -> Self {
        Self
    }
}

//! The HTTP front that survives a reload: a web server whose connections another process can go on with.
//!
//! Rocket 0.5 opens its own port and takes neither a listening socket nor a connection. The public port
//! therefore belongs to a [`Front`], an HTTP/1.1 proxy that hands each request to a [`WebServer`] on a loopback
//! port that is for its fronts alone ([`Upstream`]). A connection between two requests is then only a socket and the bytes that were read of it
//! (a [`Handoff`]), which another process can adopt: no request is refused or cut when a process is replaced.
//!
//! Both run on threads of their own, and not in the loop of the program that starts them: a program that is busy
//! still answers HTTP, and gives its connections away.
//!
//! Only `web_server` names Rocket; a front takes any HTTP/1.1 server.

mod certificates;
mod config;
mod connection;
mod front;
mod host;
mod monitor;
mod own_descriptor;
mod owner;
mod peer;
mod phase;
mod places;
mod prefixed_stream;
mod proxy;
mod secret;
mod socket;
mod traffic;
mod upstream;
mod web_server;

pub use certificates::{CertificateError, Certificates};
pub use config::{Asks, FrontConfig, Places, Timeouts};
pub use front::{Front, Handoff, Retirement};
pub use host::is_loopback_host;
pub use owner::Owner;
pub use peer::{BadPeer, PEER_HEADER, Peer};
pub use secret::is_same_secret;
pub use upstream::Upstream;
pub use web_server::{StartError, WebServer};

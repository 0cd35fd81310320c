//! Async I/O that the master, the nodes and the clients share: listening sockets, handshakes, links.
//!
//! * [`admission`] — who gets in at a listening socket, and who makes room: bounds in all and per block of addresses.
//! * [`listen`] — opening listening sockets and handing them to another process.
//! * [`launch`] — the start of a node's process: environment, limit of open files.
//! * [`handshake`] — the shell around `ffproto::handshake`: versions, and who each side is.
//! * [`channel`] — a connection, encrypted or not, whose both sides have proved who they are.
//! * [`tls`] — the encryption of a connection.
//! * [`run_folder`] — where the run folder of a config is.
//! * [`key_desk`] — where a node that is started by hand gets its key from the master that runs.
//! * [`private_file`] — files with secrets.
//! * [`link`] — the one connection between a child and a parent: calls both ways, deadlines, heartbeat.
//! * [`transport`] — the transports of game clients: TCP, and in memory.
//! * [`control`] — typed messages between the master and a node.
//! * [`door`] — descriptors and messages from one process to another on the same host.
//! * [`notify`] — the words with which a process tells its supervisor that it is ready and that its loop turns.
//! * [`backoff`] — how long to wait before trying again.

pub mod admission;
pub mod backoff;
pub mod channel;
pub mod control;
pub mod door;
pub mod handshake;
pub mod key_desk;
pub mod launch;
pub mod link;
pub mod listen;
pub mod notify;
pub mod private_file;
pub mod run_folder;
pub mod tls;
pub mod transport;

pub use link::Link;

//! The start of a node's process, as its master and the process agree on it: the environment, and the limit of open files.
//! Sockets are in [`listen`](crate::listen), the words of a process to its supervisor in [`notify`](crate::notify).

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The environment variable in which the master says which start of the node this is.
pub const INCARNATION_ENV: &str = "FF_INCARNATION";

/// The environment variable in which the master says that it has written the node's keys to the standard input.
pub const KEY_ENV: &str = "FF_KEY";

/// The environment variable in which the master names the start that a successor takes over from.
pub const SUCCEEDS_ENV: &str = "FF_SUCCEEDS";

/// The environment variable in which `master dev` names the file with what the pages of the game show: JSON with texts `page` (another
/// one: the page has changed), `title` (empty: nothing is wrong), `text`, `note` and `doing` (empty: nothing is built).
pub const DEV_ENV: &str = "FF_DEV";

/// The environment variable in which a test says which one version of the protocol between nodes a program shall speak.
pub const SPEAK_ENV: &str = "FF_SPEAK";

/// Allows this process, and those that it starts, as many open files as the system lets it have: the usual soft limit of 1,024
/// would end a net node at its thousandth client, and nothing here uses `select`, which knows no more. Gives what is allowed now.
///
/// # Errors
/// When the system refuses.
pub fn allow_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

//! How the process of a node learns what it is: which start, with which keys, speaking which versions.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ffambient::{Ambient, Clock};
use ffkeys::{KeyError, NameKey, NodeKeys};
use ffnet::launch::{INCARNATION_ENV, KEY_ENV, SPEAK_ENV};
use ffnet::{private_file, run_folder};
use ffproto::version::NotSpoken;
use ffproto::{Incarnation, Versions};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::identity::keys::{KeySource, Startup};

/// Which start of its node this process is: what the master has given (`given`), or what `clock` says for a start by
/// hand.
///
/// # Errors
/// `InvalidInput` when `given` is no number.
pub fn incarnation(given: Option<String>, clock: &Clock) -> io::Result<Incarnation> {
    if let Some(given) = given {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{INCARNATION_ENV}={given}"));
        return given.parse().map(Incarnation).map_err(wrong);
    }
    Ok(Incarnation(clock.now_ms()))
}

/// What the process of a node is started with: what its master has given it, as the environment (`env`) says, or what a person
/// has: a key file, or a config whose master runs on this host.
///
/// # Errors
/// [`StartupError`], by what is wrong.
pub fn startup(
    config: &Path,
    key_file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<Startup, StartupError> {
    if let Some(path) = key_file {
        let (incarnation, versions) = start(env, ambient)?;
        let fault = |source| StartupError::KeyFile { path: path.to_owned(), source };
        let text = private_file::read(path).map_err(|source| fault(KeyFileError::File(source)))?;
        let key = NameKey::of_text(&text).map_err(|source| fault(KeyFileError::Key(source)))?;
        let keys = key.start(incarnation, &ambient.chance)?;
        return Ok(Startup { versions, ..Startup::with_keys(keys) });
    }
    let given = |bytes: &[u8]| Ok(vec![NodeKeys::of_bytes(bytes)?]);
    let mut only = started(1, given, config, env, ambient)?;
    only.pop().ok_or(StartupError::KeysOf { given: 0, nodes: 1 })
}

/// What the process of several `nodes` is started with, in their order: as [`startup`], with one incarnation for all.
///
/// # Errors
/// [`StartupError`], by what is wrong.
pub fn startups(
    nodes: usize,
    config: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<Vec<Startup>, StartupError> {
    started(nodes, NodeKeys::several_of_bytes, config, env, ambient)
}

/// Which start this is, and what it speaks.
fn start(
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<(Incarnation, Versions), StartupError> {
    let versions = Versions::told(env(SPEAK_ENV).as_deref())?;
    let incarnation = incarnation(env(INCARNATION_ENV), &ambient.clock).map_err(StartupError::Incarnation)?;
    Ok((incarnation, versions))
}

/// The starts of `nodes` nodes, whose keys the master has given in a form that `given` reads, or gives when it is asked.
fn started(
    nodes: usize,
    given: impl FnOnce(&[u8]) -> Result<Vec<NodeKeys>, KeyError>,
    config: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<Vec<Startup>, StartupError> {
    let (incarnation, versions) = start(env, ambient)?;
    let keys: Vec<KeySource> = match env(KEY_ENV) {
        Some(_) => {
            let keys = given(&given_keys(nodes).map_err(StartupError::Given)?)?;
            keys.into_iter().map(|keys| KeySource::Given(Box::new(keys))).collect()
        }
        None if env(INCARNATION_ENV).is_some() => return Err(StartupError::MasterBeforeKeys),
        None => {
            let (base, uid) = (run_folder::base(&|name| env(name).map(OsString::from)), geteuid().as_raw());
            let folder = run_folder::of_config(&base, config, uid);
            std::iter::repeat_with(|| KeySource::Master(folder.clone())).take(nodes).collect()
        }
    };
    if keys.len() != nodes {
        return Err(StartupError::KeysOf { given: keys.len(), nodes });
    }
    Ok(keys.into_iter().map(|keys| Startup { incarnation, keys, versions }).collect())
}

/// The keys that the master has written to the standard input, which nothing else comes over: no process that is started
/// beside this one or by it ever has that pipe, and nothing of it is in an argument or in the environment.
fn given_keys(nodes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes_max = nodes.saturating_mul(size_of::<u32>() + NodeKeys::BYTES_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max));
    io::stdin().lock().take(bytes_max as u64).read_to_end(&mut bytes)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(bytes)
}

/// Why a process does not know what it is.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The master's word is no number.
    #[error("this process cannot run a node")]
    Incarnation(#[source] io::Error),
    /// The master gives no keys, which those of protocol version 2 do not.
    #[error(
        "the master that has started this process is of a release before the keys: stop the cluster, and start it with master \
         and appmain of one release"
    )]
    MasterBeforeKeys,
    /// The master's keys cannot be read.
    #[error("the master has given no keys")]
    Given(#[source] io::Error),
    /// The master has given keys of another number of nodes.
    #[error("the master has given the keys of {given} nodes, and this process has {nodes}")]
    KeysOf {
        /// How many it has given.
        given: usize,
        /// How many nodes the process has.
        nodes: usize,
    },
    /// What the master has given is no key, or none can be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key file is of no use.
    #[error("{}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyFileError,
    },
    /// It is to speak a version that it does not.
    #[error("{SPEAK_ENV}")]
    Speak(#[from] NotSpoken),
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] private_file::FileFault),
    /// It is no key file.
    #[error("it is no key file of `master key`")]
    Key(#[source] KeyError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_a_master_starts_without_keys_says_that_the_master_is_too_old() {
        let started = |given: &'static [(&str, &str)]| {
            let env =
                |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            startup(Path::new("config.json"), None, &env, &Ambient::system())
        };
        let refused = started(&[(INCARNATION_ENV, "7")]);
        assert!(matches!(refused, Err(StartupError::MasterBeforeKeys)), "{:?}", refused.err());
        let by_hand = started(&[]);
        assert!(matches!(by_hand.map(|startup| startup.keys), Ok(KeySource::Master(_))));
    }
}

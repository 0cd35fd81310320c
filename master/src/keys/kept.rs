//! What masters of a config keep of their keys in the run folder: the secret, and the one of before the last rotation.
//!
//! With a token its secret is kept, too: the next master knows by it whether the token is another one now, and nodes of the one before
//! know it still. Both are lines of one file, so that a master that dies while it writes leaves the one pair or the other.

use std::io;
use std::path::Path;

use ffambient::Chance;
use ffconfig::Cluster;
use ffkeys::{ClusterSecret, KeyError};
use ffnet::private_file::{self, FileFault};
use zeroize::Zeroizing;

use super::{KeysError, SecretFault};

/// The name of the file in the run folder: a line for the secret, and one for that of before the last rotation.
pub(crate) const SECRET: &str = "secret";
/// What a line ends with whose secret a token was stretched to.
const OF_TOKEN: &str = " of a token";

/// What a cluster's keys are made of.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) secret: ClusterSecret,
    /// It is what a token was stretched to.
    pub(super) of_token: bool,
}

/// What a run folder has of it.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) current: Option<Secret>,
    before: Option<Secret>,
}

impl Secret {
    pub(super) fn new(chance: &Chance) -> Result<Self, KeysError> {
        let secret = ClusterSecret::new(chance).map_err(KeyError::from)?;
        Ok(Self { secret, of_token: false })
    }

    pub(super) fn of_token(token: &str, cluster: &Cluster) -> Self {
        Self { secret: ClusterSecret::of_token(token, &cluster.name), of_token: true }
    }

    fn line(&self) -> Zeroizing<String> {
        let kind = if self.of_token { OF_TOKEN } else { "" };
        Zeroizing::new(format!("{}{kind}\n", *self.secret.hex()))
    }

    fn of_line(line: &str) -> Result<Self, SecretFault> {
        let (hex, of_token) = line.strip_suffix(OF_TOKEN).map_or((line, false), |hex| (hex, true));
        Ok(Self { secret: ClusterSecret::of_hex(hex)?, of_token })
    }
}

impl Kept {
    fn of_text(text: &str) -> Result<Self, SecretFault> {
        let mut lines = text.lines().map(Secret::of_line);
        Ok(Self { current: lines.next().transpose()?, before: lines.next().transpose()? })
    }

    /// What has signed before a secret that is to sign now.
    pub(super) fn before(self, now: &Secret) -> Option<Secret> {
        match self.current {
            Some(current) if current.secret != now.secret => Some(current),
            _ => self.before,
        }
    }
}

/// What a run folder has.
pub(super) fn read(folder: &Path) -> Result<Kept, KeysError> {
    let path = folder.join(SECRET);
    let text = match private_file::read(&path) {
        Ok(text) => text,
        Err(FileFault::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(KeysError::Secret { path, source: error.into() }),
    };
    Kept::of_text(&text).map_err(|source| KeysError::Secret { path, source })
}

/// A new secret, in a run folder that has none. Of two that make it at the same time (a `master single` beside a master) both
/// have the same one.
pub(super) fn made(folder: &Path, chance: &Chance) -> Result<Secret, KeysError> {
    let path = folder.join(SECRET);
    let new = Secret::new(chance)?;
    match private_file::create(&path, &new.line()) {
        Ok(()) => Ok(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(folder)?.current.ok_or_else(|| KeysError::Secret { path, source: error.into() })
        }
        Err(error) => Err(KeysError::Secret { path, source: error.into() }),
    }
}

/// Keeps what signs from now on, and what is kept already as what has signed before it.
pub(super) fn keep(folder: &Path, now: &Secret) -> Result<(), KeysError> {
    let kept = read(folder)?;
    if kept.current.as_ref() == Some(now) {
        return Ok(());
    }
    let path = folder.join(SECRET);
    let mut text = now.line();
    if let Some(before) = kept.before(now) {
        text.push_str(&before.line());
    }
    private_file::replace(&path, &text).map_err(|error| KeysError::Secret { path, source: error.into() })
}

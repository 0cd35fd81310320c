//! What masters of a config keep of their keys in the run folder: the secret, and the one of before the last rotation.
//!
//! With a token its secret is kept, too: the next master knows by it whether the token is another one now, and nodes of the one before
//! know it still. Nobody who cannot read the token's file anyway can enter the run folder.

use std::io;
use std::path::Path;

use ffambient::Chance;
use ffconfig::Cluster;
use ffkeys::{ClusterSecret, KeyError};
use ffnet::private_file::{self, FileFault};
use zeroize::Zeroizing;

use super::{KeysError, SecretFault};

/// The name of the secret in the run folder.
pub(crate) const SECRET: &str = "secret";
/// The name of the one of before the last rotation.
pub(crate) const BEFORE: &str = "secret.before";
/// The second line of one that a token was stretched to.
const OF_TOKEN: &str = "of a token";

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

    fn text(&self) -> Zeroizing<String> {
        let hex = self.secret.hex();
        Zeroizing::new(if self.of_token { format!("{}\n{OF_TOKEN}\n", *hex) } else { hex.to_string() })
    }

    fn of_text(text: &str) -> Result<Self, SecretFault> {
        let (hex, kind) = text.split_once('\n').unwrap_or((text, ""));
        Ok(Self { secret: ClusterSecret::of_hex(hex)?, of_token: kind.trim() == OF_TOKEN })
    }
}

impl Kept {
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
    let one = |name: &str| {
        let path = folder.join(name);
        match private_file::read(&path) {
            Err(FileFault::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => match read.map_err(SecretFault::from).and_then(|text| Secret::of_text(&text)) {
                Ok(secret) => Ok(Some(secret)),
                Err(source) => Err(KeysError::Secret { path, source }),
            },
        }
    };
    Ok(Kept { current: one(SECRET)?, before: one(BEFORE)? })
}

/// A new secret, in a run folder that has none. Of two that make it at the same time (a `master single` beside a master) both
/// have the same one.
pub(super) fn made(folder: &Path, chance: &Chance) -> Result<Secret, KeysError> {
    let path = folder.join(SECRET);
    let new = Secret::new(chance)?;
    match private_file::create(&path, &new.text()) {
        Ok(()) => Ok(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(folder)?.current.ok_or_else(|| KeysError::Secret { path, source: error.into() })
        }
        Err(error) => Err(KeysError::Secret { path, source: error.into() }),
    }
}

/// Keeps what signs from now on; what is kept already has signed before it. A master that dies between the two has them both.
pub(super) fn keep(folder: &Path, now: &Secret) -> Result<(), KeysError> {
    let write = |name: &str, secret: &Secret| {
        let path = folder.join(name);
        let written = private_file::replace(&path, &secret.text());
        written.map_err(|error| KeysError::Secret { path, source: error.into() })
    };
    match read(folder)?.current {
        Some(current) if current == *now => return Ok(()),
        Some(current) if current.secret != now.secret => write(BEFORE, &current)?,
        _ => {}
    }
    write(SECRET, now)
}

//! The keys of a master: where its token stands, the secret that it keeps in the run folder without one, and key files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ffambient::{Ambient, Chance, ChanceError};
use ffconfig::schema::TOKEN_CHARS_MIN;
use ffconfig::{Cluster, Token};
use ffkeys::{BadSecret, ClusterKeys, ClusterSecret, KeyError, TokenCheck};
use ffnet::private_file::{self, FileFault};
use zeroize::Zeroizing;

/// The secret's name in the run folder.
const SECRET: &str = "secret";
/// Where systemd says that it has put credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The keys of a master, and the token that its webport asks for.
#[derive(Clone)]
pub struct MasterKeys {
    pub(crate) cluster: Arc<ClusterKeys>,
    pub(crate) token: Option<Arc<Zeroizing<String>>>,
}

/// Why a master has no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The token cannot be read.
    #[error("master.token: {}", path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        #[source]
        source: FileFault,
    },
    /// The token is too short.
    #[error("master.token: {} has {chars} characters: at least {TOKEN_CHARS_MIN} are needed", path.display())]
    Short {
        /// Where it stands.
        path: PathBuf,
        /// How many there are.
        chars: usize,
    },
    /// systemd has given no credentials.
    #[error("master.token: {CREDENTIALS} is not set: only a master that systemd starts has credentials")]
    NoCredentials,
    /// The secret in the run folder cannot be used.
    #[error("{}", path.display())]
    Secret {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        #[source]
        source: SecretFault,
    },
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why the secret in the run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] FileFault),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// It is none.
    #[error(transparent)]
    Bad(#[from] BadSecret),
    /// None can be made.
    #[error(transparent)]
    Chance(#[from] ChanceError),
}

impl MasterKeys {
    /// Of a config: made of its token, or of the secret in the run folder, which is made when there is none. Without a run
    /// folder they are of this master alone. Takes a tenth of a second with a token.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(
        cluster: &Cluster,
        folder: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
        ambient: &Ambient,
    ) -> Result<Self, KeysError> {
        let chance = ambient.chance.stream("keys");
        let Some(place) = &cluster.master.token else {
            let secret = match folder {
                Some(folder) => kept_secret(folder, &chance)?,
                None => ClusterSecret::new(&chance).map_err(KeyError::from)?,
            };
            return Ok(Self { cluster: Arc::new(ClusterKeys::new(&secret, 0, None)?), token: None });
        };
        let token = read_token(place, env)?;
        let keys = ClusterKeys::new(&ClusterSecret::of_token(&token, &cluster.name), 0, None)?;
        let keys = keys.with_token(TokenCheck::of(&token, &chance).map_err(KeyError::from)?);
        Ok(Self { cluster: Arc::new(keys), token: Some(Arc::new(token)) })
    }
}

/// The token, wherever it stands.
///
/// # Errors
/// [`KeysError`].
pub fn read_token(
    place: &Token,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Zeroizing<String>, KeysError> {
    let path = match place {
        Token::Text(text) => return Ok(Zeroizing::new(text.clone())),
        Token::File(path) => path.clone(),
        Token::Credential(name) => Path::new(&env(CREDENTIALS).ok_or(KeysError::NoCredentials)?).join(name),
    };
    let text = private_file::read(&path);
    let text = text.map_err(|source| KeysError::Token { path: path.clone(), source })?;
    let token = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    match token.chars().count() {
        few if few < TOKEN_CHARS_MIN => Err(KeysError::Short { path, chars: few }),
        _ => Ok(token),
    }
}

/// The secret of the run folder. Of two that make it at the same time (a `master single` beside a master) both have the
/// same one.
fn kept_secret(folder: &Path, chance: &Chance) -> Result<ClusterSecret, KeysError> {
    let path = folder.join(SECRET);
    let fault = |source| KeysError::Secret { path: path.clone(), source };
    let read =
        || -> Result<ClusterSecret, SecretFault> { Ok(ClusterSecret::of_hex(&private_file::read(&path)?)?) };
    match read() {
        Err(SecretFault::File(FileFault::Io(error))) if error.kind() == io::ErrorKind::NotFound => {}
        there => return there.map_err(fault),
    }
    let new = ClusterSecret::new(chance).map_err(|error| fault(error.into()))?;
    match private_file::create(&path, &new.hex()) {
        Ok(()) => Ok(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read().map_err(fault),
        Err(error) => Err(fault(error.into())),
    }
}

/// The text of a key file for a node of the config.
///
/// # Errors
/// [`KeyFileError`].
pub fn key_file(
    cluster: &Cluster,
    node: &str,
    keys: &MasterKeys,
    ambient: &Ambient,
) -> Result<Zeroizing<String>, KeyFileError> {
    let config = cluster.node(node).ok_or_else(|| KeyFileError::Unknown {
        name: node.to_owned(),
        known: cluster.nodes.iter().map(|node| node.name.to_string()).collect(),
    })?;
    Ok(keys.cluster.name_key(cluster.claims(config), &ambient.chance)?.to_text()?)
}

/// Why there is no key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The config has no such node.
    #[error("there is no node `{name}` in the config; it has: {}", known.join(", "))]
    Unknown {
        /// The name as it was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fixture::{cluster, cluster_with};

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_a_token_the_secret_is_made_once_and_found_by_the_next_master() {
        let folder = tempfile::tempdir().unwrap();
        let load = || MasterKeys::load(&cluster(&["a"]), Some(folder.path()), &none, &Ambient::system());
        let (first, next) = (load().unwrap(), load().unwrap());
        assert_eq!(first.cluster.roots(), next.cluster.roots());
        assert!(first.token.is_none());
        let secret = folder.path().join(SECRET);
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let error = anyhow::Error::from(load().err().unwrap());
        assert!(format!("{error:#}").contains("others may read it (mode 644)"), "{error:#}");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&secret, "half a secr").unwrap();
        assert!(load().is_err());
        let elsewhere = tempfile::tempdir().unwrap();
        let other =
            MasterKeys::load(&cluster(&["a"]), Some(elsewhere.path()), &none, &Ambient::system()).unwrap();
        assert_ne!(first.cluster.roots(), other.cluster.roots());
    }

    #[test]
    fn a_token_gives_the_same_keys_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        private_file::create(&folder.path().join("token"), "a-secret-of-sixteen\n").unwrap();
        let at = folder.path().display();
        let env = |name: &str| (name == CREDENTIALS).then(|| at.to_string());
        let load = |token: &str| {
            let cluster = cluster_with(&format!(", \"token\": {token}"), &["a"]);
            MasterKeys::load(&cluster, None, &env, &Ambient::system())
        };
        let text = load("\"a-secret-of-sixteen\"").unwrap();
        let file = load(&format!("{{\"file\": \"{at}/token\"}}")).unwrap();
        let credential = load("{\"credential\": \"token\"}").unwrap();
        for keys in [&file, &credential] {
            assert_eq!(keys.cluster.roots(), text.cluster.roots());
            assert_eq!(keys.token.as_ref().map(|token| token.as_str()), Some("a-secret-of-sixteen"));
        }
        private_file::create(&folder.path().join("short"), "short\n").unwrap();
        let short = load("{\"credential\": \"short\"}").err().unwrap().to_string();
        assert!(short.ends_with("/short has 5 characters: at least 16 are needed"), "{short}");
        let open = folder.path().join("token");
        fs::set_permissions(open, fs::Permissions::from_mode(0o640)).unwrap();
        let open = anyhow::Error::from(load(&format!("{{\"file\": \"{at}/token\"}}")).err().unwrap());
        assert!(format!("{open:#}").ends_with("token: others may read it (mode 640): chmod 600"), "{open:#}");
        let none = MasterKeys::load(
            &cluster_with(", \"token\": {\"credential\": \"token\"}", &["a"]),
            None,
            &none,
            &Ambient::system(),
        );
        assert!(matches!(none, Err(KeysError::NoCredentials)));
    }

    #[test]
    fn a_key_file_is_for_a_node_of_the_config() {
        let cluster = cluster(&["gate", "game > gate"]);
        let keys = MasterKeys::load(&cluster, None, &none, &Ambient::system()).unwrap();
        let text = key_file(&cluster, "game", &keys, &Ambient::system()).unwrap();
        let key = ffkeys::NameKey::of_text(&text).unwrap();
        assert_eq!(
            (key.claims().name.as_str(), key.claims().below.as_slice()),
            ("game", &["x".to_owned()][..])
        );
        let unknown = key_file(&cluster, "gme", &keys, &Ambient::system()).unwrap_err().to_string();
        assert_eq!(unknown, "there is no node `gme` in the config; it has: gate, game");
    }
}

//! The keys of a master: where its token stands, the secret that it keeps in the run folder, how both change, and key files.

mod kept;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ffambient::{Ambient, Chance, ChanceError};
use ffconfig::schema::TOKEN_CHARS_MIN;
use ffconfig::{Cluster, Token};
use ffkeys::{BadSecret, ClusterKeys, KeyError, NodeKeys, TrustRoots};
use ffnet::private_file::{self, FileFault};
use ffproto::credential::Claims;
use ffproto::{ClusterName, Incarnation};
use zeroize::Zeroizing;

pub(crate) use kept::SECRET;
use kept::Secret;

/// Where systemd says that it has put credentials.
pub(crate) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The keys of a master, and the token that its webport asks for.
#[derive(Clone)]
pub struct MasterKeys {
    pub(crate) cluster: Arc<ClusterKeys>,
    /// Those of before the last rotation: they sign what is shown to who does not know of it yet.
    before: Option<Arc<ClusterKeys>>,
    pub(crate) token: Option<Arc<Zeroizing<String>>>,
    secret: Secret,
    /// Where the next master finds them.
    folder: Option<PathBuf>,
    /// Where systemd has put credentials.
    credentials: Option<String>,
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

/// What the keys of a cluster are to be made of from now on.
pub(crate) struct Next {
    secret: Secret,
    token: Option<Arc<Zeroizing<String>>>,
}

impl MasterKeys {
    /// Of a config: made of its token, or of the secret in the run folder, which is made when there is none. Without a run
    /// folder they are of this master alone. A token that is another one than the last master's is a rotation. Takes a tenth
    /// of a second with a token.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(
        cluster: &Cluster,
        folder: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
        ambient: &Ambient,
    ) -> Result<Self, KeysError> {
        let keys = Self::read(cluster, folder, env, ambient)?;
        if let Some(folder) = folder {
            kept::keep(folder, &keys.secret)?;
        }
        Ok(keys)
    }

    /// The same for a program beside the master of that run folder: what is kept there stays as it is.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read(
        cluster: &Cluster,
        folder: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
        ambient: &Ambient,
    ) -> Result<Self, KeysError> {
        let chance = ambient.chance.stream("keys");
        let token = cluster.master.token.as_ref().map(|place| read_token(place, env)).transpose()?;
        let kept = folder.map(kept::read).transpose()?.unwrap_or_default();
        let secret = match (&token, kept.current, folder) {
            (Some(token), ..) => Secret::of_token(token, cluster),
            (None, Some(secret), _) if !secret.of_token => secret,
            // Who knew the token knows what was made of it.
            (None, None, Some(folder)) => kept::made(folder, &chance)?,
            (None, ..) => Secret::new(&chance)?,
        };
        let kept = folder.map(kept::read).transpose()?.unwrap_or_default();
        let before = kept.before(&secret);
        let (folder, credentials) = (folder.map(Path::to_owned), env(CREDENTIALS));
        Self::made(secret, before, token.map(Arc::new), folder, credentials)
    }

    fn made(
        secret: Secret,
        before: Option<Secret>,
        token: Option<Arc<Zeroizing<String>>>,
        folder: Option<PathBuf>,
        credentials: Option<String>,
    ) -> Result<Self, KeysError> {
        let keys = |secret: Secret| ClusterKeys::new(&secret.secret, 0, None);
        let before = before.map(keys).transpose()?;
        let previous = before.as_ref().map(|before| before.roots().current);
        let cluster = ClusterKeys::new(&secret.secret, 0, previous)?;
        let (cluster, before) = (Arc::new(cluster), before.map(Arc::new));
        Ok(Self { cluster, before, token, secret, folder, credentials })
    }

    /// The master's own: what it shows to nodes.
    pub(crate) fn own(
        &self,
        cluster: &ClusterName,
        incarnation: Incarnation,
        chance: &Chance,
    ) -> Result<NodeKeys, KeyError> {
        let start = |keys: &ClusterKeys| keys.start(Claims::of_master(cluster.clone()), incarnation, chance);
        let own = start(&self.cluster)?;
        match &self.before {
            Some(before) => Ok(own.with_older(start(before)?)),
            None => Ok(own),
        }
    }

    /// What that config makes keys of, when that is something else than now. Takes a tenth of a second then.
    pub(crate) fn next(&self, cluster: &Cluster, chance: &Chance) -> Result<Option<Next>, KeysError> {
        let token = cluster.master.token.as_ref();
        let token = token.map(|place| read_token(place, &|_| self.credentials.clone())).transpose()?;
        match token {
            Some(token) if self.token.as_ref().is_some_and(|known| **known == token) => Ok(None),
            Some(token) => {
                let secret = Secret::of_token(&token, cluster);
                Ok(Some(Next { secret, token: Some(Arc::new(token)) }))
            }
            None if self.token.is_some() => Self::anew(chance).map(Some),
            None => Ok(None),
        }
    }

    /// A new secret.
    pub(crate) fn anew(chance: &Chance) -> Result<Next, KeysError> {
        Ok(Next { secret: Secret::new(chance)?, token: None })
    }

    /// By which keys others are known after a rotation.
    pub(crate) fn roots_after(&self, next: &Next) -> Result<TrustRoots, KeysError> {
        let next = ClusterKeys::new(&next.secret.secret, 0, None)?;
        Ok(self.cluster.roots().rotated(next.roots().current))
    }

    /// The keys after a rotation, which the next master finds, too. What signs now is valid until the next rotation; what has
    /// signed before that is not valid any more.
    pub(crate) fn rotated(&self, next: Next) -> Result<Self, KeysError> {
        let Next { secret, token } = next;
        if let Some(folder) = &self.folder {
            kept::keep(folder, &secret)?;
        }
        let (folder, credentials) = (self.folder.clone(), self.credentials.clone());
        Self::made(secret, Some(self.secret.clone()), token, folder, credentials)
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
    let (path, text) = match place {
        Token::Text(text) => return Ok(Zeroizing::new(text.clone())),
        Token::File(path) => (path.clone(), private_file::read(path)),
        Token::Credential(name) => {
            let path = Path::new(&env(CREDENTIALS).ok_or(KeysError::NoCredentials)?).join(name);
            let text = private_file::read_credential(&path);
            (path, text)
        }
    };
    let text = text.map_err(|source| KeysError::Token { path: path.clone(), source })?;
    let token = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    match token.chars().count() {
        few if few < TOKEN_CHARS_MIN => Err(KeysError::Short { path, chars: few }),
        _ => Ok(token),
    }
}

/// Whether a run folder has a master's secret.
pub fn has_secret(folder: &Path) -> bool {
    folder.join(SECRET).exists()
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

    /// The keys that masters with these tokens have, one after the other, in one run folder; `None`: without a token.
    fn masters(folder: &Path, tokens: &[Option<&str>]) -> Vec<MasterKeys> {
        let load = |token: &Option<&str>| {
            let token = token.map(|token| format!(", \"token\": \"{token}\"")).unwrap_or_default();
            MasterKeys::load(&cluster_with(&token, &["a"]), Some(folder), &none, &Ambient::system()).unwrap()
        };
        tokens.iter().map(load).collect()
    }

    #[test]
    fn what_signed_before_is_known_to_the_next_master_until_the_rotation_after() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Some("a-secret-of-sixteen"), Some("another-secret-of-16"));
        let all = masters(folder.path(), &[one, one, two, two, None, None]);
        let roots: Vec<_> = all.iter().map(|keys| keys.cluster.roots()).collect();
        assert_eq!((roots[0].previous, roots[1]), (None, roots[0]));
        assert_eq!((roots[2].previous, roots[3]), (Some(roots[0].current), roots[2]));
        // Without a token it is a new secret: who knew the token knows what was made of it.
        assert_eq!((roots[4].previous, roots[5]), (Some(roots[2].current), roots[4]));
        assert!(!roots[4].has(roots[0].current));
        let mode = fs::metadata(folder.path().join(SECRET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_rotation_of_a_running_master_is_found_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = masters(folder.path(), &[None]).remove(0);
        let chance = Chance::system();
        let second = first.rotated(MasterKeys::anew(&chance).unwrap()).unwrap();
        let next = masters(folder.path(), &[None]).remove(0);
        assert_eq!(next.cluster.roots(), second.cluster.roots());
        assert_eq!(next.cluster.roots().previous, Some(first.cluster.roots().current));
        // What it shows to a node of before the rotation is signed by what that node knows.
        let name = ClusterName::try_from("c").unwrap();
        let own = next.own(&name, Incarnation(1), &chance).unwrap();
        let [now, before] = [&second, &first].map(|keys| keys.cluster.roots().current);
        assert_eq!(own.shown_to(now).credential().root, now);
        assert_eq!(own.shown_to(before).credential().root, before);
        assert!(next.next(&cluster(&["a"]), &chance).unwrap().is_none(), "nothing has changed");
        let token = cluster_with(", \"token\": \"a-secret-of-sixteen\"", &["a"]);
        assert!(next.next(&token, &chance).unwrap().is_some());
    }

    #[test]
    fn who_is_beside_the_master_changes_nothing_of_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = masters(folder.path(), &[None]).remove(0);
        let token = cluster_with(", \"token\": \"a-secret-of-sixteen\"", &["a"]);
        let beside = MasterKeys::read(&token, Some(folder.path()), &none, &Ambient::system()).unwrap();
        assert_eq!(beside.cluster.roots().previous, Some(first.cluster.roots().current));
        assert_eq!(masters(folder.path(), &[None]).remove(0).cluster.roots(), first.cluster.roots());
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

//! Where the master is that is asked, and the token that is shown to it.

use std::io;
use std::path::{Path, PathBuf};

use ffconfig::MasterWebport;
use ffnet::private_file::{self, FileFault};
use ffnet::run_folder;
use zeroize::Zeroizing;

use super::client::{At, BadUrl, Client};
use super::tls;
use super::{Surroundings, To};

/// The variable that has an operator's token.
const TOKEN_ENV: &str = "FF_OPERATOR_TOKEN";
/// The variable that names the config.
const CONFIG_ENV: &str = "FF_CONFIG";
/// An operator's token in the run folder.
const TOKEN_FILE: &str = "operator.token";

/// Why it is not known whom to ask, or with which token.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The config cannot be read.
    #[error("{}: {source}; name the config by -c, or the master by --at http://HOST:PORT", path.display())]
    Config {
        /// The config.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The config does not say where its master is.
    #[error("{}: master.webport is not there to be read, so nobody knows where the master is: `master --check` says why", path.display())]
    Webport {
        /// The config.
        path: PathBuf,
    },
    /// The URL is none.
    #[error("--at: {0}")]
    Url(#[from] BadUrl),
    /// The certificate cannot be used.
    #[error("{}: {why}", path.display())]
    Certificate {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is no certificate by which a master is trusted.
    #[error("{url}: whose certificate is trusted? Name its file by --cert")]
    NoCertificate {
        /// The master.
        url: String,
    },
    /// The token cannot be read.
    #[error("the operator's token: {}", path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        #[source]
        source: FileFault,
    },
}

/// Who is asked, with the token.
pub(super) fn client(to: &To, around: &Surroundings<'_>) -> Result<Client, PlaceError> {
    let config =
        to.config.clone().or_else(|| (around.env)(CONFIG_ENV).filter(|s| !s.is_empty()).map(PathBuf::from));
    let config = config.unwrap_or_else(|| PathBuf::from("config.json"));
    let (at, shown) = match &to.at {
        Some(url) => (At::parse(url)?, None),
        None => of_config(&config, around.env)?,
    };
    let folder = to
        .at
        .is_none()
        .then(|| run_folder::of_config(&around.run_dir, &config, nix::unistd::Uid::effective().as_raw()));
    let trusted = to.cert.as_deref().or(shown.as_deref()).map(|path| {
        tls::connector(path).map_err(|why| PlaceError::Certificate { path: path.to_owned(), why })
    });
    let trusted = trusted.transpose()?;
    if at.is_https() && trusted.is_none() {
        return Err(PlaceError::NoCertificate { url: at.url() });
    }
    Ok(Client::new(at, token(to.token_file.as_deref(), folder.as_deref(), around.env)?, trusted))
}

/// Where the master of a config answers, and the file of the certificate that it shows. One that listens on every address does so on
/// loopback.
fn of_config(
    config: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(At, Option<PathBuf>), PlaceError> {
    let unreadable = |source| PlaceError::Config { path: config.to_owned(), source };
    let named = ffconfig::load_webport(config, env).map_err(unreadable)?;
    let MasterWebport { at, roothost, cert } =
        named.ok_or_else(|| PlaceError::Webport { path: config.to_owned() })?;
    Ok((At::of_config(at, roothost, cert.is_some()), cert))
}

/// The token of the first place that has one; none when no place has, as for the master's own user.
fn token(
    named: Option<&Path>,
    folder: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Zeroizing<String>>, PlaceError> {
    if let Some(path) = named {
        return read(path).map(Some);
    }
    if let Some(token) = env(TOKEN_ENV).filter(|token| !token.trim().is_empty()) {
        return Ok(Some(Zeroizing::new(token.trim().to_owned())));
    }
    let path = folder.map(|folder| folder.join(TOKEN_FILE)).filter(|path| path.exists());
    path.as_deref().map(read).transpose()
}

fn read(path: &Path) -> Result<Zeroizing<String>, PlaceError> {
    let text = private_file::read(path);
    let text = text.map_err(|source| PlaceError::Token { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_is_that_of_the_file_then_of_the_environment_then_of_the_run_folder() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("named");
        let (none, set) = (|_: &str| None, |name: &str| (name == TOKEN_ENV).then(|| " of-env\n".to_owned()));
        let shown = |token: Option<Zeroizing<String>>| token.map(|token| token.to_string());
        assert_eq!(shown(token(None, Some(folder.path()), &none).unwrap()), None);
        write(&folder.path().join(TOKEN_FILE), "of-folder\n", 0o600);
        write(&named, "of-file\n", 0o600);
        assert_eq!(shown(token(None, Some(folder.path()), &none).unwrap()).as_deref(), Some("of-folder"));
        assert_eq!(shown(token(None, Some(folder.path()), &set).unwrap()).as_deref(), Some("of-env"));
        assert_eq!(
            shown(token(Some(&named), Some(folder.path()), &set).unwrap()).as_deref(),
            Some("of-file")
        );
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        write(&open, "secret\n", 0o644);
        let fault = token(Some(&open), None, &|_| None).unwrap_err();
        assert!(matches!(fault, PlaceError::Token { .. }), "{fault}");
    }

    #[test]
    fn a_config_with_other_faults_still_says_where_its_master_is() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let text =
            |webport: &str| format!(r#"{{"master": {{"webport": {webport}, "rootport": 1}}, "servres": 3}}"#);
        std::fs::write(&config, text("9998")).unwrap();
        assert_eq!(of_config(&config, &|_| None).unwrap().0.url(), "http://127.0.0.1:9998");
        std::fs::write(&config, text("\"0.0.0.0:9998\"")).unwrap();
        assert_eq!(of_config(&config, &|_| None).unwrap().0.url(), "http://127.0.0.1:9998");
        std::fs::write(&config, "{}").unwrap();
        assert!(matches!(of_config(&config, &|_| None), Err(PlaceError::Webport { .. })));
        let fault = of_config(&folder.path().join("no.json"), &|_| None).unwrap_err().to_string();
        assert!(fault.contains("--at http://HOST:PORT"), "{fault}");
    }
}

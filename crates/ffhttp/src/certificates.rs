//! The certificate that a front shows, read again when its files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ffnet::private_file::{self, FileFault};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

/// What is spoken inside of TLS (ALPN).
const PROTOCOL: &[u8] = b"http/1.1";
/// A certificate with those that vouch for it is some thousand bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of the certificate cannot be read.
    #[error("{}: {error}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The file of the key cannot be read, or others can.
    #[error("{}: {error}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        error: FileFault,
    },
    /// A file is not in PEM, or has nothing of what it should have.
    #[error("{}: no {what} in PEM: {why}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The key is not that of the certificate, or of a kind that TLS 1.3 does not know.
    #[error("{}: {why}", path.display())]
    Unfit {
        /// The file of the key.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The certificate of a front, and the files that it is read from.
#[derive(Debug)]
pub struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    stamps: Stamps,
    shown: Arc<CertifiedKey>,
}

/// By which files are known to be others: of each when it was written, its length and its inode.
type Stamps = [Option<(i64, i64, u64, u64)>; 2];

impl Certificates {
    /// Reads both files, in PEM: the certificate with those that vouch for it, and its private key, which only its owner may read.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let stamps = stamps(cert, key);
        let current = Mutex::new(Current { stamps, shown: read(cert, key)? });
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again if they have changed; whether they have. With an error the certificate of before is shown on, and the
    /// next call tries again.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        let stamps = stamps(&self.cert, &self.key);
        if self.current.lock().stamps == stamps {
            return Ok(false);
        }
        let shown = read(&self.cert, &self.key)?;
        *self.current.lock() = Current { stamps, shown };
        Ok(true)
    }

    /// The settings of TLS that show the certificate of the moment.
    pub(crate) fn settings(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let shown = Arc::new(Shown(self.clone()));
        let config = ffnet::tls::server_config(ffnet::tls::provider(), shown, &[PROTOCOL]);
        Ok(Arc::new(config.map_err(io::Error::other)?))
    }
}

#[derive(Debug)]
struct Shown(Arc<Certificates>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.lock().shown.clone())
    }
}

fn stamps(cert: &Path, key: &Path) -> Stamps {
    [cert, key].map(|path| {
        let there = fs::metadata(path).ok()?;
        Some((there.mtime(), there.mtime_nsec(), there.len(), there.ino()))
    })
}

fn read(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    let unread = |error| CertificateError::Unread { path: cert.to_owned(), error };
    if fs::metadata(cert).map_err(unread)?.len() > BYTES_MAX {
        return Err(unread(io::ErrorKind::FileTooLarge.into()));
    }
    let pem = fs::read(cert).map_err(unread)?;
    let no = |path: &Path, what, why: String| CertificateError::Pem { path: path.to_owned(), what, why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|e| no(cert, "certificate", e.to_string()))?;
    if chain.is_empty() {
        return Err(no(cert, "certificate", "there is none".into()));
    }
    let pem =
        private_file::read(key).map_err(|error| CertificateError::Key { path: key.to_owned(), error })?;
    let private =
        PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| no(key, "private key", e.to_string()))?;
    CertifiedKey::from_der(chain, private, &ffnet::tls::provider())
        .map(Arc::new)
        .map_err(|e| CertificateError::Unfit { path: key.to_owned(), why: e.to_string() })
}

//! The trust in a master that speaks HTTPS: its certificate, or those who vouch for it, as a file that the operator has.

use std::path::Path;
use std::sync::Arc;

use ffnet::tls::provider;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::verify_tls13_signature;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, SignatureScheme,
};

/// Trusts the certificates of a file: a master that shows one of them, whatever name it has, for the operator has its very
/// certificate; and one whose certificate they vouch for, by its name.
#[derive(Debug)]
struct Trusted {
    own: Vec<CertificateDer<'static>>,
    vouching: Arc<WebPkiServerVerifier>,
}

/// What connects to a master that is trusted by the certificates in a file (PEM).
///
/// # Errors
/// One line that says what is wrong with the file.
pub(super) fn connector(path: &Path) -> Result<TlsConnector, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let own: Vec<CertificateDer<'static>> = read.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(own.iter().cloned()).0 == 0 {
        return Err("there is no certificate in it (PEM)".to_owned());
    }
    let vouching = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let trusted = Trusted { own, vouching: vouching.map_err(|error| error.to_string())? };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusted))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.iter().any(|own| own.as_ref() == shown.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.vouching.verify_server_cert(shown, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, shown, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouching.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::super::client::{AskError, At, Client};
    use super::*;

    const CERTIFICATE: &str = include_str!("../../testdata/operator.pem");
    const KEY: &str = include_str!("../../testdata/operator.key");

    /// A master that answers one request over TLS; its port.
    async fn master() -> u16 {
        let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
            let _ = stream.shutdown().await;
        });
        port
    }

    async fn asked(certificates: &str) -> Result<String, AskError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trusted.pem");
        std::fs::write(&file, certificates).unwrap();
        let at = At::parse(&format!("https://127.0.0.1:{}", master().await)).unwrap();
        let client = Client::new(at, None, Some(connector(&file).unwrap()));
        client.get("/status").await.map(|answer| answer.text)
    }

    #[tokio::test]
    async fn a_master_is_trusted_by_its_own_certificate_and_by_no_other() {
        assert_eq!(asked(CERTIFICATE).await.unwrap(), "{}");
        let refused = asked(include_str!("../../testdata/stranger.pem")).await.unwrap_err();
        assert!(
            matches!(refused, AskError::NoMaster { .. }) && refused.to_string().contains("certificate"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_without_a_certificate_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        std::fs::write(&file, "").unwrap();
        assert!(connector(&file).err().unwrap().contains("no certificate"));
        assert!(connector(&folder.path().join("none.pem")).is_err());
    }
}

//! The encryption of a connection: TLS 1.3, nothing older, no tickets, no early data.
//!
//! Between nodes TLS is a channel and nothing more: its key is made anew for each connection (a raw public key, RFC 7250), and
//! any key is taken. Who the other side is, is what `ffproto::handshake` proves inside of the channel, over a transcript that has
//! the channel's [`binding`] in it. Whoever sits between two nodes has two channels with two bindings, so both proofs fail.
//! Hence there is nothing for an operator to make, to hand out or to renew, and no clock that it could end by.

mod reader;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ffambient::Chance;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group, sign::any_eddsa_type};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroizing;

pub use reader::{Reader, UNPROVEN_BYTES_MAX, UnprovenBound};

/// The first byte of what a TLS client says. The preamble of the handshake begins with another one.
pub const FIRST_BYTE: u8 = 0x16;
/// What is spoken inside of a channel between nodes (ALPN).
const PROTOCOL: &[u8] = b"ff/3";
/// The label of a channel's binding (RFC 9266, `tls-exporter`).
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// An Ed25519 key in PKCS#8 is these bytes, and its seed.
const PKCS8_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// An encrypted channel. It is the end of a stream only when the other side has said so: one that is cut is an error.
pub type Sealed<S> = TlsStream<Reader<S>>;

/// What is encrypted with: the fastest ciphers of TLS 1.3 first, on hardware with and without AES.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..default_provider()
    })
}

/// The settings of who accepts, with what shows its key, and the protocols that it speaks inside.
///
/// # Errors
/// `provider` has nothing of TLS 1.3.
pub fn server_config(
    provider: Arc<CryptoProvider>,
    keys: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_no_client_auth().with_cert_resolver(keys);
    // A ticket is state that outlives its connection, and early data could be played again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Opens an encrypted channel between nodes over a connection that this side dialled.
///
/// # Errors
/// The other side does not speak TLS, or not ours; the connection broke.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> io::Result<Box<Sealed<S>>> {
    let provider = provider();
    let any = Arc::new(AnyKey(provider.signature_verification_algorithms));
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).map_err(io::Error::other)?;
    let mut config = config.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // It is not sent, and names nobody: the handshake inside says whom this side wants.
    let nobody = ServerName::from(Ipv4Addr::LOCALHOST);
    let io = Reader::new(io, UnprovenBound::none());
    let sealed = TlsConnector::from(Arc::new(config)).connect(nobody, io).await?;
    ours(Box::new(sealed.into()))
}

/// Opens an encrypted channel between nodes over a connection that this side accepted. The key is drawn from `chance`; what
/// rustls draws itself comes from the system. No more than [`UNPROVEN_BYTES_MAX`] are taken, until its [`unproven_bound`] is lifted.
///
/// # Errors
/// As of [`dial`]; there is no chance.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S, chance: &Chance) -> io::Result<Box<Sealed<S>>> {
    let keys = Arc::new(AlwaysResolvesServerRawPublicKeys::new(new_key(chance)?));
    let config = server_config(provider(), keys, &[PROTOCOL]).map_err(io::Error::other)?;
    let io = Reader::new(io, UnprovenBound::new());
    let sealed = TlsAcceptor::from(Arc::new(config)).accept(io).await?;
    ours(Box::new(sealed.into()))
}

/// How much of the other side is taken before it has proved who it is.
pub fn unproven_bound<S>(sealed: &Sealed<S>) -> &UnprovenBound {
    match sealed {
        TlsStream::Client(stream) => stream.get_ref().0.unproven_bound(),
        TlsStream::Server(stream) => stream.get_ref().0.unproven_bound(),
    }
}

/// What both ends of a channel have, nobody else has, and no other channel has.
///
/// # Errors
/// The channel is not open yet.
pub fn binding<S>(sealed: &Sealed<S>) -> io::Result<Vec<u8>> {
    let out = vec![0; 32];
    let exported = match sealed {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material(out, BINDING_LABEL, None),
    };
    exported.map_err(io::Error::other)
}

/// A channel of somebody who speaks TLS, but not to nodes, is none.
fn ours<S>(sealed: Box<Sealed<S>>) -> io::Result<Box<Sealed<S>>> {
    let agreed = match &*sealed {
        TlsStream::Client(stream) => stream.get_ref().1.alpn_protocol(),
        TlsStream::Server(stream) => stream.get_ref().1.alpn_protocol(),
    };
    match agreed {
        Some(PROTOCOL) => Ok(sealed),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak the protocol between nodes")),
    }
}

fn new_key(chance: &Chance) -> io::Result<Arc<CertifiedKey>> {
    let mut key = Zeroizing::new([0; PKCS8_HEAD.len() + 32]);
    let (head, seed) = key.split_at_mut(PKCS8_HEAD.len());
    head.copy_from_slice(&PKCS8_HEAD);
    chance.fill(seed).map_err(io::Error::from)?;
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&key[..])).map_err(io::Error::other)?;
    let public = key.public_key().ok_or_else(|| io::Error::other("the key has no public half"))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key)))
}

/// Takes any raw public key whose owner has signed this very handshake of TLS.
struct AnyKey(WebPkiSupportedAlgorithms);

impl fmt::Debug for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyKey")
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;

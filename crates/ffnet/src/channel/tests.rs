use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::admission::{Admission, Bounds};
use crate::handshake::tests::{local, name};

type Opened = Result<(Channel, Peer), HandshakeError>;

/// Both ends of a connection on loopback.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(TcpStream::connect(at), listener.accept());
    (dialed.unwrap(), accepted.unwrap().0)
}

async fn open(dialer: Encrypt, acceptor: Encrypt) -> (Opened, Opened) {
    let (a, b) = connected().await;
    let to = name("gate");
    // More than is taken of who has proved nothing.
    let methods = (0..1_000).map(|n| format!("a_method_of_net_{n}")).collect();
    let net = Local { methods, ..local("net") };
    let dialing = dial(a, dialer, Purpose::Link, net, &to, Incarnation(0));
    let accepting = accept(b, acceptor, Purpose::Link, local("gate"), None, |_| Ok(()));
    tokio::join!(dialing, accepting)
}

#[tokio::test]
async fn who_dials_says_whether_it_is_encrypted_and_who_accepts_may_insist() {
    use Encrypt::{Always, Auto, Never};
    for (dialer, acceptor, sealed) in [
        (Auto, Auto, false),
        (Never, Never, false),
        (Always, Always, true),
        (Always, Auto, true),
        (Always, Never, true),
    ] {
        let (dialed, accepted) = open(dialer, acceptor).await;
        let ((dialed, gate), (accepted, net)) = (dialed.unwrap(), accepted.unwrap());
        assert_eq!(
            (dialed.is_sealed(), accepted.is_sealed()),
            (sealed, sealed),
            "{dialer:?} to {acceptor:?}"
        );
        assert_eq!((gate.name.as_str(), net.name.as_str()), ("gate", "net"));
    }
}

#[tokio::test]
async fn an_unencrypted_connection_is_refused_by_who_would_have_encrypted_it_and_both_say_what_to_set() {
    let (dialed, accepted) = open(Encrypt::Never, Encrypt::Always).await;
    let (dialed, accepted) = (dialed.unwrap_err(), accepted.unwrap_err());
    assert!(matches!(dialed, HandshakeError::UnencryptedHere), "{dialed:?}");
    assert!(matches!(accepted, HandshakeError::Unencrypted), "{accepted:?}");
    assert!(dialed.to_string().contains("master.encrypt") && accepted.to_string().contains("master.encrypt"));
}

/// What it gets is the versions, and not even a nonce.
#[tokio::test]
async fn a_stranger_without_encryption_learns_that_it_is_asked_for_and_nothing_else() {
    let (mut a, b) = connected().await;
    let accepting = accept(b, Encrypt::Always, Purpose::Link, local("gate"), None, |_| Ok(()));
    let stranger = async {
        a.write_all(&[b'x'; 40]).await.unwrap();
        let mut heard = Vec::new();
        a.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (accepted, heard) = tokio::join!(accepting, stranger);
    assert!(accepted.is_err());
    assert_eq!(heard, Purpose::Link.preamble_of_encrypted_only(ffproto::Versions::OURS));
}

#[tokio::test]
async fn who_says_nothing_or_half_a_channel_has_the_same_time_and_place_as_everybody() {
    for said in [&b""[..], b"F", &[tls::FIRST_BYTE], &[tls::FIRST_BYTE, 3, 1, 0, 200]] {
        let ((mut silent, b), (_other, c)) = (connected().await, connected().await);
        silent.write_all(said).await.unwrap();
        let admission = Admission::new(Bounds { connections: 1, per_block: 1 });
        let enter = || admission.admit(std::net::Ipv4Addr::LOCALHOST.into());
        let slot = enter();
        let goes = accept(b, Encrypt::Auto, Purpose::Link, local("gate"), slot.as_ref(), |_| Ok(()));
        let newer = async {
            let slot = enter();
            tokio::task::yield_now().await;
            (slot, c)
        };
        let (gone, _newer) = tokio::join!(goes, newer);
        assert!(matches!(gone, Err(HandshakeError::Crowded)), "{said:?}: {gone:?}");
    }
    let (_silent, b) = connected().await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let late = accept(b, Encrypt::Auto, Purpose::Link, local("gate"), None, |_| Ok(())).await;
    assert!(matches!(late, Err(HandshakeError::TooSlow)), "{late:?}");
    assert!(begun.elapsed() < handshake::DEADLINE + Duration::from_secs(1));
}

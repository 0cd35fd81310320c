//! A front that asks something of each connection: who is there, and TLS. And who gets to the web server behind it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::{Asks, Certificates, Peer};

#[rocket::get("/peer")]
fn peer(seen: SeenPeer) -> String {
    seen.0
}

/// What the web server sees of its request's peer.
struct SeenPeer(String);

#[rocket::async_trait]
impl<'r> rocket::request::FromRequest<'r> for SeenPeer {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> rocket::request::Outcome<Self, Self::Error> {
        let all: Vec<_> = request.headers().get(crate::PEER_HEADER).collect();
        rocket::request::Outcome::Success(Self(all.join(", ")))
    }
}

/// A server whose front asks that.
async fn serve(port: &Port, asks: Asks) -> Result<Server> {
    let routes = rocket::routes![hello, peer, held];
    let web = WebServer::start("web".to_owned(), [7; 16], |rocket| rocket.mount("/", routes)).await?;
    let places = Places { connections: 8, always: &[] };
    let front = web.asking_front(port.0.try_clone()?, TIMEOUTS, places, asks)?;
    Ok(Server { web, front })
}

#[tokio::test]
async fn the_web_server_is_told_whose_the_other_end_is_and_no_header_of_a_client_says_it() -> Result<()> {
    let port = Port::open()?;
    let server = serve(&port, Asks { peer: true, tls: None }).await?;
    let mut client = port.client().await?;
    let own = (client.stream.local_addr()?, client.stream.peer_addr()?);
    let lie = "X-FF-Peer: 127.0.0.1:1 127.0.0.1:2 0/1 https direct\r\n";
    client.send(&format!("GET /peer HTTP/1.1\r\nHost: here\r\n{lie}\r\n")).await?;
    let seen: Peer = client.receive().await?.body.parse()?;
    assert_eq!((seen.client, seen.server, seen.encrypted, seen.forwarded), (own.0, own.1, false, false));
    let owner = seen.owner.context("no owner")?;
    assert_eq!(owner.uid, nix::unistd::geteuid().as_raw());
    assert!(owner.inode > 0);
    for header in ["X-Forwarded-For: 10.0.0.1", "Via: 1.1 proxy", "Forwarded: for=x", "x-real-ip: ::1"] {
        client.send(&format!("GET /peer HTTP/1.1\r\nHost: here\r\n{header}\r\n\r\n")).await?;
        let seen: Peer = client.receive().await?.body.parse()?;
        assert!(seen.forwarded, "{header}");
    }
    drop(server);
    let other = Port::open()?;
    let _asks_nothing = serve(&other, Asks::default()).await?;
    let mut client = other.client().await?;
    client.send(&format!("GET /peer HTTP/1.1\r\nHost: here\r\n{lie}\r\n")).await?;
    assert_eq!(client.receive().await?.body, "", "nor where nobody is asked for");
    Ok(())
}

/// The files of a certificate, as an operator has them.
fn write_files(folder: &Path, cert: &str, key: &str) -> Result<()> {
    std::fs::write(folder.join("cert.pem"), cert)?;
    let path = folder.join("key.pem");
    std::fs::write(&path, key)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}

const ONE: [&str; 2] = [include_str!("../../../testdata/one.pem"), include_str!("../../../testdata/one.key")];
const TWO: [&str; 2] = [include_str!("../../../testdata/two.pem"), include_str!("../../../testdata/two.key")];

/// A connection of somebody who trusts that certificate and no other.
async fn encrypted(at: SocketAddr, trusted: &str) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(ffnet::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await?)
}

/// What the server says to one request, until it ends the connection.
async fn last_answer(stream: &mut TlsStream<TcpStream>, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

#[tokio::test]
async fn a_front_speaks_https_alone_with_the_certificate_of_the_moment() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    write_files(folder.path(), ONE[0], ONE[1])?;
    let certificates = Arc::new(Certificates::read(&cert, &key)?);
    let (port, tls) = (Port::open()?, Some(certificates.clone()));
    let _server = serve(&port, Asks { peer: true, tls }).await?;
    let at = port.0.local_addr()?;
    let answer = last_answer(&mut encrypted(at, ONE[0]).await?, "/peer").await?;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(" https direct"), "{answer}");
    assert!(encrypted(at, TWO[0]).await.is_err());
    let mut plain = port.client().await?;
    let got = plain.get("/hello/1").await?;
    assert_eq!((got.status, &*got.body), (400, "this port speaks HTTPS alone\n"));

    assert!(!certificates.refresh()?, "nothing has changed");
    write_files(folder.path(), TWO[0], ONE[1])?;
    let fault = certificates.refresh().unwrap_err().to_string();
    assert!(fault.contains("key.pem"), "{fault}");
    last_answer(&mut encrypted(at, ONE[0]).await?, "/hello/1").await.context("the one of before is shown")?;
    write_files(folder.path(), TWO[0], TWO[1])?;
    assert!(certificates.refresh()?);
    last_answer(&mut encrypted(at, TWO[0]).await?, "/hello/1").await?;
    assert!(encrypted(at, ONE[0]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn files_that_are_no_certificate_say_what_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let fault = || Certificates::read(&cert, &key).map(drop).unwrap_err().to_string();
    assert!(fault().contains("cert.pem: No such file"), "{}", fault());
    write_files(folder.path(), "no PEM", ONE[1])?;
    assert!(fault().ends_with("cert.pem: no certificate in PEM: there is none"), "{}", fault());
    write_files(folder.path(), ONE[0], "no PEM")?;
    assert!(fault().contains("key.pem: no private key in PEM"), "{}", fault());
    write_files(folder.path(), ONE[0], ONE[1])?;
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644))?;
    assert!(fault().ends_with("key.pem: others may read it (mode 644): chmod 600"), "{}", fault());
    Ok(())
}

#[tokio::test]
async fn an_encrypted_connection_ends_with_its_answer_when_its_front_retires() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_files(folder.path(), ONE[0], ONE[1])?;
    let certificates = Certificates::read(&folder.path().join("cert.pem"), &folder.path().join("key.pem"))?;
    let port = Port::open()?;
    let server = serve(&port, Asks { peer: false, tls: Some(Arc::new(certificates)) }).await?;
    let at = port.0.local_addr()?;
    let (mut busy, mut idle, silent) =
        (encrypted(at, ONE[0]).await?, encrypted(at, ONE[0]).await?, TcpStream::connect(at).await?);
    idle.write_all(b"GET /hello/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    assert!(idle.read(&mut [0; 1024]).await? > 0);
    busy.write_all(b"GET /held/5 HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    HELD[5].until_begun().await?;
    server.until_connections(3).await?;
    let mut retirement = server.retire();
    HELD[5].let_go();
    assert!(timeout(PATIENCE, retirement.next()).await?.is_none(), "none can move");
    let mut answer = String::new();
    timeout(PATIENCE, busy.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0; 1024])).await??, 0);
    drop(silent);
    Ok(())
}

/// Set in the process of a test's own, whose descriptors are counted.
const ALONE: &str = "FF_TEST_ALONE";

#[tokio::test]
async fn three_thousand_who_knock_at_the_inner_port_take_no_place_there() -> Result<()> {
    const KNOCKS: usize = 3_000;
    if std::env::var_os(ALONE).is_none() {
        let test = "front::tests::asks::three_thousand_who_knock_at_the_inner_port_take_no_place_there";
        let mut alone = std::process::Command::new(std::env::current_exe()?);
        let output = alone.args([test, "--exact"]).env(ALONE, "1").output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.contains("1 passed"), "{said}");
        return Ok(());
    }
    ffnet::launch::allow_descriptors()?;
    let port = Port::open()?;
    let server = port.serve().await?;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let inner = server.web.inner_address();
    let mut knocks = Vec::with_capacity(KNOCKS);
    for _ in 0..KNOCKS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        // It is begun and never done.
        let begun = socket.connect(&inner.into());
        ensure!(begun.is_err(), "somebody else has got in");
        knocks.push(socket);
    }
    for n in 0..20 {
        let mut client = port.client().await?;
        assert_eq!(client.get(&format!("/hello/{n}")).await?.body, n.to_string());
    }
    let connected = knocks.iter().filter(|knock| knock.peer_addr().is_ok()).count();
    assert_eq!(connected, 0);
    ensure!(descriptors()? < KNOCKS + 500, "they cost descriptors here");
    Ok(())
}

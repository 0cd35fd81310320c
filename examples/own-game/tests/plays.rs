//! The game as its players see it: all nodes in one process, on free ports.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ffclient::{Client, CommandId, Options};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The running game, which ends with this.
struct Game {
    process: Child,
    netport: String,
    _folder: tempfile::TempDir,
}

impl Game {
    fn start() -> Result<Self> {
        let (folder, mut config) = (tempfile::tempdir()?, std::fs::read_to_string("config.json")?);
        // Held until all are known, so that no two are the same.
        let held: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        for (port, free) in [9969, 9968, 10300, 10301, 10302].iter().zip(&held) {
            config = config.replace(&port.to_string(), &free.local_addr()?.port().to_string());
        }
        let migrations = format!("{}/migrations", env!("CARGO_MANIFEST_DIR"));
        config = config.replace("\"migrations\": \"migrations\"", &format!("\"migrations\": {migrations:?}"));
        let netport = held[3].local_addr()?.to_string();
        drop(held);
        let path = folder.path().join("config.json");
        std::fs::write(&path, config)?;
        let process = Command::new(env!("CARGO_BIN_EXE_own-game")).arg("--all").arg(path).spawn()?;
        Ok(Self { process, netport, _folder: folder })
    }

    async fn client(&self) -> Result<Client> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match Client::connect(&self.netport, Options::default()).await {
                Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
                client => return Ok(client?),
            }
        }
    }
}

impl Drop for Game {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn two_players_click_and_see_what_both_have_done() -> Result<()> {
    let game = Game::start()?;
    let (ann, bob) = (game.client().await?, game.client().await?);
    assert_eq!(&ann.call(CommandId(1), b"asdfe").await?[..], b"asdfe");
    let clicks = async |client: &Client, name: &str| client.call(CommandId(2), name.as_bytes()).await;
    assert_eq!(&clicks(&ann, "ann").await?[..], br#"{"total":1,"mine":1}"#);
    assert_eq!(&clicks(&bob, "bob").await?[..], br#"{"total":2,"mine":1}"#);
    assert_eq!(&clicks(&ann, "ann").await?[..], br#"{"total":3,"mine":2}"#);
    assert!(clicks(&ann, "").await.is_err());
    assert_eq!(&bob.call(CommandId(3), b"").await?[..], b"3");
    Ok(())
}

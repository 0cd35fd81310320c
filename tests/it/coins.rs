//! What was answered has happened, once, whatever is killed. At full size:
//! `cargo run --release -p tests --bin trial -- coins`.

use anyhow::Result;
use tests::trials::{Say, coins};

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

#[tokio::test]
async fn coins_are_conserved_while_nodes_memcached_and_mariadb_are_killed() -> Result<()> {
    let database = "mariadb".to_owned();
    coins::run(&coins::Size { robots: 16, kills: 10, kill_every_ms: 1200, database, seed: 7 }, SAY).await
}

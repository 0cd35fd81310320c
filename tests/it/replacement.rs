//! Processes are replaced, and nobody notices; the master too. At full size:
//! `cargo run --release -p tests --bin trial -- reload`, `idle-reload`, `rollback`, `adopt`, `upgrade` and `chaos`.

use anyhow::Result;
use tests::bins;
use tests::trials::{Say, adopt, chaos, reload, rollback, upgrade};

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

async fn reload_three_times(worlds: bool) -> Result<()> {
    let more = reload::More { http: 4, reloads: 3, worlds, any_time: true, ..reload::More::default() };
    reload::run(&reload::Size { connections: 100, pause_ms: 2, more }, SAY).await
}

#[tokio::test]
async fn a_reload_of_all_nodes_closes_no_connection_and_loses_no_request_and_no_count() -> Result<()> {
    reload_three_times(false).await
}

#[tokio::test]
async fn a_reload_loses_nothing_either_when_every_node_hands_a_state_over() -> Result<()> {
    reload_three_times(true).await
}

#[tokio::test]
async fn a_reload_closes_none_of_many_idle_connections() -> Result<()> {
    let more = reload::More { http: 2, reloads: 2, any_time: true, ..reload::More::default() };
    reload::run_idle(&reload::IdleSize { connections: 500, pause_ms: 2000, busy: 10, more }, SAY).await
}

#[tokio::test]
async fn a_new_binary_that_fails_is_rolled_back_and_the_answer_says_why() -> Result<()> {
    rollback::run(&rollback::Size { connections: 40, pause_ms: 5, http: 2, only: Vec::new() }, SAY).await
}

#[tokio::test]
async fn a_new_master_adopts_the_nodes_of_a_killed_one_and_reloads_and_stops_them() -> Result<()> {
    let (without_ms, together) = (3000, Vec::new());
    adopt::run(&adopt::Size { connections: 50, pause_ms: 5, http: 2, without_ms, together, times: 1 }, SAY)
        .await
}

/// From this release to itself: what is tried here is the trial. Each change of the wire or of the hand-over is tried from
/// an older release's programs.
#[tokio::test]
async fn nodes_and_master_are_upgraded_in_either_order_and_nobody_notices() -> Result<()> {
    let from = bins::folder()?;
    let size = upgrade::Size { from, seconds: 2, connections: 40, booked: 8, http: 2, order: None };
    upgrade::run(&size, SAY).await
}

#[tokio::test]
async fn a_minute_of_chaos_loses_and_doubles_nothing() -> Result<()> {
    let (encrypt, two_hosts, plan) = (false, false, false);
    let size = chaos::Size {
        seconds: 60,
        seed: 1,
        connections: 100,
        deep: 1,
        per_s: 400.0,
        encrypt,
        two_hosts,
        plan,
    };
    chaos::run(&size, SAY).await
}

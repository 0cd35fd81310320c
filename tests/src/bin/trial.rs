//! The promises of docs/semantics.md at full size: `cargo run --release -p tests --bin trial -- outcome`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::trials::{
    adopt, chaos, coins, data, garbage, halfopen, hang, order, outcome, reload, rollback, slow, starve,
    upgrade,
};
use tokio::signal::unix::{SignalKind, signal};

/// Tries a cluster of real processes under load and faults; fails when a promise is not kept.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Subcommand)]
enum Trial {
    /// Requests of a session run in order and one at a time, also while an unrelated node is killed
    Order(order::Size),
    /// Every request has one outcome while game nodes and the gate are killed
    Outcome(outcome::Size),
    /// Coins are conserved, and no answered move is lost, while nodes, memcached and the database are killed
    Coins(coins::Size),
    /// How fast records are read and written, and that a blocked database delays nobody who needs none
    Data(data::Size),
    /// A stopped node (SIGSTOP) is noticed, and goes on cleanly
    Hang(hang::Size),
    /// Clients that stop reading cost a bounded amount and delay nobody
    Slow(slow::Size),
    /// Connections that send one byte and wait are closed by timeout
    Halfopen(halfopen::Size),
    /// 150,000 connections of garbage to each port write less than a megabyte, and the counts add up
    Garbage(garbage::Size),
    /// Silent connections on the master's ports, which may open few files, stop nothing
    Starve(starve::Size),
    /// /reload of all nodes again and again: no connection closed, no error, no count lost
    Reload(reload::Size),
    /// The same with thousands of connections, most of them idle
    IdleReload(reload::IdleSize),
    /// New binaries that fail are rolled back, and nobody notices
    Rollback(rollback::Size),
    /// A cluster of an older release's programs is upgraded to these, nodes and master: nobody notices
    Upgrade(upgrade::Size),
    /// The master is killed, and a new one takes over
    Adopt(adopt::Size),
    /// Kills, stops and reloads at random, over all nodes and the master
    Chaos(chaos::Size),
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = tokio::select! {
        ended = run(&args.trial, &|line| println!("{line}")) => ended,
        // What is dropped here ends its processes.
        signal = a_signal() => signal.and_then(|name| Err(anyhow::anyhow!("{name}: its cluster is killed"))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trial: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Which of the signals that mean an end has come.
async fn a_signal() -> Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

async fn run(trial: &Trial, say: tests::trials::Say<'_>) -> Result<()> {
    match trial {
        Trial::Order(size) => order::run(size, say).await,
        Trial::Outcome(size) => outcome::run(size, say).await,
        Trial::Coins(size) => coins::run(size, say).await,
        Trial::Data(size) => data::run(size, say).await,
        Trial::Hang(size) => hang::run(size, say).await,
        Trial::Slow(size) => slow::run(size, say).await,
        Trial::Halfopen(size) => halfopen::run(size, say).await,
        Trial::Garbage(size) => garbage::run(size, say).await,
        Trial::Starve(size) => starve::run(size, say).await,
        Trial::Reload(size) => reload::run(size, say).await,
        Trial::IdleReload(size) => reload::run_idle(size, say).await,
        Trial::Rollback(size) => rollback::run(size, say).await,
        Trial::Upgrade(size) => upgrade::run(size, say).await,
        Trial::Adopt(size) => adopt::run(size, say).await,
        Trial::Chaos(size) => chaos::run(size, say).await,
    }
}

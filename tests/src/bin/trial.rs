//! The promises of docs/semantics.md at full size: `cargo run --release -p tests --bin trial -- outcome`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::trials::{halfopen, hang, order, outcome, slow};

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
    /// A stopped node (SIGSTOP) is noticed, and goes on cleanly
    Hang(hang::Size),
    /// Clients that stop reading cost a bounded amount and delay nobody
    Slow(slow::Size),
    /// Connections that send one byte and wait are closed by timeout
    Halfopen(halfopen::Size),
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args.trial, &|line| println!("{line}")).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trial: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(trial: &Trial, say: tests::trials::Say<'_>) -> Result<()> {
    match trial {
        Trial::Order(size) => order::run(size, say).await,
        Trial::Outcome(size) => outcome::run(size, say).await,
        Trial::Hang(size) => hang::run(size, say).await,
        Trial::Slow(size) => slow::run(size, say).await,
        Trial::Halfopen(size) => halfopen::run(size, say).await,
    }
}

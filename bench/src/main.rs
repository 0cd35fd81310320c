//! How fast the cluster is, against the least that the machine could do: starts servers, loads them, compares.
//!
//! Every server and the load client are processes of their own; the floors and the load client are this
//! same binary under another subcommand.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to a person at a terminal")]

mod broadcast;
mod cli;
mod compare;
mod floor;
mod http;
mod idle;
mod load;
mod logins;
mod machine;
mod open;
mod ours;
mod proc;
mod releases;
mod report;
mod stats;
mod system;
mod taken;
mod targets;
mod turns;

use std::process::ExitCode;

use clap::Parser;
use cli::{Bench, Command};

fn main() -> ExitCode {
    match run(Bench::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    machine::raise_descriptor_limit()?;
    match command {
        Command::Compare(args) => compare::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Broadcast(args) => broadcast::run(&args),
        Command::Logins(args) => logins::run(&args),
        Command::Floor(args) => floor::stand(args.backend),
        Command::Load(args) => load::run(&args),
        Command::Relay(args) => floor::relay(&args),
        Command::Leash { command } => machine::exec_on_a_leash(&command),
    }
}

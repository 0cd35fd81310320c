//! The test client of firefly's demo: three requests over one connection, and what comes back.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use ffclient::{Client, CommandId, Options};

/// Sends the demo's three requests to a netport and prints what comes back.
#[derive(Parser)]
struct Args {
    /// Where the net node takes clients.
    #[arg(default_value = "127.0.0.1:10001")]
    address: String,
    /// The commands to send, in this order.
    #[arg(long, value_delimiter = ',', default_value = "100,200,300")]
    commands: Vec<u32>,
    /// What to send with each.
    #[arg(long, default_value = "msgdata")]
    body: String,
}

#[allow(clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let client = Client::connect(&args.address, Options::default()).await;
    let client = client.with_context(|| format!("no server at {}", args.address))?;
    let mut out = std::io::stdout();
    for &command in &args.commands {
        if writeln!(out, "----------------\nsend commandId: {command}").is_err() {
            return Ok(()); // Nobody reads on, as with `client | head`.
        }
        let reply = client.call(CommandId(command), args.body.as_bytes()).await?;
        if writeln!(out, "{}", String::from_utf8_lossy(&reply)).is_err() {
            return Ok(());
        }
    }
    Ok(client.close().await?)
}

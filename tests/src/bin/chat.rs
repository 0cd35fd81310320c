//! A client of the chat room (examples/chat): logs in, says what it is told to, and shows what it hears.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tests::client::{Client, parse_error};
use tokio::time::{Instant, timeout_at};

/// Logs in under a name, says each text to all, and shows what comes.
#[derive(Parser)]
struct Args {
    /// Where the net node takes clients.
    address: SocketAddr,
    /// Who this is.
    name: String,
    /// What to say, one after the other.
    texts: Vec<String>,
    /// For how many seconds to listen afterwards.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
}

#[allow(clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program for the terminal")]
async fn run(args: &Args) -> Result<()> {
    let mut client = Client::connect(args.address).await?;
    client.send(1, args.name.as_bytes()).await?;
    let mut inside = false;
    while !inside {
        let (command, body) = client.receive().await?;
        println!("{}", line(command, &body)?);
        inside = command == 1;
    }
    for text in &args.texts {
        client.send(2, text.as_bytes()).await?;
    }
    // Everybody hears what is said, who says it as well.
    let mut own = 0;
    while own < args.texts.len() {
        let (command, body) = client.receive().await?;
        let shown = line(command, &body)?;
        own += usize::from(command == 12 && shown.starts_with(&format!("{}: ", args.name)));
        println!("{shown}");
        ensure!(command != u32::MAX, "it was not said");
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while let Ok(heard) = timeout_at(end, client.receive()).await {
        let (command, body) = heard?;
        println!("{}", line(command, &body)?);
    }
    Ok(())
}

/// What came, for people.
fn line(command: u32, body: &[u8]) -> Result<String> {
    if command == u32::MAX {
        let error = parse_error(body)?;
        ensure!(error.code != "refused" && error.code != "kicked", "{}", error.message);
        return Ok(format!("[{}] {}", error.code, error.message));
    }
    if command == 1 {
        return Ok(String::from_utf8_lossy(body).into_owned());
    }
    let json: serde_json::Value = serde_json::from_slice(body)?;
    let text = |key: &str| json[key].as_str().with_context(|| format!("no `{key}` in {json}"));
    Ok(match command {
        11 => format!("online: {json}"),
        12 => format!("{}: {}", text("from")?, text("text")?),
        _ => format!("* {}", text("text")?),
    })
}

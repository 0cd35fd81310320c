//! A client of the chat room (examples/chat): logs in, says what it is told to, and shows what it hears.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ffclient::{Client, CommandId, Message, Options, PushError};
use tokio::time::{Instant, timeout, timeout_at};

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

/// Longer than a message of the room takes.
const PATIENCE: Duration = Duration::from_secs(10);
const LOGIN: CommandId = CommandId(1);
const SAY: CommandId = CommandId(2);
const ONLINE: CommandId = CommandId(11);
const SAID: CommandId = CommandId(12);

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
    let client = Client::connect(args.address, Options::default()).await?;
    let greeting = client.login(LOGIN, args.name.as_bytes()).await?;
    println!("{}", String::from_utf8_lossy(&greeting));
    for text in &args.texts {
        client.send(SAY, text.as_bytes()).await?;
    }
    // Everybody hears what is said, who says it as well.
    let mut own = 0;
    while own < args.texts.len() {
        let heard = timeout(PATIENCE, client.push()).await.context("silence")?;
        let not_said = matches!(heard, Err(PushError::Fault(_)));
        let said = matches!(&heard, Ok(message) if message.command == SAID);
        let shown = line(heard)?;
        own += usize::from(said && shown.starts_with(&format!("{}: ", args.name)));
        println!("{shown}");
        ensure!(!not_said, "it was not said");
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while let Ok(heard) = timeout_at(end, client.push()).await {
        println!("{}", line(heard)?);
    }
    Ok(client.close().await?)
}

/// What came, for people.
fn line(heard: Result<Message, PushError>) -> Result<String> {
    let Message { command, body } = match heard {
        Ok(message) => message,
        Err(PushError::Fault(fault)) if fault.is_last() => bail!("{}", fault.message),
        Err(PushError::Fault(fault)) => return Ok(format!("[{}] {}", fault.code, fault.message)),
        Err(other) => return Err(other.into()),
    };
    let json: serde_json::Value = serde_json::from_slice(&body)?;
    let text = |key: &str| json[key].as_str().with_context(|| format!("no `{key}` in {json}"));
    Ok(match command {
        ONLINE => format!("online: {json}"),
        SAID => format!("{}: {}", text("from")?, text("text")?),
        _ => format!("* {}", text("text")?),
    })
}

//! Calls a command of a cluster, and shows its reply and the pushes of the next second:
//! `cargo run -p ffclient --example call -- 127.0.0.1:10001 100 msgdata`.

use std::error::Error;
use std::time::Duration;

use ffclient::{CallError, Client, CommandId, Options, PushError};
use tokio::time::timeout;

#[allow(clippy::print_stdout, reason = "a program for the terminal")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("usage: call ADDRESS COMMAND [BODY]")?;
    let command = CommandId(args.next().ok_or("which command?")?.parse()?);
    let body = args.next().unwrap_or_default();

    let client = Client::connect(&address, Options::default()).await?;
    match client.call(command, body.as_bytes()).await {
        Ok(reply) => println!("{}", String::from_utf8_lossy(&reply)),
        // The code tells whether trying again helps, `executed` whether it is safe.
        Err(CallError::Fault(fault)) => println!("{} (executed: {})", fault, fault.executed.name()),
        Err(other) => return Err(other.into()),
    }
    while let Ok(push) = timeout(Duration::from_secs(1), client.push()).await {
        match push {
            Ok(push) => println!("push {}: {}", push.command, String::from_utf8_lossy(&push.body)),
            Err(PushError::Closed(why)) => return Err(why.into()),
            Err(other) => println!("{other}"),
        }
    }
    client.close().await?;
    Ok(())
}

//! The test client of firefly's demo: three requests over one connection, and what comes back.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use ffproto::CommandId;
use ffproto::frame::Firefly;

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

const REPLY_BYTES_MAX: u32 = 16 << 20;

#[allow(clippy::print_stderr, reason = "a program for the terminal")]
fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let address = args.address.to_socket_addrs()?.next().context("no such address")?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("no server at {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut out = std::io::stdout();
    for &command in &args.commands {
        if writeln!(out, "----------------\nsend commandId: {command}").is_err() {
            return Ok(()); // Nobody reads on, as with `client | head`.
        }
        let (got, body) = request(&mut stream, CommandId(command), args.body.as_bytes())?;
        let text = String::from_utf8_lossy(&body);
        if got.0 != command {
            bail!("command {command} was answered by {got}: {text}");
        }
        if writeln!(out, "{text}").is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn request(stream: &mut TcpStream, command: CommandId, body: &[u8]) -> Result<(CommandId, Vec<u8>)> {
    let framing = Firefly::default();
    let mut frame = Vec::new();
    framing.write(command, body, &mut frame);
    stream.write_all(&frame)?;
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(frame) = framing.read(&received, REPLY_BYTES_MAX)? {
            return Ok((frame.command, frame.body.to_vec()));
        }
        match stream.read(&mut chunk).context("no reply")? {
            0 => bail!("the server closed the connection"),
            n => received.extend_from_slice(&chunk[..n]),
        }
    }
}

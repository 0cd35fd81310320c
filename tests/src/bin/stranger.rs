//! A stranger as a process, so that it may be of another user or in a container: see `tests::stranger`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tests::stranger::Stranger;

/// Attacks a running cluster without a key of it; prints a line for each attack: `nothing` or `GOT`.
#[derive(Parser)]
struct Args {
    /// The cluster's config.
    config: PathBuf,
    /// The run folder of the cluster's master.
    run: PathBuf,
    /// Where the cluster is.
    #[arg(default_value = "127.0.0.1")]
    host: IpAddr,
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("stranger: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Args { config, run, host }: Args) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(&config)?;
    let cluster = ffconfig::parse(&text, &config, &|_| None)?.cluster;
    let attacks = Stranger::new(cluster, host, run)?.attack().await?;
    Ok(attacks
        .into_iter()
        .map(|attack| match attack.got {
            None => format!("nothing  {}", attack.what),
            Some(got) => format!("GOT      {}: {got}", attack.what),
        })
        .collect())
}

//! obEspoir's test_frame.py: one request over HTTP, two over WebSocket, and what comes back.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ffclient::{Client, CommandId, Options};
use tests::http;

/// Plays the client of examples/espoir.
#[derive(Parser)]
struct Args {
    /// The proxy's netport.
    #[arg(default_value = "127.0.0.1:20000")]
    net: SocketAddr,
    /// The proxy's webport.
    #[arg(default_value = "127.0.0.1:20001")]
    web: SocketAddr,
}

#[allow(clippy::print_stderr, reason = "a program for the terminal")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("espoir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program for the terminal")]
async fn run(args: &Args) -> Result<()> {
    let hello = http::request(args.web, "POST", "/", &[]).await?;
    println!("test_http_web_proxy: {} {}", hello.status, hello.body);

    let client = Client::connect_websocket(args.net, Options::default()).await?;
    let login = r#"{"name":"jamon","passwd":"test"}"#;
    println!("成功发送登录请求消息(ID:1000): {login}");
    println!("收到登录回应:  {}", answer(&client, 1000, login).await?);

    let rank = r#"{"user_id":10}"#;
    println!("成功发送'进入游戏排位'场消息(ID:20000): {rank}");
    println!("收到进入游戏排位场 消息回应: {}", answer(&client, 20000, rank).await?);
    Ok(client.close().await?)
}

async fn answer(client: &Client, command: u32, body: &str) -> Result<String> {
    let answer = client.call(CommandId(command), body.as_bytes()).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

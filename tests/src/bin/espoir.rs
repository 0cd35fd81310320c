//! obEspoir's test_frame.py: one request over HTTP, two over WebSocket, and what comes back.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use tests::http;
use tests::websocket::WebClient;

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

    let mut client = WebClient::connect(args.net).await?;
    let login = r#"{"name":"jamon","passwd":"test"}"#;
    client.send(1000, login.as_bytes()).await?;
    println!("成功发送登录请求消息(ID:1000): {login}");
    println!("收到登录回应:  {}", answer(&mut client, 1000).await?);

    let rank = r#"{"user_id":10}"#;
    client.send(20000, rank.as_bytes()).await?;
    println!("成功发送'进入游戏排位'场消息(ID:20000): {rank}");
    println!("收到进入游戏排位场 消息回应: {}", answer(&mut client, 20000).await?);
    Ok(())
}

async fn answer(client: &mut WebClient, command: u32) -> Result<String> {
    let (got, body) = client.receive().await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(got == command, "command {command} was answered by {got}: {text}");
    Ok(text)
}

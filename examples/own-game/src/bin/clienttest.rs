//! A test client: `clienttest [ADDRESS]` says something, hears it again, and clicks.

use ffclient::{Client, CommandId, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:10301".to_owned());
    let client = Client::connect(&address, Options::default()).await?;
    for (command, body) in [(1, "asdfe"), (2, "ann")] {
        let answer = client.call(CommandId(command), body.as_bytes()).await?;
        println!("{command} {body} -> {}", String::from_utf8_lossy(&answer));
    }
    Ok(client.close().await?)
}

//! A headless Chromium, told what to do over the DevTools protocol: for pages that people use.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::wait;

/// A browser may be slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A running browser; dropping it kills it.
pub struct Browser {
    _process: Child,
    _profile: TempDir,
    socket: WebSocketStream<TcpStream>,
    calls: u64,
}

/// One of its tabs.
#[derive(Debug, Clone)]
pub struct Tab(String);

impl Browser {
    /// Starts it; `None` when none is installed and it need not be (`FF_TEST_BROWSER`, which `tests/run` sets).
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Option<Self>> {
        Self::start_with(&[]).await
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_with(more: &[&str]) -> Result<Option<Self>> {
        let needed = std::env::var_os("FF_TEST_BROWSER");
        let profile = tempfile::Builder::new().prefix("browser-").tempdir()?;
        let known = needed.iter().filter_map(|program| program.to_str()).chain(PROGRAMS);
        for program in known {
            // The sandbox needs rights that containers and root do not have; the page is ours.
            let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
            let started = Command::new(program)
                .args(arguments)
                .args(more)
                .args(["--remote-debugging-port=0", "--no-first-run", "--window-size=1000,760"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn();
            let Ok(mut process) = started else { continue };
            let at =
                timeout(PATIENCE, address(&mut process)).await.context("the browser does not start")??;
            let socket = connect(&at).await?;
            return Ok(Some(Self { _process: process, _profile: profile, socket, calls: 0 }));
        }
        ensure!(needed.is_none(), "there is no {needed:?}, nor any of {PROGRAMS:?}");
        Ok(None)
    }

    /// Opens a page in a new tab.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn open(&mut self, url: &str) -> Result<Tab> {
        let target = self.call(None, "Target.createTarget", json!({ "url": url })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach).await?;
        Ok(Tab(attached["sessionId"].as_str().context("no session")?.to_owned()))
    }

    /// The value of an expression in the tab.
    ///
    /// # Errors
    /// It throws.
    pub async fn eval(&mut self, tab: &Tab, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call(Some(tab), "Runtime.evaluate", parameters).await?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true in the tab.
    ///
    /// # Errors
    /// It does not become true; with the text that the page shows.
    pub async fn until(&mut self, tab: &Tab, expression: &str) -> Result<()> {
        wait::until(expression, async || match self.eval(tab, expression).await {
            Ok(Value::Bool(true)) => Ok(()),
            other => {
                let shown = self.eval(tab, "document.body.innerText").await;
                Err(format!("{other:?}; the page shows {shown:?}"))
            }
        })
        .await
    }

    /// Types into the field that has the focus, and presses Enter: as a person's keys.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn enter(&mut self, tab: &Tab, text: &str) -> Result<()> {
        self.call(Some(tab), "Page.bringToFront", json!({})).await?;
        self.call(Some(tab), "Input.insertText", json!({ "text": text })).await?;
        for kind in ["keyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Enter", "code": "Enter", "text": "\r",
                "windowsVirtualKeyCode": 13 });
            self.call(Some(tab), "Input.dispatchKeyEvent", key).await?;
        }
        Ok(())
    }

    /// Writes what the tab shows to a PNG file.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn screenshot(&mut self, tab: &Tab, file: &Path) -> Result<()> {
        self.call(Some(tab), "Page.bringToFront", json!({})).await?;
        let shot = self.call(Some(tab), "Page.captureScreenshot", json!({ "format": "png" })).await?;
        let data = shot["data"].as_str().context("no picture")?;
        Ok(std::fs::write(file, base64(data)?)?)
    }

    async fn call(&mut self, tab: Option<&Tab>, method: &str, parameters: Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(Tab(session)) = tab {
            message["sessionId"] = json!(session);
        }
        let answer = async {
            self.socket.send(Message::text(message.to_string())).await?;
            loop {
                let said = self.socket.next().await.context("the browser has ended")??;
                let Message::Text(text) = said else { continue };
                let answer: Value = serde_json::from_str(&text)?;
                if answer["id"] == id {
                    ensure!(answer.get("error").is_none(), "{method}: {answer}");
                    return Ok(answer["result"].clone());
                }
            }
        };
        timeout(PATIENCE, answer).await.with_context(|| format!("{method}: no answer"))?
    }
}

/// Where it says that it listens.
async fn address(process: &mut Child) -> Result<String> {
    let mut lines = BufReader::new(process.stderr.take().context("no standard error")?).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(at) = line.strip_prefix("DevTools listening on ") {
            let at = at.to_owned();
            // What it says later is of no interest, and must not block it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(at);
        }
        said.push(line);
    }
    bail!("the browser has ended: {}", said.join("\n"))
}

async fn connect(at: &str) -> Result<WebSocketStream<TcpStream>> {
    let host = at.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).context("no address")?;
    let stream = TcpStream::connect(host).await?;
    let limits = WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
    Ok(client_async_with_config(at, stream, Some(limits)).await?.0)
}

/// The bytes of a text in base64.
fn base64(text: &str) -> Result<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Ok(letter - b'A'),
        b'a'..=b'z' => Ok(letter - b'a' + 26),
        b'0'..=b'9' => Ok(letter - b'0' + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => bail!("no base64"),
    };
    let (mut bytes, mut bits, mut n) = (Vec::new(), 0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(letter)?);
        n += 6;
        if n >= 8 {
            n -= 8;
            bytes.push((bits >> n & 0xff) as u8);
        }
    }
    Ok(bytes)
}

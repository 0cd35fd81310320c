//! The chat room of docs/sessions.md: by its scripted client, and by its page in a real browser.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::browser::{Browser, Tab};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::{bins, http};

fn fixture() -> Result<Fixture> {
    let text = std::fs::read_to_string(bins::root().join("examples/chat/config.json"))?;
    let text = text.replace("9979", "@master").replace("9978", "@admin");
    Fixture::new(&text.replace("10200", "@room").replace("10201", "@net").replace("10202", "@web"))
}

/// The next message, without its time.
async fn hears(client: &mut Client) -> Result<(u32, Value)> {
    let (command, body) = client.receive().await?;
    let mut json: Value = serde_json::from_slice(&body)?;
    if let Some(fields) = json.as_object_mut() {
        fields.remove("at").context("no time")?;
    }
    Ok((command, json))
}

async fn enters(cluster: &Cluster, name: &str) -> Result<Client> {
    let mut client = cluster.client().await?;
    client.send(1, name.as_bytes()).await?;
    // The room may hear of it before the answer is written.
    let mut greeted = false;
    let mut rest = 2;
    while !greeted || rest > 0 {
        let (command, body) = client.receive().await?;
        if command == 1 {
            assert_eq!(body, format!("welcome, {name}"));
            greeted = true;
        } else {
            ensure!([10, 11].contains(&command), "{command} {body:?}");
            rest -= 1;
        }
    }
    Ok(client)
}

#[tokio::test]
async fn who_logs_in_to_the_chat_room_hears_who_is_there_what_is_said_and_who_leaves() -> Result<()> {
    let cluster = Cluster::processes(fixture()?).await?;
    let mut ann = enters(&cluster, "ann").await?;
    let mut bob = enters(&cluster, "bob").await?;
    assert_eq!(hears(&mut ann).await?, (10, json!({"text": "bob is online"})));
    assert_eq!(hears(&mut ann).await?, (11, json!(["ann", "bob"])));
    bob.send(2, "hello <b>all</b> ü".as_bytes()).await?;
    for client in [&mut ann, &mut bob] {
        assert_eq!(hears(client).await?, (12, json!({"from": "bob", "text": "hello <b>all</b> ü"})));
    }
    assert_eq!(bob.call_error(2, b"  ").await?.message, "a text has 1 to 500 letters");
    let mut nobody = cluster.client().await?;
    assert_eq!(nobody.call_error(1, b" ").await?.code, "refused");
    assert_eq!(cluster.client().await?.call_error(2, b"who?").await?.code, "not_logged_in");
    // A reload of everything: nobody leaves, and the room knows who is there.
    let reloaded = cluster.admin("POST", "/reload").await?;
    ensure!(reloaded.status < 300, "{reloaded:?}");
    let mut cid = enters(&cluster, "cid").await?;
    for client in [&mut ann, &mut bob] {
        assert_eq!(hears(client).await?, (10, json!({"text": "cid is online"})));
        assert_eq!(hears(client).await?, (11, json!(["ann", "bob", "cid"])));
    }
    drop(bob);
    for client in [&mut ann, &mut cid] {
        assert_eq!(hears(client).await?, (10, json!({"text": "bob is offline"})));
        assert_eq!(hears(client).await?, (11, json!(["ann", "cid"])));
    }
    // The same name again: the old connection is told, and ends.
    let _again = enters(&cluster, "ann").await?;
    let mut told = ann.receive().await?;
    while told.0 != u32::MAX {
        told = ann.receive().await?;
    }
    ensure!(String::from_utf8_lossy(&told.1).contains("\"kicked\""), "{told:?}");
    cluster.stop().await
}

#[tokio::test]
async fn the_scripted_client_of_the_chat_room_shows_what_it_hears() -> Result<()> {
    let cluster = Cluster::processes(fixture()?).await?;
    let at = cluster.at("net").to_string();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(bins::folder()?.join("chat"))
            .args([&at, "ann", "hello", "all of you"])
            .output()
            .context("chat")
    });
    let output = output.await??;
    let shown = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["welcome, ann", "* ann is online", "online: [\"ann\"]", "ann: hello", "ann: all of you"] {
        ensure!(shown.lines().any(|shown| shown == line), "no `{line}` in:\n{shown}");
    }
    cluster.stop().await
}

const MESSAGES: &str = "[...document.querySelectorAll('#messages li')].map((line) => line.innerText)";

async fn logs_in(browser: &mut Browser, url: &str, name: &str) -> Result<Tab> {
    let tab = browser.open(url).await?;
    browser.until(&tab, "document.activeElement?.id === 'name'").await?;
    browser.enter(&tab, name).await?;
    let greeted = format!("document.getElementById('status').innerText === 'welcome, {name}'");
    browser.until(&tab, &greeted).await?;
    Ok(tab)
}

async fn shows(browser: &mut Browser, tab: &Tab, text: &str) -> Result<()> {
    browser.until(tab, &format!("{MESSAGES}.some((line) => line.includes({}))", json!(text))).await
}

#[tokio::test]
async fn two_tabs_of_a_real_browser_talk_in_the_chat_room() -> Result<()> {
    let Some(mut browser) = Browser::start().await? else { return Ok(()) };
    let cluster = Cluster::processes(fixture()?).await?;
    let url = format!("http://{}/", cluster.at("web"));
    let page = http::request(cluster.at("web"), "GET", "/", &[]).await?.body;
    ensure!(!page.contains("https://") && !page.contains("http://"), "the page asks for something elsewhere");
    let ann = logs_in(&mut browser, &url, "ann").await?;
    let bob = logs_in(&mut browser, &url, "bob").await?;
    shows(&mut browser, &ann, "bob is online").await?;
    let online =
        "[...document.querySelectorAll('#online li')].map((line) => line.innerText).join() === 'ann,bob'";
    for tab in [&ann, &bob] {
        browser.until(tab, online).await?;
    }
    browser.enter(&ann, "Hello Bob, is the raid still on?").await?;
    shows(&mut browser, &bob, "Hello Bob, is the raid still on?").await?;
    browser.enter(&bob, "Yes, in ten minutes at the <b>north gate</b>").await?;
    // A text is a text, whatever it looks like.
    shows(&mut browser, &ann, "at the <b>north gate</b>").await?;
    browser.enter(&ann, "I bring the others").await?;
    shows(&mut browser, &bob, "I bring the others").await?;
    if let Some(file) = std::env::var_os("FF_SCREENSHOT") {
        browser.screenshot(&ann, file.as_ref()).await?;
    }
    // Everything is replaced under the open page, and the two talk on.
    let reloaded = cluster.admin("POST", "/reload").await?;
    ensure!(reloaded.status < 300, "{reloaded:?}");
    browser.enter(&bob, "still here").await?;
    shows(&mut browser, &ann, "still here").await?;
    browser.eval(&bob, "location.replace('about:blank')").await?;
    shows(&mut browser, &ann, "bob is offline").await?;
    // The same name in another tab: this one is told why it is out.
    let _again = logs_in(&mut browser, &url, "ann").await?;
    browser.until(&ann, "document.getElementById('error').innerText === '`ann` has another session'").await?;
    browser.until(&ann, "!document.getElementById('login').hidden").await?;
    cluster.stop().await
}

//! The outcome of a command, as people and scripts see it.

use serde::Deserialize;

use super::client::{Answer, AskError, Client};
use super::screen::Screen;
use super::table::{Cell, Table, Tone};
use super::{exit, print};

/// What became of a command, node by node.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Done {
    pub(super) ok: bool,
    #[serde(default)]
    pub(super) nodes: Vec<OfNode>,
}

/// What became of it at one node.
#[derive(Debug, Deserialize)]
pub(super) struct OfNode {
    pub(super) node: String,
    pub(super) ok: bool,
    pub(super) outcome: String,
}

/// Reads the outcome of a command; a refusal is an error.
pub(super) async fn done(client: &Client, answer: &Answer, node: Option<&str>) -> Result<Done, AskError> {
    match answer.read::<Done>() {
        // A command that failed has outcomes, too.
        Ok(done) if answer.is_good() || !done.nodes.is_empty() => Ok(done),
        Err(strange) if answer.is_good() => Err(strange),
        _ => Err(client.refusal_of(answer, node).await),
    }
}

/// Shows the outcome of a command; the exit code.
pub(super) async fn outcome(
    client: &Client,
    answer: &Answer,
    node: Option<&str>,
    json: bool,
    screen: &Screen,
) -> Result<u8, AskError> {
    if json {
        print(&answer.text)?;
    }
    let done = done(client, answer, node).await?;
    if !json {
        print(&text(&done, screen.width(), screen.colours))?;
    }
    Ok(if done.ok { exit::DONE } else { exit::FAILED })
}

fn text(done: &Done, width: Option<usize>, colours: bool) -> String {
    if done.nodes.is_empty() {
        return if done.ok { "done\n" } else { "failed\n" }.to_owned();
    }
    // Whole sentences, which a terminal may wrap: why it failed stands at the end.
    let width = if done.ok { width } else { None };
    let mut table = Table::new(&["NODE", "OUTCOME"]);
    for node in &done.nodes {
        let tone = if node.ok { Tone::Good } else { Tone::Bad };
        table.row([Cell::new(&node.node), Cell::toned(&node.outcome, tone)]);
    }
    table.text(width, colours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_a_table_and_a_failed_one_is_not_cut() {
        let long = "rolled back: ".repeat(20);
        let json =
            format!(r#"{{"ok": false, "nodes": [{{"node": "gate", "ok": false, "outcome": "{long}"}}]}}"#);
        let done: Done = serde_json::from_str(&json).unwrap();
        assert!(text(&done, Some(40), false).contains(long.trim()));
        assert_eq!(text(&Done { ok: true, nodes: vec![] }, None, false), "done\n");
    }
}

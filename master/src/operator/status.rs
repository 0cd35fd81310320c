//! The status of a cluster: what `/status` says, and the table of it.

use serde::Deserialize;
use serde_json::Value;
use tokio::signal::ctrl_c;

use super::client::{AskError, Client};
use super::events::Events;
use super::screen::{Redrawn, Screen};
use super::table::{Cell, Table, Tone, cut};
use super::{exit, print};

/// What `/status` says, as far as it is shown. What a master of another release does not say is left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) cluster: String,
    pub(super) state: String,
    pub(super) doing: Option<String>,
    pub(super) command: Option<CommandStatus>,
    pub(super) nodes: Vec<NodeStatus>,
}

/// A command in `/status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CommandStatus {
    pub(super) since: String,
    pub(super) steps: Vec<Step>,
}

/// A node's part of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub(super) node: String,
    pub(super) stage: String,
    pub(super) outcome: Option<String>,
}

/// A node in `/status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) since: String,
    pub(super) restarts: u32,
    pub(super) sessions: u64,
    pub(super) release: Option<String>,
    pub(super) last_exit: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) hanging: Option<Value>,
    pub(super) beside: Option<Value>,
}

impl NodeStatus {
    /// How the state is meant.
    pub(super) fn tone(&self) -> Tone {
        match self.state.as_str() {
            "ready" => Tone::Good,
            "stopped" => Tone::Faint,
            "waiting" | "starting" | "stopping" | "adopting" => Tone::Busy,
            _ => Tone::Bad,
        }
    }

    /// What else there is to know of it.
    pub(super) fn note(&self) -> String {
        if let Some(beside) = &self.beside {
            let stage = beside["stage"].as_str().unwrap_or("replaced");
            return match beside["pid"].as_u64() {
                Some(pid) => format!("{stage}, beside pid {pid}"),
                None => stage.to_owned(),
            };
        }
        if let Some(hanging) = &self.hanging {
            return format!(
                "its loop does not turn: {}",
                hanging["process"].as_str().unwrap_or("no word of it")
            );
        }
        match (&self.reason, &self.last_exit) {
            (Some(reason), _) => reason.clone(),
            (None, Some(exit)) if self.state != "ready" => exit.clone(),
            _ => String::new(),
        }
    }
}

impl Status {
    pub(super) async fn of(client: &Client) -> Result<Self, AskError> {
        let answer = client.get("/status").await?;
        if answer.is_good() { answer.read() } else { Err(client.refusal(&answer)) }
    }

    /// The line above the table.
    pub(super) fn head(&self) -> String {
        let ready = self.nodes.iter().filter(|node| node.state == "ready").count();
        let sessions: u64 = self.nodes.iter().map(|node| node.sessions).sum();
        let doing = self.doing.as_ref().map_or_else(String::new, |doing| format!(" · {doing}"));
        let (cluster, state, nodes) = (&self.cluster, &self.state, self.nodes.len());
        format!("{cluster} is {state} · {ready} of {nodes} nodes ready · {sessions} sessions{doing}")
    }

    fn text(&self, width: Option<usize>, colours: bool) -> String {
        let mut table =
            Table::new(&["NODE", "KIND", "STATE", "PID", "SESSIONS", "RESTARTS", "RELEASE", "SINCE", "NOTE"]);
        for node in &self.nodes {
            table.row([
                Cell::new(&node.name),
                Cell::new(&node.kind),
                Cell::toned(&node.state, node.tone()),
                Cell::number(node.pid.map_or_else(String::new, |pid| pid.to_string())),
                Cell::number(node.sessions),
                Cell::number(node.restarts),
                Cell::new(node.release.as_deref().unwrap_or_default()),
                Cell::new(&node.since),
                Cell::new(node.note()),
            ]);
        }
        let head = fftelemetry::colour::visible(&self.head()).into_owned();
        format!(
            "{}\n{}",
            width.map_or_else(|| head.clone(), |width| cut(&head, width)),
            table.text(width, colours)
        )
    }
}

/// Shows the status, once or whenever it changes.
pub(super) async fn show(client: &Client, watch: bool, json: bool, screen: &Screen) -> Result<u8, AskError> {
    let answer = client.get("/status").await?;
    if json {
        print(&answer.text)?;
    }
    if !answer.is_good() {
        return Err(client.refusal(&answer));
    }
    if !watch {
        if !json {
            print(&answer.read::<Status>()?.text(screen.width(), screen.colours))?;
        }
        return Ok(exit::DONE);
    }
    // The first event is the whole status again, so nothing is missed between the two.
    let mut events = Events::of(client).await?;
    let mut drawn = Redrawn::default();
    loop {
        let next = tokio::select! {
            next = events.next() => next?,
            _ = ctrl_c() => return Ok(exit::INTERRUPTED),
        };
        if next.is_none() {
            return Err(events.ended(client));
        }
        let answer = client.get("/status").await?;
        if json {
            print(&answer.text)?;
            continue;
        }
        let text = answer.read::<Status>()?.text(screen.width(), screen.colours);
        match screen.size() {
            Some((_, rows)) => {
                let lines: Vec<String> =
                    text.lines().take(rows.saturating_sub(1)).map(str::to_owned).collect();
                drawn.draw(&lines)?;
            }
            None => print(&(text + "\n"))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        serde_json::from_str(
            r#"{"cluster": "demo", "state": "up", "doing": "reload", "of_tomorrow": 1, "nodes": [
            {"name": "net", "kind": "net", "state": "ready", "pid": 7, "sessions": 3, "restarts": 0,
             "since": "2026-01-01T00:00:00Z", "release": "0.1.0", "last_exit": "exit code 0"},
            {"name": "game1", "kind": "game", "state": "crash_loop", "pid": null, "sessions": 0, "restarts": 12,
             "since": "2026-01-01T00:00:01Z", "release": null, "last_exit": "signal 11 (SIGSEGV)"},
            {"name": "game2", "kind": "game", "state": "ready", "beside": {"pid": 9, "stage": "proving"}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_status_is_a_line_and_a_table_with_what_is_wrong() {
        let text = status().text(None, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "demo is up · 2 of 3 nodes ready · 3 sessions · reload");
        assert!(lines[2].starts_with("net    net   ready         7"), "{text}");
        assert!(!lines[2].contains("exit code 0"), "{text}");
        assert!(lines[3].contains("crash_loop") && lines[3].ends_with("signal 11 (SIGSEGV)"), "{text}");
        assert!(lines[4].ends_with("proving, beside pid 9"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_red() {
        let text = status().text(None, true);
        assert!(
            text.contains("\x1b[31mcrash_loop\x1b[0m") && text.contains("\x1b[32mready\x1b[0m"),
            "{text:?}"
        );
    }
}

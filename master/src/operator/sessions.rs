//! The sessions of a cluster: who is connected, one session's story, and kicking a user.

use std::fmt::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::client::{AskError, Client, in_url};
use super::screen::Screen;
use super::table::{Cell, Table, Tone};
use super::{To, exit, print};

/// Which sessions are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Which {
    /// The story of this one: where it is, its groups, its last requests
    pub session: Option<String>,
    /// Only those of this user
    #[arg(long)]
    pub user: Option<String>,
    /// Only those from this address or block: 10.0.0.0/8
    #[arg(long)]
    pub address: Option<String>,
    /// Only those at this net node
    #[arg(long)]
    pub node: Option<String>,
    /// Only those whose last request was of this command
    #[arg(long, value_name = "NUMBER")]
    pub command: Option<u32>,
    /// Only those that are connected for longer than so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub older_s: Option<u64>,
    /// Only those behind this one, as the end of a page says
    #[arg(long, value_name = "SESSION")]
    pub after: Option<String>,
    /// At most so many [default: the master's, 100]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Whom to ask.
    #[command(flatten)]
    pub to: To,
}

impl Which {
    fn path(&self) -> String {
        if let Some(session) = &self.session {
            return format!("/sessions/{}", in_url(session));
        }
        let fields = [
            ("user", self.user.clone()),
            ("address", self.address.clone()),
            ("node", self.node.clone()),
            ("command", self.command.map(|command| command.to_string())),
            ("older_s", self.older_s.map(|older_s| older_s.to_string())),
            ("after", self.after.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ];
        let given =
            fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", in_url(value.as_ref()?))));
        let given: Vec<String> = given.collect();
        if given.is_empty() { "/sessions".into() } else { format!("/sessions?{}", given.join("&")) }
    }
}

/// A page of sessions, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    sessions: Vec<Session>,
    next: Option<String>,
    nodes: Vec<Report>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    session: String,
    node: String,
    user: Option<String>,
    address: String,
    protocol: Option<String>,
    age_ms: u64,
    idle_ms: u64,
    requests: u64,
    last: Option<Value>,
}

/// Whether a node has answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    node: String,
    error: Option<String>,
}

/// How many sessions it was done for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Closed {
    ok: bool,
    sessions: u64,
    missed: u64,
    nodes: Vec<Report>,
}

/// The nodes that have not answered, a line each.
fn silent(nodes: &[Report], colours: bool) -> String {
    let mut text = String::new();
    for Report { node, error } in nodes {
        if let Some(error) = error {
            let line = fftelemetry::colour::visible(&format!("{node}: {error}")).into_owned();
            let _ = writeln!(text, "{}", Tone::Bad.paint(&line, colours));
        }
    }
    text
}

/// A time as people say it: the two largest units.
pub(super) fn age(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match (d, h, m, s) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{:02}s", s % 60),
        (0, h, m, _) => format!("{h}h{:02}m", m % 60),
        (d, h, ..) => format!("{d}d{:02}h", h % 24),
    }
}

fn page_text(page: &Page, width: Option<usize>, colours: bool) -> String {
    let names = ["SESSION", "USER", "NODE", "ADDRESS", "PROTOCOL", "AGE", "IDLE", "REQUESTS", "LAST"];
    let mut table = Table::new(&names);
    for session in &page.sessions {
        let last = session.last.as_ref().and_then(|last| last["command"].as_u64());
        table.row([
            Cell::new(&session.session),
            Cell::new(session.user.as_deref().unwrap_or_default()),
            Cell::new(&session.node),
            Cell::new(&session.address),
            Cell::new(session.protocol.as_deref().unwrap_or_default()),
            Cell::number(age(session.age_ms)),
            Cell::number(age(session.idle_ms)),
            Cell::number(session.requests),
            Cell::number(last.map_or_else(String::new, |last| last.to_string())),
        ]);
    }
    let mut text = table.text(width, colours) + &silent(&page.nodes, colours);
    if let Some(next) = &page.next {
        let _ = writeln!(text, "there are more: --after {}", fftelemetry::colour::visible(next));
    }
    text
}

/// Shows them.
pub(super) async fn show(client: &Client, which: &Which, screen: &Screen) -> Result<u8, AskError> {
    let answer = client.get(&which.path()).await?;
    if which.to.json {
        print(&answer.text)?;
    }
    if !answer.is_good() {
        return Err(client.refusal(&answer));
    }
    if which.to.json {
        return Ok(exit::DONE);
    }
    if which.session.is_some() {
        // A story is a tree; its JSON is made for reading, too.
        let story: Value = answer.read()?;
        print(&(serde_json::to_string_pretty(&story).unwrap_or_default() + "\n"))?;
        return Ok(exit::DONE);
    }
    print(&page_text(&answer.read()?, screen.width(), screen.colours))?;
    Ok(exit::DONE)
}

/// Closes a user's sessions.
pub(super) async fn kick(
    client: &Client,
    user: &str,
    reason: Option<&str>,
    json: bool,
) -> Result<u8, AskError> {
    let reason = reason.map_or_else(String::new, |reason| format!("?reason={}", in_url(reason)));
    let answer = client.post(&format!("/users/{}/kick{reason}", in_url(user)), Vec::new()).await?;
    if json {
        print(&answer.text)?;
    }
    let closed = match answer.read::<Closed>() {
        // When a node hangs it is not good, and says what was done all the same.
        Ok(closed) if answer.is_good() || !closed.nodes.is_empty() => closed,
        _ => return Err(client.refusal(&answer)),
    };
    if !json {
        let missed = match closed.missed {
            0 => String::new(),
            missed => format!(", {missed} were closing already or read too slowly"),
        };
        print(&format!("{} sessions closed{missed}\n{}", closed.sessions, silent(&closed.nodes, false)))?;
    }
    Ok(if closed.ok { exit::DONE } else { exit::FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_stand_in_the_path() {
        assert_eq!(Which::default().path(), "/sessions");
        let which = Which { user: Some("a&b".into()), older_s: Some(60), ..Which::default() };
        assert_eq!(which.path(), "/sessions?user=a%26b&older_s=60");
        let one = Which { session: Some("7/8".into()), user: Some("a".into()), ..Which::default() };
        assert_eq!(one.path(), "/sessions/7%2F8");
    }

    #[test]
    fn a_page_names_the_nodes_that_do_not_answer_and_the_next_page() {
        let page: Page = serde_json::from_str(
            r#"{"sessions": [{"session": "7", "node": "net", "user": "ann", "address": "127.0.0.1:5", "age_ms": 61000,
                "idle_ms": 900, "requests": 3, "last": {"command": 101, "ago_ms": 900}}], "next": "7",
                "nodes": [{"node": "net", "ok": true}, {"node": "net2", "ok": false, "error": "no answer"}]}"#,
        )
        .unwrap();
        let text = page_text(&page, None, false);
        assert!(text.contains("7        ann   net   127.0.0.1:5  1m01s    0s         3   101\n"), "{text}");
        assert!(text.ends_with("net2: no answer\nthere are more: --after 7\n"), "{text}");
    }

    #[test]
    fn ages_have_two_units() {
        let said =
            [(0, "0s"), (59_999, "59s"), (61_000, "1m01s"), (3_660_000, "1h01m"), (90_000_000, "1d01h")];
        for (ms, text) in said {
            assert_eq!(age(ms), text);
        }
    }
}

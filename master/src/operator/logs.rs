//! The lines that a node has printed, and those that follow.

use std::time::Duration;

use fftelemetry::colour::by_level;
use serde::Deserialize;
use tokio::signal::ctrl_c;
use tokio::time::sleep;

use super::client::{AskError, Client, in_url};
use super::screen::Screen;
use super::{exit, print};

/// How often the master is asked for what follows: as fast as a person reads.
const EVERY: Duration = Duration::from_millis(250);
/// How long a master may be away (a new one adopts the nodes) until this ends.
const AWAY_MAX: u32 = 240;

/// What is wanted of a node's lines.
pub(super) struct Wanted<'a> {
    pub(super) node: &'a str,
    pub(super) follow: bool,
    pub(super) lines: Option<usize>,
    pub(super) json: bool,
}

/// What `/nodes/NAME` says.
#[derive(Debug, Default, Deserialize)]
struct Detail {
    lines: Vec<String>,
    /// How many lines the node has printed since its master began; a master of an earlier release does not say it.
    printed: Option<u64>,
}

/// What came between two looks.
#[derive(Debug, Default, PartialEq, Eq)]
struct News<'a> {
    /// Lines that were printed and are kept no more.
    missed: u64,
    /// The master began anew.
    anew: bool,
    lines: &'a [String],
}

/// The lines that are new to somebody who has seen so many. Pure.
fn news(seen: u64, detail: &Detail) -> News<'_> {
    let printed = detail.printed.unwrap_or_default();
    let kept = u64::try_from(detail.lines.len()).unwrap_or(u64::MAX);
    let Some(new) = printed.checked_sub(seen) else {
        return News { missed: printed.saturating_sub(kept), anew: true, lines: &detail.lines };
    };
    let shown = usize::try_from(new.min(kept)).unwrap_or(usize::MAX);
    let lines = detail.lines.get(detail.lines.len() - shown..).unwrap_or_default();
    News { missed: new.saturating_sub(kept), anew: false, lines }
}

/// Shows them; with what follows, until Ctrl-C.
pub(super) async fn show(client: &Client, wanted: Wanted<'_>, screen: &Screen) -> Result<u8, AskError> {
    let path = format!("/nodes/{}", in_url(wanted.node));
    let answer = client.get(&path).await?;
    if !answer.is_good() {
        return Err(client.refusal_of(&answer, Some(wanted.node)).await);
    }
    if wanted.json && !wanted.follow {
        print(&answer.text)?;
        return Ok(exit::DONE);
    }
    let first: Detail = answer.read()?;
    let from = first.lines.len().saturating_sub(wanted.lines.unwrap_or(usize::MAX));
    print(&text(first.lines.get(from..).unwrap_or_default(), wanted.json, screen.colours))?;
    if !wanted.follow {
        return Ok(exit::DONE);
    }
    let Some(seen) = first.printed else {
        let why = "the master does not count a node's lines, so what follows cannot be told: it is of an earlier release";
        return Err(AskError::Failed(why.into()));
    };
    tokio::select! {
        followed = follow(client, &path, seen, &wanted, screen) => followed,
        _ = ctrl_c() => Ok(exit::INTERRUPTED),
    }
}

async fn follow(
    client: &Client,
    path: &str,
    mut seen: u64,
    wanted: &Wanted<'_>,
    screen: &Screen,
) -> Result<u8, AskError> {
    let mut away = 0;
    loop {
        sleep(EVERY).await;
        let answer = match client.get(path).await {
            // A master that leaves may be followed by another one.
            Err(AskError::NoMaster { .. }) if away < AWAY_MAX => {
                away += 1;
                if away == 1 {
                    note(wanted, "the master is away");
                }
                continue;
            }
            answer => answer?,
        };
        if away > 0 {
            note(wanted, "the master is back");
            away = 0;
        }
        if !answer.is_good() {
            return Err(client.refusal_of(&answer, Some(wanted.node)).await);
        }
        let detail: Detail = answer.read()?;
        let news = news(seen, &detail);
        if news.anew {
            note(
                wanted,
                "another master has begun: its lines from the first on, between the two some may be missing",
            );
        }
        if news.missed > 0 {
            note(
                wanted,
                &format!(
                    "{} lines are missing here: they came faster than the master keeps them",
                    news.missed
                ),
            );
        }
        print(&text(news.lines, wanted.json, screen.colours))?;
        seen = detail.printed.unwrap_or_default();
    }
}

/// Says something beside the lines: on standard error, so that a pipe has lines alone.
#[allow(clippy::print_stderr)]
fn note(wanted: &Wanted<'_>, what: &str) {
    eprintln!("--- {}: {what} ---", wanted.node);
}

fn text(lines: &[String], json: bool, colours: bool) -> String {
    let mut text = String::new();
    for line in lines {
        // The master has made control characters readable.
        match (json, colours) {
            (true, _) => text.push_str(&serde_json::json!({ "line": line }).to_string()),
            (false, true) => text.push_str(&by_level(&fftelemetry::colour::visible(line))),
            (false, false) => text.push_str(&fftelemetry::colour::visible(line)),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(printed: u64, lines: &[&str]) -> Detail {
        Detail { lines: lines.iter().map(|line| (*line).to_owned()).collect(), printed: Some(printed) }
    }

    #[test]
    fn what_follows_is_told_once_also_when_lines_are_equal() {
        let same = detail(5, &["tick", "tick", "tick"]);
        assert!(news(5, &same).lines.is_empty());
        assert_eq!(news(4, &same), News { missed: 0, anew: false, lines: &same.lines[2..] });
        assert_eq!(news(2, &same).lines, ["tick", "tick", "tick"]);
    }

    #[test]
    fn lines_that_were_missed_are_counted() {
        let kept = detail(10, &["i", "j"]);
        assert_eq!(news(5, &kept), News { missed: 3, anew: false, lines: &kept.lines });
    }

    #[test]
    fn another_master_counts_from_nothing() {
        let kept = detail(1, &["a"]);
        assert_eq!(news(5, &kept), News { missed: 0, anew: true, lines: &kept.lines });
    }
}

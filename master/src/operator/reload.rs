//! The progress of a reload: each node's stage as it comes, in place in a terminal, and what has become of all.

use std::collections::BTreeMap;

use fftelemetry::colour::visible;
use tokio::signal::ctrl_c;

use super::answers;
use super::client::{AskError, Client};
use super::events::{Event, Events};
use super::screen::{Redrawn, Screen};
use super::status::{Status, Step};
use super::table::{Tone, cut};
use super::{exit, print};

/// How far a reload is. Pure.
#[derive(Debug, Default)]
struct Progress {
    /// When the command before it began: what `/status` says of that one is not ours.
    before: Option<String>,
    steps: Vec<Step>,
}

impl Progress {
    fn after(status: &Status) -> Self {
        let before = status.command.as_ref().map(|command| command.since.clone());
        Self { before, steps: Vec::new() }
    }

    /// Takes what `/status` says; the steps that are new.
    fn take(&mut self, status: &Status) -> Vec<Step> {
        let Some(command) = &status.command else { return Vec::new() };
        if self.before.as_ref() == Some(&command.since) {
            return Vec::new();
        }
        let steps: Vec<Step> = command.steps.clone();
        steps.into_iter().filter(|step| self.step(step)).collect()
    }

    /// Takes a step; whether it is new.
    fn step(&mut self, step: &Step) -> bool {
        match self.steps.iter_mut().find(|known| known.node == step.node) {
            Some(known) if known == step => false,
            Some(known) => {
                known.clone_from(step);
                true
            }
            None => {
                self.steps.push(step.clone());
                true
            }
        }
    }

    /// The length of the longest name.
    fn name_width(&self) -> usize {
        self.steps.iter().map(|step| step.node.chars().count()).max().unwrap_or(0)
    }

    /// The lines that fit: all of them, or else those of nodes on their way and those that failed, and how many there are more.
    fn lines(&self, (columns, rows): (usize, usize), colours: bool) -> Vec<String> {
        let name = self.name_width();
        let ended = self.steps.iter().filter(|step| is_over(step)).count();
        let mut shown: Vec<&Step> = self.steps.iter().collect();
        let room = rows.saturating_sub(2).max(1);
        if shown.len() > room {
            shown.retain(|step| !matches!(step.stage.as_str(), "planned" | "done" | "not_touched"));
            shown.truncate(room);
        }
        let mut lines: Vec<String> = shown.iter().map(|step| line(step, name, columns, colours)).collect();
        lines.push(cut(&format!("{ended} of {} nodes", self.steps.len()), columns));
        lines
    }
}

fn is_over(step: &Step) -> bool {
    matches!(step.stage.as_str(), "done" | "failed" | "not_touched")
}

/// A step in a line: the node, its stage, and what has become of it.
fn line(step: &Step, name: usize, columns: usize, colours: bool) -> String {
    let tone = match step.stage.as_str() {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        "planned" | "not_touched" => Tone::Faint,
        _ => Tone::Busy,
    };
    let outcome = step.outcome.as_deref().unwrap_or_default();
    let text = format!("{:<name$}  {:<12}  {outcome}", step.node, step.stage);
    tone.paint(cut(visible(&text).replace('\n', " ").trim_end(), columns).as_str(), colours)
}

/// Which release each node runs, as far as nodes have told it.
fn releases(status: &Status) -> BTreeMap<&str, &str> {
    let told = status.nodes.iter().filter_map(|node| Some((node.name.as_str(), node.release.as_deref()?)));
    told.collect()
}

/// From which release to which: one line when all nodes went the same way.
fn changes(before: &Status, after: &Status) -> Vec<String> {
    let (old, new) = (releases(before), releases(after));
    let mut ways: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, release) in &new {
        let way = match old.get(node) {
            Some(was) if was == release => format!("{release}, as before"),
            Some(was) => format!("{was} → {release}"),
            None => format!("{release}, new"),
        };
        ways.entry(way).or_default().push(node);
    }
    let alone = ways.len() == 1;
    let said = ways.into_iter().map(|(way, nodes)| match alone {
        true => format!("release {way}"),
        false => format!("release {way}: {}", nodes.join(", ")),
    });
    said.map(|line| visible(&line).into_owned()).collect()
}

/// Where progress is shown.
struct Shown<'a> {
    screen: &'a Screen,
    drawn: Redrawn,
}

impl Shown<'_> {
    fn show(&mut self, progress: &Progress, new: &[Step]) -> Result<(), AskError> {
        if new.is_empty() {
            return Ok(());
        }
        match self.screen.size() {
            Some(size) => self.drawn.draw(&progress.lines(size, self.screen.colours)),
            None => {
                let name = progress.name_width();
                let line = |step: &Step| line(step, name, usize::MAX, self.screen.colours) + "\n";
                print(&new.iter().map(line).collect::<String>())
            }
        }
    }
}

/// Reloads, and shows how far it is.
pub(super) async fn watched(
    client: &Client,
    path: &str,
    node: Option<&str>,
    screen: &Screen,
) -> Result<u8, AskError> {
    let before = Status::of(client).await?;
    // Before the command: what it does is an event then.
    let mut events = Events::of(client).await?;
    let mut progress = Progress::after(&before);
    let mut shown = Shown { screen, drawn: Redrawn::default() };
    let mut command = std::pin::pin!(client.post(path, Vec::new()));
    let mut are_told = true;
    let answer = loop {
        tokio::select! {
            answer = &mut command => break answer?,
            event = events.next(), if are_told => match event? {
                Some(event) => {
                    let new = news(client, &mut progress, &event).await?;
                    shown.show(&progress, &new)?;
                }
                // The answer says the rest.
                None => are_told = false,
            },
            _ = ctrl_c() => {
                print("\nthe reload goes on; `master status` shows how far it is\n")?;
                return Ok(exit::INTERRUPTED);
            }
        }
    };
    let done = answers::done(client, &answer, node).await?;
    let after = Status::of(client).await?;
    let new = progress.take(&after);
    shown.show(&progress, &new)?;
    if !done.ok {
        // In whole: a line in place is cut.
        answers::outcome(client, &answer, node, false, screen).await?;
    }
    let (word, tone) = if done.ok { ("reloaded", Tone::Good) } else { ("not reloaded", Tone::Bad) };
    let mut text = tone.paint(word, screen.colours) + "\n";
    changes(&before, &after).iter().for_each(|line| text.extend([line, "\n"]));
    print(&text)?;
    Ok(if done.ok { exit::DONE } else { exit::FAILED })
}

/// The steps that an event tells.
async fn news(client: &Client, progress: &mut Progress, event: &Event) -> Result<Vec<Step>, AskError> {
    match event.kind.as_str() {
        "step" => {
            let step: Step = serde_json::from_str(&event.data).unwrap_or_default();
            Ok(if progress.step(&step) { vec![step] } else { Vec::new() })
        }
        // Events were lost, and what they told is in the status.
        "skipped" => Ok(progress.take(&Status::of(client).await?)),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(node: &str, stage: &str, outcome: Option<&str>) -> Step {
        Step { node: node.into(), stage: stage.into(), outcome: outcome.map(str::to_owned) }
    }

    fn status(json: &str) -> Status {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_step_is_told_once_and_the_command_before_is_not_ours() {
        let old = status(r#"{"command": {"since": "1", "steps": [{"node": "a", "stage": "done"}]}}"#);
        let mut progress = Progress::after(&old);
        assert!(progress.take(&old).is_empty());
        let new = status(r#"{"command": {"since": "2", "steps": [{"node": "a", "stage": "planned"}]}}"#);
        assert_eq!(progress.take(&new), [step("a", "planned", None)]);
        assert!(progress.take(&new).is_empty());
        assert!(progress.step(&step("a", "proving", None)));
        assert!(!progress.step(&step("a", "proving", None)));
    }

    #[test]
    fn lines_fit_the_terminal_and_keep_what_matters() {
        let mut progress = Progress::default();
        for at in 0..200 {
            progress.step(&step(&format!("game{at}"), if at < 100 { "done" } else { "planned" }, None));
        }
        progress.step(&step("game7", "failed", Some("rolled back: it is as it is and longer than a line")));
        progress.step(&step("game100", "handing_over", None));
        let lines = progress.lines((40, 24), false);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].starts_with("game7    failed        rolled back: it ") && lines[0].ends_with('…'),
            "{lines:?}"
        );
        assert_eq!(lines[1], "game100  handing_over");
        assert_eq!(lines[2], "100 of 200 nodes");
        assert!(lines.iter().all(|line| line.chars().count() <= 40));
        assert_eq!(progress.lines((40, 300), false).len(), 201);
    }

    #[test]
    fn a_reload_says_from_which_release_to_which() {
        let of = |releases: [(&str, &str); 2]| {
            let node =
                |(name, release): (&str, &str)| format!(r#"{{"name": "{name}", "release": "{release}"}}"#);
            status(&format!(r#"{{"nodes": [{}]}}"#, releases.map(node).join(",")))
        };
        let old = of([("a", "0.18.0 (abc)"), ("b", "0.18.0 (abc)")]);
        let new = of([("a", "0.18.1 (def)"), ("b", "0.18.1 (def)")]);
        assert_eq!(changes(&old, &new), ["release 0.18.0 (abc) → 0.18.1 (def)"]);
        assert_eq!(changes(&old, &old), ["release 0.18.0 (abc), as before"]);
        let half = of([("a", "0.18.1 (def)"), ("b", "0.18.0 (abc)")]);
        assert_eq!(
            changes(&old, &half),
            ["release 0.18.0 (abc) → 0.18.1 (def): a", "release 0.18.0 (abc), as before: b"]
        );
    }
}

//! The feed for `/events`: what happens, as it happens. It has the changes between two views, and the lines of the log.
//!
//! Readers have a window of the last 1,024 events; one that falls behind it misses the oldest and is
//! told how many, so no reader holds anything up.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use super::machine::{ClusterView, NodeView, Report};
use crate::utc::utc;

/// Events that a reader may be behind.
const WINDOW: usize = 1024;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEvent {
    /// Counted from 1 by each master.
    pub id: u64,
    /// `cluster`, `node`, `command`, `step`, `crash` or `report`.
    pub kind: &'static str,
    /// The event, in one line of JSON.
    pub json: String,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Feed {
    to: broadcast::Sender<Arc<FeedEvent>>,
    last: u64,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { to: broadcast::Sender::new(WINDOW), last: 0 }
    }

    /// Where readers come from.
    pub(crate) fn readers(&self) -> broadcast::Sender<Arc<FeedEvent>> {
        self.to.clone()
    }

    fn tell(&mut self, kind: &'static str, what: Value, unix_ms: u64) {
        self.last += 1;
        let mut object = Map::from_iter([("at".to_owned(), utc(unix_ms).into())]);
        if let Value::Object(what) = what {
            object.extend(what);
        }
        // Without readers it goes nowhere.
        let _ = self.to.send(Arc::new(FeedEvent {
            id: self.last,
            kind,
            json: Value::Object(object).to_string(),
        }));
    }

    /// Tells what has changed.
    pub(crate) fn changed(&mut self, old: &ClusterView, new: &ClusterView, unix_ms: u64) {
        for (kind, what) in changes(old, new) {
            self.tell(kind, what, unix_ms);
        }
    }

    /// Tells a line of the log.
    pub(crate) fn report(&mut self, report: &Report, unix_ms: u64) {
        let (kind, what) = match report {
            // Seen as changes of their nodes.
            Report::Ready { .. } => return,
            Report::Up { nodes, took_ms, .. } => {
                let text = format!("the cluster is up: {nodes} nodes in {took_ms} ms");
                ("report", json!({"level": "info", "text": text}))
            }
            Report::Crashed(crash) => ("crash", serde_json::to_value(&**crash).unwrap_or_default()),
            Report::Info(text) => ("report", json!({"level": "info", "text": text})),
            Report::Warn(text) => ("report", json!({"level": "warn", "text": text})),
        };
        self.tell(kind, what, unix_ms);
    }
}

/// The changes that a reader wants to know of, from one view to the next.
fn changes(old: &ClusterView, new: &ClusterView) -> Vec<(&'static str, Value)> {
    let mut changes = Vec::new();
    if old.state != new.state {
        changes.push(("cluster", json!({"state": new.state, "was": old.state})));
    }
    for node in &new.nodes {
        let before = old.node(node.name.as_str());
        if before.is_none_or(|before| marks(before) != marks(node)) {
            let was = before.map(|before| before.state);
            changes.push((
                "node",
                json!({
                    "node": node.name, "state": node.state, "was": was, "pid": node.pid,
                    "incarnation": node.incarnation, "beside": node.beside, "hanging": node.hanging,
                    "reason": node.reason, "last_exit": node.last_exit,
                }),
            ));
        }
    }
    for gone in old.nodes.iter().filter(|node| new.node(node.name.as_str()).is_none()) {
        changes.push(("node", json!({"node": gone.name, "state": "removed", "was": gone.state})));
    }
    let Some(command) = new.command.as_ref().filter(|command| old.command.as_ref() != Some(command)) else {
        return changes;
    };
    let before = old.command.as_ref().filter(|before| before.since == command.since);
    for (at, step) in command.steps.iter().enumerate() {
        if before.and_then(|before| before.steps.get(at)) != Some(step) {
            changes.push((
                "step",
                json!({
                    "command": command.what, "node": step.node, "stage": step.stage, "outcome": step.outcome,
                }),
            ));
        }
    }
    if before.is_none_or(|before| before.ended != command.ended) {
        let (state, ok) = (if command.ended.is_some() { "ended" } else { "begun" }, command.ok);
        changes.push(("command", json!({"command": command.what, "state": state, "ok": ok})));
    }
    changes
}

/// The part of a node's view that makes an event when it changes: not its counters, which change all the time.
fn marks(node: &NodeView) -> impl PartialEq + '_ {
    let beside = node.beside.as_ref().map(|beside| (beside.pid, beside.stage));
    (node.state, node.pid, node.incarnation, beside, &node.hanging, &node.last_exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cluster;
    use crate::supervisor::machine::{CommandView, Machine, NodeState, PhaseView, StepStage, StepView};
    use crate::supervisor::moment;

    fn view() -> ClusterView {
        Machine::new(&cluster(&["gate", "net:10001 > gate"]), &[], moment(&ffambient::Ambient::system()))
            .view()
    }

    fn kinds(old: &ClusterView, new: &ClusterView) -> Vec<String> {
        let changes = changes(old, new).into_iter();
        changes
            .map(|(kind, what)| {
                let text = |key: &str| what[key].as_str().unwrap_or_default().to_owned();
                format!("{kind} {}{}{}", text("node"), text("state"), text("stage"))
            })
            .collect()
    }

    #[test]
    fn states_and_processes_are_told_and_counters_are_not() {
        let old = view();
        let mut new = old.clone();
        new.nodes[0].sessions = 7;
        assert!(changes(&old, &new).is_empty());
        new.state = PhaseView::Up;
        new.nodes[1].state = NodeState::Ready;
        assert_eq!(kinds(&old, &new), ["cluster up", "node netready"]);
        let mut pid = new.clone();
        pid.nodes[0].pid = Some(8);
        assert_eq!(kinds(&new, &pid), ["node gatestopped"]);
        pid.nodes.remove(0);
        assert_eq!(kinds(&new, &pid), ["node gateremoved"]);
    }

    #[test]
    fn a_command_is_told_as_it_begins_at_each_step_and_as_it_ends() {
        let none = view();
        let step =
            |stage| StepView { node: crate::fixture::name("net"), stage, since: "2".into(), outcome: None };
        let command = |stage, ended: Option<&str>| {
            let (what, since) = ("reload".into(), "1".into());
            let command = CommandView {
                what,
                since,
                ended: ended.map(str::to_owned),
                ok: ended.map(|_| true),
                steps: vec![step(stage)],
            };
            ClusterView { command: Some(command), ..none.clone() }
        };
        let begun = command(StepStage::Preparing, None);
        assert_eq!(kinds(&none, &begun), ["step netpreparing", "command begun"]);
        let handing = command(StepStage::HandingOver, None);
        assert_eq!(kinds(&begun, &handing), ["step nethanding_over"]);
        let ended = command(StepStage::HandingOver, Some("3"));
        assert_eq!(kinds(&handing, &ended), ["command ended"]);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_nobody_up_and_is_told_what_it_missed() {
        let mut feed = Feed::new();
        let mut reader = feed.readers().subscribe();
        for _ in 0..WINDOW + 5 {
            feed.report(&Report::Info("x".into()), 0);
        }
        let missed = reader.recv().await.unwrap_err();
        assert_eq!(missed, broadcast::error::RecvError::Lagged(5));
        let told = reader.recv().await.unwrap();
        assert_eq!((told.id, told.kind), (6, "report"));
        assert_eq!(told.json, r#"{"at":"1970-01-01T00:00:00.000Z","level":"info","text":"x"}"#);
    }
}

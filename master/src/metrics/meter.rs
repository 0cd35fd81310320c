//! The meter: how long the stages of a replacement take, and what becomes of commands. It sees every view that is published.

use std::collections::HashMap;

use ffproto::NodeName;
use fftelemetry::metrics::{Counter, Family, Histogram, Registry};
use tokio::time::Instant;

use crate::supervisor::machine::{ClusterView, CommandView, StepStage};

/// The stages of a replacement that are timed, with the names that /status has for them.
const STAGES: [(StepStage, &str); 3] = [
    (StepStage::Preparing, "preparing"),
    (StepStage::HandingOver, "handing_over"),
    (StepStage::Proving, "proving"),
];

/// The commands that there are.
const COMMANDS: [&str; 4] = ["start", "stop", "restart", "reload"];

/// The meter of one supervisor.
pub(crate) struct Meter {
    stages: Family<Histogram>,
    commands: Family<Counter>,
    /// Since when each node is in its stage.
    since: HashMap<NodeName, (StepStage, Instant)>,
}

impl Meter {
    pub(super) fn new(registry: &Registry) -> Self {
        let stages = "How long a stage of a node's replacement took";
        let stages = registry.histograms("ff_replacement_stage_seconds", stages, &["stage"], STAGES.len());
        let commands =
            "Commands that have ended, by what they were and whether every node is as they wanted it";
        let commands =
            registry.counters("ff_commands", commands, &["command", "outcome"], 2 * COMMANDS.len());
        // So that each has its zero.
        STAGES.iter().for_each(|(_, name)| drop(stages.with(&[name])));
        COMMANDS
            .iter()
            .for_each(|what| ["ok", "failed"].iter().for_each(|how| drop(commands.with(&[what, how]))));
        Self { stages, commands, since: HashMap::new() }
    }

    /// The view has changed.
    pub(crate) fn changed(&mut self, old: &ClusterView, new: &ClusterView, now: Instant) {
        let Some(command) = &new.command else { return };
        for step in &command.steps {
            let before = self.since.get(&step.node).copied();
            if let Some((stage, since)) = before
                && stage != step.stage
                && let Some((_, name)) = STAGES.iter().find(|(timed, _)| *timed == stage)
            {
                self.stages.with(&[name]).observe(now.saturating_duration_since(since));
            }
            if before.is_none_or(|(stage, _)| stage != step.stage) {
                self.since.insert(step.node.clone(), (step.stage, now));
            }
        }
        let ended = |command: &CommandView| (command.since.clone(), command.ended.clone());
        if command.ended.is_some() && old.command.as_ref().map(ended) != Some(ended(command)) {
            let how = if command.ok == Some(true) { "ok" } else { "failed" };
            self.commands.with(&[&command.what, how]).inc();
            self.since.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixture::{cluster, name};
    use crate::supervisor::machine::{Machine, StepView};
    use crate::supervisor::moment;

    #[tokio::test]
    async fn the_stages_of_a_replacement_are_timed_and_a_command_is_counted_once() {
        let registry = Registry::new();
        let mut meter = Meter::new(&registry);
        let none = Machine::new(&cluster(&["net:10001"]), &[], moment(&ffambient::Ambient::system())).view();
        let at = |stage, ended: bool| {
            let step = StepView { node: name("net"), stage, since: "2".into(), outcome: None };
            let (what, since, steps) = ("reload".into(), "1".into(), vec![step]);
            let command = CommandView {
                what,
                since,
                ended: ended.then(|| "3".into()),
                ok: ended.then_some(true),
                steps,
            };
            ClusterView { command: Some(command), ..none.clone() }
        };
        let (begun, mut old) = (Instant::now(), none.clone());
        for (seconds, stage, ended) in [
            (0, StepStage::Planned, false),
            (1, StepStage::Preparing, false),
            (3, StepStage::HandingOver, false),
            (4, StepStage::HandingOver, false),
            (7, StepStage::Done, false),
            (8, StepStage::Done, true),
            (9, StepStage::Done, true),
        ] {
            let new = at(stage, ended);
            meter.changed(&old, &new, begun + Duration::from_secs(seconds));
            old = new;
        }
        let text = registry.encode();
        for line in [
            "ff_replacement_stage_seconds_sum{stage=\"preparing\"} 2.0",
            "ff_replacement_stage_seconds_sum{stage=\"handing_over\"} 4.0",
            "ff_replacement_stage_seconds_count{stage=\"proving\"} 0",
            "ff_commands_total{command=\"reload\",outcome=\"ok\"} 1",
            "ff_commands_total{command=\"reload\",outcome=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }
}

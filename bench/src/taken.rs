//! Samples: one system measured once, taken again when other work disturbed it, and what those of one system add
//! up to beside those of the others.

use std::time::Duration;

use serde::Serialize;

use crate::cli::Rounds;
use crate::load::{self, Outcome, Plan};
use crate::machine;
use crate::stats::{self, Spread};
use crate::system::{Running, System};

/// How often a sample that other work disturbed is taken again.
const RETAKES: usize = 2;
/// How long that other work may take to end.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);

/// One system in one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Taken {
    pub(crate) run: usize,
    pub(crate) system: System,
    /// Other work used more of the machine than `--quiet`.
    pub(crate) disturbed: bool,
    pub(crate) nodes: Vec<String>,
    pub(crate) outcome: Outcome,
}

/// Measures a system, and again if that was disturbed.
pub(crate) fn take(running: &Running, plan: &Plan, run: usize, rounds: &Rounds) -> anyhow::Result<Taken> {
    take_with(running, plan, run, rounds, || Ok(()))
}

/// The same; `before` runs before each time.
pub(crate) fn take_with(
    running: &Running,
    plan: &Plan,
    run: usize,
    rounds: &Rounds,
    mut before: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Taken> {
    let mut retakes = 0;
    let (outcome, disturbed) = loop {
        before()?;
        let outcome = load::measure(running, plan)?;
        let disturbed = outcome.other_cores > rounds.quiet;
        if !disturbed || retakes == RETAKES {
            break (outcome, disturbed);
        }
        retakes += 1;
        machine::wait_for_quiet(rounds.quiet, QUIET_PATIENCE)?;
    };
    let nodes = running.nodes.iter().map(|node| node.name.clone()).collect();
    Ok(Taken { run, system: running.system, disturbed, nodes, outcome })
}

impl Taken {
    /// A line for the one who waits; `what` says what was measured.
    pub(crate) fn progress(&self, runs: usize, what: &str) -> String {
        let o = &self.outcome;
        let mut line = format!(
            "run {}/{runs} {what} {:<19} {:>9.0}/s  p50 {:>7.3} p99 {:>7.3} ms  cpu {:>6.2} us  load {:>5.2} us",
            self.run + 1,
            self.system,
            o.per_sec,
            o.p50_us / 1e3,
            o.p99_us / 1e3,
            o.server_us_per_answer(),
            o.load_cpu_s * 1e6 / o.answers.max(1) as f64,
        );
        line.push_str(&format!("  others {:.2} steal {:.2}", o.other_cores, o.steal_cores));
        if self.disturbed {
            line.push_str(" DISTURBED");
        }
        if let Some(fault) = o.fault() {
            line.push_str(&format!(" FAULT: {fault}"));
        }
        line
    }
}

/// The samples of one point, and those of one system among them.
pub(crate) struct Group<'a> {
    pub(crate) all: Vec<&'a Taken>,
    pub(crate) own: Vec<&'a Taken>,
}

impl<'a> Group<'a> {
    pub(crate) fn of(all: impl Iterator<Item = &'a Taken>, system: System) -> Self {
        let all: Vec<_> = all.collect();
        let own = all.iter().copied().filter(|taken| taken.system == system).collect();
        Self { all, own }
    }

    pub(crate) fn median(&self, value: fn(&Outcome) -> f64) -> f64 {
        self.spread(value).median
    }

    pub(crate) fn spread(&self, value: fn(&Outcome) -> f64) -> Spread {
        Spread::of(self.own.iter().map(|taken| value(&taken.outcome)))
    }

    /// Median over the runs of own / other, both from the same run.
    pub(crate) fn ratio(&self, other: System, value: fn(&Outcome) -> f64) -> Option<f64> {
        let ratio = |taken: &&Taken| {
            let pair = self.all.iter().find(|s| s.system == other && s.run == taken.run)?;
            let below = value(&pair.outcome);
            (below > 0.0).then(|| value(&taken.outcome) / below)
        };
        stats::median(self.own.iter().filter_map(ratio))
    }

    /// Microseconds of each process per answer, medians.
    pub(crate) fn by_node(&self) -> Vec<(String, f64)> {
        let Some(first) = self.own.first() else { return vec![] };
        let us = |taken: &&Taken, at: usize| {
            let seconds = taken.outcome.server_cpu_s.get(at).copied().unwrap_or_default();
            seconds * 1e6 / taken.outcome.answers.max(1) as f64
        };
        let node = |(at, name): (usize, &String)| {
            (name.clone(), stats::median(self.own.iter().map(|s| us(s, at))).unwrap_or_default())
        };
        first.nodes.iter().enumerate().map(node).collect()
    }

    pub(crate) fn disturbed(&self) -> usize {
        self.own.iter().filter(|taken| taken.disturbed).count()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.own.iter().filter_map(|taken| taken.outcome.fault()).collect()
    }
}

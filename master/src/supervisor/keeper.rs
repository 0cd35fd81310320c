//! The keeper: what the supervisor writes down. What runs, for the next master, and how processes ended.

use std::fmt::Write;

use ffproto::{Incarnation, NodeName, NodeNumber};
use tracing::warn;

use super::machine::{CrashView, End};
use crate::run::{RosterNode, RosterProcess, RunFolder};

/// Writes into the run folder, when there is one.
#[derive(Debug)]
pub(crate) struct Keeper {
    run: Option<RunFolder>,
    complained: bool,
}

impl Keeper {
    pub(crate) fn new(run: Option<RunFolder>) -> Self {
        Self { run, complained: false }
    }

    /// Writes down what runs: nodes by their numbers, processes by their numbers and starts.
    pub(super) fn list<'a>(
        &mut self,
        numbers: impl Iterator<Item = (&'a NodeName, NodeNumber)>,
        processes: &[(&NodeName, Incarnation, u32, u64)],
    ) {
        let Some(run) = &mut self.run else { return };
        let of = |name: &NodeName| {
            let of = processes.iter().filter(|(node, ..)| *node == name);
            let listed =
                of.map(|&(_, incarnation, pid, started)| RosterProcess { incarnation, pid, started });
            let mut listed: Vec<RosterProcess> = listed.collect();
            listed.sort_by_key(|process| process.incarnation);
            listed
        };
        let nodes =
            numbers.map(|(name, number)| RosterNode { name: name.clone(), number, processes: of(name) });
        match run.write(nodes.collect()) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                warn!("{}: {error}: another master could not adopt the nodes", run.path().display());
            }
            Err(_) => {}
        }
    }

    /// To be called now and then.
    pub(super) fn touch(&mut self) {
        if let Some(run) = &mut self.run {
            run.touch();
        }
    }

    /// Keeps a crash report.
    pub(super) fn crash(&self, crash: &CrashView) {
        let Some(run) = &self.run else { return };
        match run.keep_crash(&crash.file(), &text(crash)) {
            Ok(path) => warn!("{}: what is known of its end is kept in {}", crash.node, path.display()),
            Err(error) => warn!("{}: no crash report is kept: {error}", run.path().display()),
        }
    }

    /// The end: nothing is left for a next master, unless the nodes run on for it.
    pub(super) fn close(&mut self, end: &End) {
        if let Some(run) = self.run.take_if(|_| *end != End::Detached) {
            run.close();
        }
    }
}

fn text(crash: &CrashView) -> String {
    let CrashView { node, nodes, incarnation, pid, at, exit, reason, during, lived_ms, lines } = crash;
    // A process of several nodes has a name of its own.
    let of = match &**nodes {
        [] => format!("node         {node}"),
        nodes => {
            let nodes: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
            format!("process      {node}\nnodes        {}", nodes.join(", "))
        }
    };
    let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let mut text = format!(
        "{of}\nincarnation  {incarnation}\npid          {pid}\nat           {at}\nexit         \
         {exit}\nreason       {}\nduring       {during}\nlived        {lived_ms} ms\n\n",
        reason.as_deref().unwrap_or("it gave none"),
    );
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    #[test]
    fn a_crash_report_says_everything_that_is_known() {
        let crash = CrashView {
            node: name("net"),
            nodes: vec![],
            incarnation: Incarnation(7),
            pid: Some(42),
            at: "2026-11-23T02:29:00.123Z".into(),
            exit: "exit code 101".into(),
            reason: None,
            during: "serving: 3 sessions, 1 links".into(),
            lived_ms: 1500,
            lines: vec!["one".into(), "panicked at x.rs".into()],
        };
        assert_eq!(crash.file(), "net-2026-11-23T022900.123Z.txt");
        assert_eq!(
            text(&crash),
            "node         net\nincarnation  7\npid          42\nat           2026-11-23T02:29:00.123Z\n\
             exit         exit code 101\nreason       it gave none\nduring       serving: 3 sessions, 1 links\n\
             lived        1500 ms\n\none\npanicked at x.rs\n"
        );
        let shared = CrashView { node: name("world"), nodes: vec![name("net"), name("gate")], ..crash };
        assert!(text(&shared).starts_with("process      world\nnodes        net, gate\nincarnation  7\n"));
    }
}

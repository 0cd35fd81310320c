//! `bench broadcast`: one message for all clients of a net node, from game through gate, against a process that
//! writes it to as many sockets.

use std::time::Duration;

use serde::Serialize;

use crate::cli::{BroadcastArgs, Rounds};
use crate::load::{Outcome, Plan, Way};
use crate::machine::{self, Spinners};
use crate::ours;
use crate::report::{self, Column};
use crate::stats::{self, Spread};
use crate::system::{Running, System};
use crate::taken::{self, Group, Taken};
use crate::targets::BROADCAST;
use crate::turns;

const SYSTEMS: [System; 2] = [System::FloorBroadcast, System::OursBroadcast];
/// How long the net node may take to tell the master what it has counted.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Serialize)]
struct Sample {
    window: u32,
    /// Frames that the net node got for one broadcast; none from a floor.
    frames_each: Option<f64>,
    #[serde(flatten)]
    taken: Taken,
}

pub(crate) fn run(args: &BroadcastArgs) -> anyhow::Result<()> {
    let samples = turns::each_run(args.rounds.runs, &SYSTEMS, &args.common, |run| {
        let _spinners = args.spin.spins(args.conns as usize).then(Spinners::start);
        let mut samples = Vec::new();
        for &window in &args.window {
            samples.extend(run.in_turn(|running| {
                let sample = measure(args, run.number, window, running)?;
                let what = format!("{} members, {window} under way", args.conns);
                eprintln!("{}", sample.taken.progress(args.rounds.runs, &what));
                Ok(sample)
            })?);
        }
        Ok(samples)
    })?;
    let rows = rows_of(args, &samples);
    report::show(&table(&rows), &rows, &samples, args.common.json.as_deref())
}

fn measure(args: &BroadcastArgs, run: usize, window: u32, running: &Running) -> anyhow::Result<Sample> {
    let Rounds { secs, warm, .. } = args.rounds;
    let way = Way::Broadcast { window };
    let plan = Plan { way, conns: args.conns as usize, body: args.body, secs, warm, cpu: None };
    let frames = || running.web.map(|web| ours::counter(web, "net", "broadcasts")).transpose();
    let mut before = None;
    let taken = taken::take_with(running, &plan, run, &args.rounds, || {
        before = frames()?;
        Ok(())
    })?;
    let sent = taken.outcome.sent;
    let mut frames_each = None;
    if let Some(before) = before {
        // What it has counted last comes with its next heartbeat.
        let mut now = before;
        machine::wait_until(STATUS_PATIENCE, || {
            now = frames().ok().flatten().unwrap_or(now);
            now.saturating_sub(before) >= sent
        });
        frames_each = Some(now.saturating_sub(before) as f64 / sent.max(1) as f64);
    }
    Ok(Sample { window, frames_each, taken })
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    system: System,
    conns: u32,
    body: usize,
    window: u32,
    runs: usize,
    disturbed: usize,
    /// Deliveries per second.
    per_sec: Spread,
    /// From the ask until everybody has it.
    p50_us: f64,
    p99_us: f64,
    /// CPU of all processes per delivery.
    server_us: Spread,
    server_us_by_node: Vec<(String, f64)>,
    frames_each: Option<f64>,
    /// Medians of the ratios within a run.
    rate_ratio: Option<f64>,
    server_ratio: Option<f64>,
    verdicts: Vec<String>,
    faults: Vec<String>,
}

fn rows_of(args: &BroadcastArgs, samples: &[Sample]) -> Vec<Row> {
    let keys = args.window.iter().flat_map(|&window| SYSTEMS.map(|system| (window, system)));
    keys.map(|(window, system)| row_of(args, window, system, samples)).collect()
}

fn row_of(args: &BroadcastArgs, window: u32, system: System, samples: &[Sample]) -> Row {
    let here = samples.iter().filter(|sample| sample.window == window);
    let group = Group::of(here.clone().map(|sample| &sample.taken), system);
    let frames = here.filter(|sample| sample.taken.system == system).filter_map(|sample| sample.frames_each);
    let frames_each = stats::median(frames);
    let rate_ratio = group.ratio(System::FloorBroadcast, |o| o.per_sec);
    let mut verdicts = vec![];
    if system == System::OursBroadcast {
        verdicts.push(BROADCAST.verdict(rate_ratio));
        verdicts.extend(frames_each.map(frames_verdict));
    }
    Row {
        system,
        conns: args.conns,
        body: args.body,
        window,
        runs: group.own.len(),
        disturbed: group.disturbed(),
        per_sec: group.spread(|o| o.per_sec),
        p50_us: group.median(|o| o.p50_us),
        p99_us: group.median(|o| o.p99_us),
        server_us: group.spread(Outcome::server_us_per_answer),
        server_us_by_node: group.by_node(),
        frames_each,
        rate_ratio,
        server_ratio: group.ratio(System::FloorBroadcast, Outcome::server_us_per_answer),
        verdicts,
        faults: group.faults(),
    }
}

fn frames_verdict(frames: f64) -> String {
    let word = if frames == 1.0 { "met" } else { "MISSED" };
    format!("{word}: {frames:.2} = 1 frame per broadcast")
}

fn table(rows: &[Row]) -> String {
    let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let columns: [Column<Row>; 13] = [
        ("members", Box::new(|r| r.conns.to_string())),
        ("body", Box::new(|r| r.body.to_string())),
        ("under way", Box::new(|r| r.window.to_string())),
        ("system", Box::new(|r| r.system.to_string())),
        ("runs", Box::new(|r| report::runs(r.runs, r.disturbed))),
        ("deliveries/s", Box::new(|r| report::thousands(r.per_sec.median))),
        ("min-max", Box::new(|r| r.per_sec.range_in_thousands())),
        ("x floor", Box::new(move |r| if r.system.is_ours() { times(r.rate_ratio) } else { "-".into() })),
        ("all have it p50/p99 ms", Box::new(|r| format!("{:.2} / {:.2}", r.p50_us / 1e3, r.p99_us / 1e3))),
        ("server CPU us/delivery", Box::new(|r| r.server_us.to_string())),
        ("by process", Box::new(|r| report::by_node(&r.server_us_by_node))),
        ("frames/broadcast", Box::new(move |r| times(r.frames_each))),
        ("verdict", Box::new(|r| report::verdict(&r.verdicts, &r.faults))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Bench, Command};
    use clap::Parser;

    fn sample(run: usize, system: System, per_sec: f64, frames_each: Option<f64>) -> Sample {
        let outcome = Outcome { per_sec, answers: 1000, server_cpu_s: vec![0.01], ..Outcome::default() };
        let taken = Taken { run, system, disturbed: false, nodes: vec!["net".into()], outcome };
        Sample { window: 1, frames_each, taken }
    }

    fn args() -> BroadcastArgs {
        let Command::Broadcast(args) = Bench::parse_from(["bench", "broadcast", "--window", "1"]).command
        else {
            panic!()
        };
        args
    }

    #[test]
    fn deliveries_are_compared_within_a_run() {
        use System::{FloorBroadcast, OursBroadcast};
        let samples = [
            sample(0, FloorBroadcast, 100.0, None),
            sample(0, OursBroadcast, 75.0, Some(1.0)),
            sample(1, FloorBroadcast, 1000.0, None),
            sample(1, OursBroadcast, 770.0, Some(1.0)),
        ];
        let rows = rows_of(&args(), &samples);
        assert!(rows[0].verdicts.is_empty() && rows[0].frames_each.is_none());
        let met = ["met: deliveries/s 0.76 >= 0.70 of floor-broadcast", "met: 1.00 = 1 frame per broadcast"];
        assert_eq!(rows[1].verdicts, met);
        assert_eq!(rows[1].server_us_by_node, [("net".to_owned(), 10.0)]);
        assert_eq!(table(&rows).lines().count(), 4);
        assert_eq!(frames_verdict(2.0), "MISSED: 2.00 = 1 frame per broadcast");
    }

    #[test]
    fn the_defaults_are_the_issues() {
        let args = args();
        assert_eq!((args.conns, args.body, args.rounds.runs), (1000, 64, 5));
    }
}

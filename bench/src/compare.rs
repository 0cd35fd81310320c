//! `bench compare`: which system is measured when, and what the samples add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::cli::{CompareArgs, Point, Spin};
use crate::load::{self, Outcome, Plan};
use crate::machine::{self, Spinners};
use crate::report::{self, Column};
use crate::stats;
use crate::system::{self, Running, System};
use crate::targets::{self, Measure};

/// How often a sample that other work disturbed is taken again.
const RETAKES: usize = 2;
/// How long that other work may take to end.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);

/// One system at one point in one run.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    run: usize,
    body: usize,
    point: Point,
    system: System,
    spin: bool,
    /// Other work used more of the machine than `--quiet`.
    disturbed: bool,
    nodes: Vec<String>,
    outcome: Outcome,
}

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for run in 0..args.runs {
        let _lock = machine::lock_machine()?;
        let systems = system::start_all(&args.common)?;
        for &body in &args.bodies {
            for &point in &args.points {
                measure_point(args, run, body, point, &systems, &mut samples)?;
            }
        }
    }
    let rows = rows_of(&samples);
    println!("{}", table(&rows));
    report::write_json(args.common.json.as_deref(), &samples, &rows)
}

/// Every system once; another one goes first in each run.
fn measure_point(
    args: &CompareArgs,
    run: usize,
    body: usize,
    point: Point,
    systems: &[Running],
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let spin = match args.spin {
        Spin::Auto => point.conns == 1,
        Spin::Always => true,
        Spin::Never => false,
    };
    let _spinners = spin.then(Spinners::start);
    let plan = Plan { point, body, rate: None, secs: args.secs, warm: args.warm };
    for at in 0..systems.len() {
        let running = &systems[(at + run) % systems.len()];
        let mut retakes = 0;
        let (outcome, disturbed) = loop {
            let outcome = load::measure(running, &plan)?;
            let disturbed = outcome.other_cores > args.quiet;
            if !disturbed || retakes == RETAKES {
                break (outcome, disturbed);
            }
            retakes += 1;
            machine::wait_for_quiet(args.quiet, QUIET_PATIENCE)?;
        };
        let nodes = running.nodes.iter().map(|node| node.name.clone()).collect();
        let sample = Sample { run, body, point, system: running.system, spin, disturbed, nodes, outcome };
        eprintln!("{}", progress(&sample, args.runs));
        samples.push(sample);
    }
    Ok(())
}

fn progress(sample: &Sample, runs: usize) -> String {
    let o = &sample.outcome;
    let mut line = format!(
        "run {}/{runs} {:>9} {:>4} B {:<19} {:>9.0}/s  p50 {:>7.3} p99 {:>7.3} ms  cpu {:>6.2} us  load {:>5.2} us",
        sample.run + 1,
        sample.point,
        sample.body,
        sample.system,
        o.per_sec,
        o.p50_us / 1e3,
        o.p99_us / 1e3,
        o.server_us_per_answer(),
        o.load_cpu_s * 1e6 / o.answers.max(1) as f64,
    );
    line.push_str(&format!("  others {:.2} steal {:.2}", o.other_cores, o.steal_cores));
    if sample.disturbed {
        line.push_str(" DISTURBED");
    }
    if let Some(fault) = o.fault() {
        line.push_str(&format!(" FAULT: {fault}"));
    }
    line
}

/// A median with the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// What the samples of one system at one point add up to.
#[derive(Debug, Clone, Serialize)]
struct Row {
    body: usize,
    point: Point,
    system: System,
    spin: bool,
    runs: usize,
    disturbed: usize,
    per_sec: Spread,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_us: Spread,
    /// The same by process, medians.
    server_us_by_node: Vec<(String, f64)>,
    /// Medians of the ratios within a run, by the system in the denominator.
    rate_ratio: BTreeMap<System, f64>,
    server_ratio: BTreeMap<System, f64>,
    verdicts: Vec<String>,
    faults: Vec<String>,
}

/// One row per body, point and system, in the order of the first run.
fn rows_of(samples: &[Sample]) -> Vec<Row> {
    let mut keys: Vec<(usize, Point, System)> = Vec::new();
    for sample in samples {
        let key = (sample.body, sample.point, sample.system);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| row_of(key, samples)).collect()
}

fn row_of((body, point, system): (usize, Point, System), samples: &[Sample]) -> Row {
    let here: Vec<&Sample> = samples.iter().filter(|s| s.body == body && s.point == point).collect();
    let own: Vec<&Sample> = here.iter().copied().filter(|s| s.system == system).collect();
    let median = |value: fn(&Outcome) -> f64| stats::median(own.iter().map(|s| value(&s.outcome)));
    let spread = |value: fn(&Outcome) -> f64| {
        let (min, max) = stats::range(own.iter().map(|s| value(&s.outcome))).unwrap_or_default();
        Spread { median: median(value).unwrap_or_default(), min, max }
    };
    let ratios = |value: fn(&Outcome) -> f64| -> BTreeMap<System, f64> {
        let others = here.iter().map(|s| s.system).filter(|s| *s != system);
        others.filter_map(|other| Some((other, paired_ratio(&own, &here, other, value)?))).collect()
    };
    let (rate_ratio, server_ratio) = (ratios(|o| o.per_sec), ratios(Outcome::server_us_per_answer));
    let verdict = |target: targets::Target| {
        let ratios = match target.measure {
            Measure::Rate => &rate_ratio,
            Measure::Cpu => &server_ratio,
        };
        target.verdict(ratios.get(&target.against).copied())
    };
    Row {
        body,
        point,
        system,
        spin: own.iter().any(|s| s.spin),
        runs: own.len(),
        disturbed: own.iter().filter(|s| s.disturbed).count(),
        per_sec: spread(|o| o.per_sec),
        p50_us: median(|o| o.p50_us).unwrap_or_default(),
        p99_us: median(|o| o.p99_us).unwrap_or_default(),
        p999_us: median(|o| o.p999_us).unwrap_or_default(),
        server_us: spread(Outcome::server_us_per_answer),
        server_us_by_node: by_node(&own),
        verdicts: targets::at(system, point).into_iter().map(verdict).collect(),
        faults: own.iter().filter_map(|s| s.outcome.fault()).collect(),
        rate_ratio,
        server_ratio,
    }
}

/// Median over the runs of own / other, both from the same run.
fn paired_ratio(own: &[&Sample], here: &[&Sample], other: System, value: fn(&Outcome) -> f64) -> Option<f64> {
    let ratio = |sample: &&Sample| {
        let pair = here.iter().find(|s| s.system == other && s.run == sample.run)?;
        let below = value(&pair.outcome);
        (below > 0.0).then(|| value(&sample.outcome) / below)
    };
    stats::median(own.iter().filter_map(ratio))
}

fn by_node(own: &[&Sample]) -> Vec<(String, f64)> {
    let Some(first) = own.first() else { return vec![] };
    let us = |sample: &&Sample, at: usize| {
        let seconds = sample.outcome.server_cpu_s.get(at).copied().unwrap_or_default();
        seconds * 1e6 / sample.outcome.answers.max(1) as f64
    };
    let node = |(at, name): (usize, &String)| {
        (name.clone(), stats::median(own.iter().map(|s| us(s, at))).unwrap_or_default())
    };
    first.nodes.iter().enumerate().map(node).collect()
}

fn table(rows: &[Row]) -> String {
    let ms = |us: f64| format!("{:.3}", us / 1e3);
    let times = |ratios: &BTreeMap<System, f64>, to: System| {
        ratios.get(&to).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let columns: [Column<Row>; 13] = [
        ("point", Box::new(|r| format!("{}{}", r.point, if r.spin { " spin" } else { "" }))),
        ("body", Box::new(|r| r.body.to_string())),
        ("system", Box::new(|r| r.system.to_string())),
        ("runs", Box::new(|r| report::runs(r.runs, r.disturbed))),
        ("req/s", Box::new(|r| report::thousands(r.per_sec.median))),
        (
            "min-max",
            Box::new(|r| {
                format!("{}-{}", report::thousands(r.per_sec.min), report::thousands(r.per_sec.max))
            }),
        ),
        ("x epoll", Box::new(move |r| times(&r.rate_ratio, System::FloorEpoll))),
        ("x tokio", Box::new(move |r| times(&r.rate_ratio, System::FloorTokioCtTask))),
        (
            "p50/p99/p99.9 ms",
            Box::new(move |r| format!("{} / {} / {}", ms(r.p50_us), ms(r.p99_us), ms(r.p999_us))),
        ),
        (
            "server CPU us/req",
            Box::new(|r| {
                format!("{:.2} ({:.2}-{:.2})", r.server_us.median, r.server_us.min, r.server_us.max)
            }),
        ),
        (
            "by process",
            Box::new(|r| {
                let parts: Vec<_> =
                    r.server_us_by_node.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
                parts.join(", ")
            }),
        ),
        ("CPU x epoll", Box::new(move |r| times(&r.server_ratio, System::FloorEpoll))),
        ("verdict", Box::new(|r| report::verdict(&r.verdicts, &r.faults))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(run: usize, system: System, per_sec: f64, cpu_s: f64) -> Sample {
        let outcome =
            Outcome { per_sec, answers: 1_000_000, server_cpu_s: vec![cpu_s, cpu_s], ..Outcome::default() };
        let point = Point { conns: 100, pipe: 1 };
        let nodes = vec!["net".to_owned(), "gate".to_owned()];
        Sample { run, body: 64, point, system, spin: false, disturbed: run == 2, nodes, outcome }
    }

    fn samples() -> Vec<Sample> {
        use System::{FloorEpoll, OursForward};
        // The machine is twice as slow in the second run: the ratio of medians would say 0.9, too.
        vec![
            sample(0, FloorEpoll, 100.0, 5.0),
            sample(0, OursForward, 90.0, 6.0),
            sample(1, OursForward, 40.0, 14.0),
            sample(1, FloorEpoll, 50.0, 10.0),
            sample(2, FloorEpoll, 100.0, 5.0),
            sample(2, OursForward, 95.0, 6.0),
        ]
    }

    #[test]
    fn ratios_are_medians_of_pairs() {
        let rows = rows_of(&samples());
        let ours = rows.iter().find(|r| r.system == System::OursForward).unwrap();
        assert_eq!(ours.rate_ratio[&System::FloorEpoll], 0.9);
        assert_eq!(ours.server_ratio[&System::FloorEpoll], 1.2);
        assert_eq!(ours.per_sec, Spread { median: 90.0, min: 40.0, max: 95.0 });
        assert_eq!((ours.runs, ours.disturbed), (3, 1));
        assert_eq!(ours.server_us_by_node, [("net".to_owned(), 6.0), ("gate".to_owned(), 6.0)]);
    }

    #[test]
    fn the_table_has_a_row_per_system_with_its_verdict() {
        let text = table(&rows_of(&samples()));
        assert_eq!(text.lines().count(), 4);
        let ours = text.lines().find(|line| line.contains("ours-forward")).unwrap();
        assert!(ours.contains("met: req/s 0.90 >= 0.80 of floor-epoll"), "{ours}");
        assert!(ours.contains("met: CPU 1.20 <= 1.30 of floor-epoll"), "{ours}");
    }

    #[test]
    fn a_fault_is_no_verdict() {
        let mut samples = samples();
        samples[1].outcome.errors = 3;
        let text = table(&rows_of(&samples));
        assert!(text.contains("FAULT in 1 run: 3 error frames"), "{text}");
    }
}

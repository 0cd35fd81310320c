//! `bench compare`: which system is measured when, and what the samples add up to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::{CompareArgs, Point, Rounds};
use crate::load::{Outcome, Plan, Way};
use crate::machine::Spinners;
use crate::report::{self, Column};
use crate::stats::Spread;
use crate::system::System;
use crate::taken::{self, Group, Taken};
use crate::targets::{self, Measure};
use crate::turns::{self, Run};

/// One system at one point in one run.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    body: usize,
    point: Point,
    spin: bool,
    #[serde(flatten)]
    taken: Taken,
}

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let samples = turns::each_run(args.rounds.runs, &args.which.systems, &args.common, |run| {
        let mut samples = Vec::new();
        for &body in &args.bodies {
            for &point in &args.points {
                samples.extend(measure_point(args, run, body, point)?);
            }
        }
        Ok(samples)
    })?;
    let rows = rows_of(&samples);
    report::show(&table(&rows), &rows, &samples, args.common.json.as_deref())
}

fn measure_point(args: &CompareArgs, run: &Run, body: usize, point: Point) -> anyhow::Result<Vec<Sample>> {
    let spin = args.spin.spins(point.conns);
    let _spinners = spin.then(Spinners::start);
    let Rounds { secs, warm, .. } = args.rounds;
    let plan = Plan { way: Way::Closed { pipe: point.pipe }, conns: point.conns, body, secs, warm };
    run.in_turn(|running| {
        let taken = taken::take(running, &plan, run.number, &args.rounds)?;
        eprintln!("{}", taken.progress(args.rounds.runs, &format!("{point:>9} {body:>4} B")));
        Ok(Sample { body, point, spin, taken })
    })
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
        let key = (sample.body, sample.point, sample.taken.system);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| row_of(key, samples)).collect()
}

fn row_of((body, point, system): (usize, Point, System), samples: &[Sample]) -> Row {
    let here: Vec<&Sample> = samples.iter().filter(|s| s.body == body && s.point == point).collect();
    let spin = here.iter().any(|s| s.spin);
    let group = Group::of(here.iter().map(|s| &s.taken), system);
    let ratios = |value: fn(&Outcome) -> f64| -> BTreeMap<System, f64> {
        let others = group.all.iter().map(|s| s.system).filter(|s| *s != system);
        others.filter_map(|other| Some((other, group.ratio(other, value)?))).collect()
    };
    let (rate_ratio, server_ratio) = (ratios(|o| o.per_sec), ratios(Outcome::server_us_per_answer));
    let verdict = |target: targets::Target| {
        let ratios = match target.measure {
            Measure::Rate | Measure::Deliveries => &rate_ratio,
            Measure::Cpu => &server_ratio,
        };
        target.verdict(ratios.get(&target.against).copied())
    };
    Row {
        body,
        point,
        system,
        spin,
        runs: group.own.len(),
        disturbed: group.disturbed(),
        per_sec: group.spread(|o| o.per_sec),
        p50_us: group.median(|o| o.p50_us),
        p99_us: group.median(|o| o.p99_us),
        p999_us: group.median(|o| o.p999_us),
        server_us: group.spread(Outcome::server_us_per_answer),
        server_us_by_node: group.by_node(),
        verdicts: targets::at(system, point).into_iter().map(verdict).collect(),
        faults: group.faults(),
        rate_ratio,
        server_ratio,
    }
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
        ("min-max", Box::new(|r| r.per_sec.range_in_thousands())),
        ("x epoll", Box::new(move |r| times(&r.rate_ratio, System::FloorEpoll))),
        ("x tokio", Box::new(move |r| times(&r.rate_ratio, System::FloorTokioCtTask))),
        (
            "p50/p99/p99.9 ms",
            Box::new(move |r| format!("{} / {} / {}", ms(r.p50_us), ms(r.p99_us), ms(r.p999_us))),
        ),
        ("server CPU us/req", Box::new(|r| r.server_us.to_string())),
        ("by process", Box::new(|r| report::by_node(&r.server_us_by_node))),
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
        let taken = Taken { run, system, disturbed: run == 2, nodes, outcome };
        Sample { body: 64, point, spin: false, taken }
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
        samples[1].taken.outcome.errors = 3;
        let text = table(&rows_of(&samples));
        assert!(text.contains("FAULT in 1 run: 3 error frames"), "{text}");
    }
}

//! `bench compare`: which system is measured when, and what the samples add up to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::{CompareArgs, Ground, Point, Rounds};
use crate::load::{Outcome, Plan, Way};
use crate::machine::{self, Spinners};
use crate::releases;
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
    ground: Ground,
    spin: bool,
    #[serde(flatten)]
    taken: Taken,
}

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    if let Some(dir) = &args.against.against {
        return releases::compare(args, dir);
    }
    let samples = turns::each_run(args.rounds.runs, &args.which.systems, &args.common, |run| {
        let mut samples = Vec::new();
        for &body in &args.bodies {
            for &point in &args.points {
                for &ground in args.place.grounds(point) {
                    samples.extend(measure_point(args, run, &Setting::of(args, body, point, ground)?)?);
                }
            }
        }
        Ok(samples)
    })?;
    let rows = rows_of(&samples);
    report::show(&table(&rows), &rows, &samples, args.common.json.as_deref())
}

/// How a point is measured.
pub(crate) struct Setting {
    pub(crate) point: Point,
    pub(crate) ground: Ground,
    pub(crate) spin: bool,
    pub(crate) plan: Plan,
    /// How often in a run.
    pub(crate) times: usize,
}

impl Setting {
    pub(crate) fn of(args: &CompareArgs, body: usize, point: Point, ground: Ground) -> anyhow::Result<Self> {
        let cpu = match ground {
            Ground::Free => None,
            Ground::OneCpu => Some(machine::last_cpu()?),
        };
        // One processor that has all the work does not halt.
        let spin = cpu.is_none() && args.spin.spins(point.conns);
        let times = times(point, ground);
        let part = if times > 1 { SHORT } else { 1.0 };
        let Rounds { secs, warm, .. } = args.rounds;
        let (secs, warm) = (secs * part, warm * part);
        let plan = Plan { way: Way::Closed { pipe: point.pipe }, conns: point.conns, body, secs, warm, cpu };
        Ok(Self { point, ground, spin, plan, times })
    }

    /// Its spinners, as long as it is measured.
    pub(crate) fn spinners(&self) -> Option<Spinners> {
        self.spin.then(Spinners::start)
    }

    /// What the one who waits is told of it.
    pub(crate) fn what(&self) -> String {
        let place = if self.ground == Ground::OneCpu { "one cpu" } else { "" };
        format!("{:>9} {place:<7} {:>4} B", self.point, self.plan.body)
    }
}

fn measure_point(args: &CompareArgs, run: &Run, setting: &Setting) -> anyhow::Result<Vec<Sample>> {
    let &Setting { point, ground, spin, ref plan, times } = setting;
    let _spinners = setting.spinners();
    let mut samples = Vec::new();
    for number in run.number * times..(run.number + 1) * times {
        samples.extend(run.in_turn_from(number, |running| {
            let taken = taken::take(running, plan, number, &args.rounds)?;
            eprintln!("{}", taken.progress(args.rounds.runs * times, &setting.what()));
            Ok(Sample { body: plan.body, point, ground, spin, taken })
        })?);
    }
    Ok(samples)
}

/// How often a run measures a system at a point, with a new client each time. One request at a time is handed from process to
/// process, and where the scheduler has put them, the new client among them, is worth a factor of two for as long as
/// they live: many short samples are worth more than one long one.
fn times(point: Point, ground: Ground) -> usize {
    if (point.conns, point.pipe) == (1, 1) && ground == Ground::Free { 10 } else { 1 }
}

/// How long one of several samples is, as a part of one that is alone.
const SHORT: f64 = 0.25;

/// What the samples of one system at one point add up to.
#[derive(Debug, Clone, Serialize)]
struct Row {
    body: usize,
    point: Point,
    ground: Ground,
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

/// What a row is about.
type Key = (usize, Point, Ground, System);

/// One row per body, point, ground and system, in the order of the first run.
fn rows_of(samples: &[Sample]) -> Vec<Row> {
    let mut keys: Vec<Key> = Vec::new();
    for sample in samples {
        let key = (sample.body, sample.point, sample.ground, sample.taken.system);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| row_of(key, samples)).collect()
}

fn row_of((body, point, ground, system): Key, samples: &[Sample]) -> Row {
    let same = |s: &&Sample| (s.body, s.point, s.ground) == (body, point, ground);
    let here: Vec<&Sample> = samples.iter().filter(same).collect();
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
        ground,
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

/// Under which conditions beside the point, for the table.
pub(crate) fn how(ground: Ground, spin: bool) -> &'static str {
    match (ground, spin) {
        (Ground::OneCpu, _) => " one cpu",
        (Ground::Free, true) => " spin",
        (Ground::Free, false) => "",
    }
}

fn table(rows: &[Row]) -> String {
    let ms = |us: f64| format!("{:.3}", us / 1e3);
    let times = |ratios: &BTreeMap<System, f64>, to: System| {
        ratios.get(&to).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let columns: [Column<Row>; 13] = [
        ("point", Box::new(|r| format!("{}{}", r.point, how(r.ground, r.spin)))),
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
        Sample { body: 64, point, ground: Ground::Free, spin: false, taken }
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
    fn what_was_measured_on_one_processor_is_a_row_of_its_own() {
        let mut samples = samples();
        let pinned = samples.clone().into_iter().map(|s| Sample { ground: Ground::OneCpu, ..s });
        samples.extend(pinned);
        let text = table(&rows_of(&samples));
        assert_eq!(text.lines().count(), 6);
        assert_eq!(text.matches("(100,1) one cpu").count(), 2, "{text}");
    }

    #[test]
    fn a_fault_is_no_verdict() {
        let mut samples = samples();
        samples[1].taken.outcome.errors = 3;
        let text = table(&rows_of(&samples));
        assert!(text.contains("FAULT in 1 run: 3 error frames"), "{text}");
    }
}

//! `bench compare --against` and `bench idle --against`: the programs of two releases on one machine in turn, the ratios of the
//! new one to the old one, and whether they are good enough.

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use crate::cli::{Against, Common, CompareArgs, Ground, Point};
use crate::compare::{self, Setting};
use crate::load::Outcome;
use crate::machine;
use crate::report::{self, Column};
use crate::stats::{self, Spread};
use crate::system::{self, Running, System};
use crate::taken::{self, Taken};

/// Whose programs run a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Release {
    /// Those of `--against`.
    Old,
    /// Those of `--bin-dir`.
    New,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

impl Release {
    /// Starts systems with the programs of this release.
    pub(crate) fn start(
        self,
        systems: &[System],
        common: &Common,
        against: &Path,
    ) -> anyhow::Result<Vec<Running>> {
        match self {
            Self::New => system::start_all(systems, common),
            Self::Old => {
                system::start_all(systems, &Common { bin_dir: Some(against.to_owned()), ..common.clone() })
            }
        }
    }
}

/// The systems that a release has programs of.
pub(crate) fn ours(systems: &[System]) -> anyhow::Result<Vec<System>> {
    let ours: Vec<System> = systems.iter().copied().filter(|system| system.is_ours()).collect();
    ensure!(!ours.is_empty(), "a release has no floor: name systems of ours");
    Ok(ours)
}

/// Ratios new / old that are good enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    within: f64,
}

impl Bounds {
    pub(crate) fn of(against: &Against) -> Self {
        Self { within: against.within / 100.0 }
    }

    /// `met: req/s 1.02 >= 0.95 of old`; of what there should be much.
    fn at_least(self, what: &str, ratio: Option<f64>) -> String {
        let bound = 1.0 - self.within;
        verdict(ratio, |ratio| ratio >= bound, &format!("{what} RATIO >= {bound:.2} of old"))
    }

    /// The same of what there should be little.
    pub(crate) fn at_most(self, what: &str, ratio: Option<f64>) -> String {
        let bound = 1.0 + self.within;
        verdict(ratio, |ratio| ratio <= bound, &format!("{what} RATIO <= {bound:.2} of old"))
    }
}

fn verdict(ratio: Option<f64>, holds: impl Fn(f64) -> bool, what: &str) -> String {
    let word = if ratio.is_some_and(holds) { MET } else { MISSED };
    let ratio = ratio.map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.3}"));
    format!("{word}: {}", what.replace("RATIO", &ratio))
}

const MET: &str = "met";
const MISSED: &str = "MISSED";

/// Fails when one of the verdicts is not met: for the exit code.
pub(crate) fn all_met<'a>(verdicts: impl Iterator<Item = &'a String> + Clone) -> anyhow::Result<()> {
    let missed = verdicts.clone().filter(|verdict| !verdict.starts_with(MET)).count();
    ensure!(missed == 0, "{missed} of {} bounds are missed", verdicts.count());
    Ok(())
}

/// The ratio of two numbers; none over zero.
pub(crate) fn ratio(new: f64, old: f64) -> Option<f64> {
    (old > 0.0).then(|| new / old)
}

/// One system at one point by both releases, one right after the other.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    body: usize,
    point: Point,
    ground: Ground,
    spin: bool,
    old: Taken,
    new: Taken,
}

pub(crate) fn compare(args: &CompareArgs, against: &Path) -> anyhow::Result<()> {
    let systems = ours(&args.which.systems)?;
    let mut pairs = Vec::new();
    for run in 0..args.rounds.runs {
        let _lock = machine::lock_machine()?;
        let old = Release::Old.start(&systems, &args.common, against)?;
        let new = Release::New.start(&systems, &args.common, against)?;
        for &body in &args.bodies {
            for &point in &args.points {
                for &ground in args.place.grounds(point) {
                    let setting = Setting::of(args, body, point, ground)?;
                    let _spinners = setting.spinners();
                    for both in old.iter().zip(&new) {
                        pairs.extend(measure(args, run, &setting, both)?);
                    }
                }
            }
        }
    }
    let rows = rows_of(&pairs, Bounds::of(&args.against));
    report::show(&table(&rows), &rows, &pairs, args.common.json.as_deref())?;
    let faulty = rows.iter().filter(|row| !row.faults.is_empty()).count();
    ensure!(faulty == 0, "{faulty} rows have faults");
    all_met(rows.iter().flat_map(|row| &row.verdicts))
}

/// One system in one run, as often as its setting says; who is first alternates.
fn measure(
    args: &CompareArgs,
    run: usize,
    setting: &Setting,
    (old, new): (&Running, &Running),
) -> anyhow::Result<Vec<Pair>> {
    let &Setting { point, ground, spin, ref plan, times } = setting;
    let take = |number: usize, release: Release| {
        let running = if release == Release::Old { old } else { new };
        let taken = taken::take(running, plan, number, &args.rounds)?;
        eprintln!("{}", taken.progress(args.rounds.runs * times, &format!("{} {release}", setting.what())));
        anyhow::Ok(taken)
    };
    let pair = |number: usize| {
        let (old, new) = if number.is_multiple_of(2) {
            let old = take(number, Release::Old)?;
            (old, take(number, Release::New)?)
        } else {
            let new = take(number, Release::New)?;
            (take(number, Release::Old)?, new)
        };
        Ok(Pair { body: plan.body, point, ground, spin, old, new })
    };
    (run * times..(run + 1) * times).map(pair).collect()
}

/// What the pairs of one system at one point add up to.
#[derive(Debug, Clone, Serialize)]
struct Row {
    body: usize,
    point: Point,
    ground: Ground,
    spin: bool,
    system: System,
    pairs: usize,
    disturbed: usize,
    /// Medians.
    old_per_sec: f64,
    new_per_sec: f64,
    old_server_us: f64,
    new_server_us: f64,
    /// Ratios within the pairs.
    rate_ratio: Spread,
    server_ratio: Spread,
    p99_ratio: Spread,
    verdicts: Vec<String>,
    faults: Vec<String>,
}

/// One row per body, point, ground and system, in the order of the first run.
fn rows_of(pairs: &[Pair], bounds: Bounds) -> Vec<Row> {
    let key = |pair: &Pair| (pair.body, pair.point, pair.ground, pair.new.system);
    let mut keys = Vec::new();
    for pair in pairs {
        if !keys.contains(&key(pair)) {
            keys.push(key(pair));
        }
    }
    let of = |wanted| pairs.iter().filter(|pair| key(pair) == wanted).collect::<Vec<_>>();
    keys.into_iter().filter_map(|wanted| row_of(&of(wanted), bounds)).collect()
}

fn row_of(pairs: &[&Pair], bounds: Bounds) -> Option<Row> {
    let &&Pair { body, point, ground, spin, ref new, .. } = pairs.first()?;
    let median = |taken: fn(&Pair) -> &Taken, value: fn(&Outcome) -> f64| {
        stats::median(pairs.iter().map(|pair| value(&taken(pair).outcome))).unwrap_or_default()
    };
    let ratios = |value: fn(&Outcome) -> f64| {
        let each = |pair: &&Pair| ratio(value(&pair.new.outcome), value(&pair.old.outcome));
        pairs.iter().filter_map(each).collect::<Vec<f64>>()
    };
    let (rates, server) = (ratios(|o| o.per_sec), ratios(Outcome::server_us_per_answer));
    let both = || pairs.iter().flat_map(|pair| [(Release::Old, &pair.old), (Release::New, &pair.new)]);
    let fault = |(release, taken): (Release, &Taken)| Some(format!("{release}: {}", taken.outcome.fault()?));
    Some(Row {
        body,
        point,
        ground,
        spin,
        system: new.system,
        pairs: pairs.len(),
        disturbed: pairs.iter().filter(|pair| pair.old.disturbed || pair.new.disturbed).count(),
        old_per_sec: median(|pair| &pair.old, |o| o.per_sec),
        new_per_sec: median(|pair| &pair.new, |o| o.per_sec),
        old_server_us: median(|pair| &pair.old, Outcome::server_us_per_answer),
        new_server_us: median(|pair| &pair.new, Outcome::server_us_per_answer),
        verdicts: vec![
            bounds.at_least("req/s", stats::median(rates.iter().copied())),
            bounds.at_most("CPU", stats::median(server.iter().copied())),
        ],
        rate_ratio: Spread::of(rates),
        server_ratio: Spread::of(server),
        p99_ratio: Spread::of(ratios(|o| o.p99_us)),
        faults: both().filter_map(fault).collect(),
    })
}

fn table(rows: &[Row]) -> String {
    let columns: [Column<Row>; 11] = [
        ("point", Box::new(|r| format!("{}{}", r.point, compare::how(r.ground, r.spin)))),
        ("body", Box::new(|r| r.body.to_string())),
        ("system", Box::new(|r| r.system.to_string())),
        ("pairs", Box::new(|r| report::runs(r.pairs, r.disturbed))),
        ("old req/s", Box::new(|r| report::thousands(r.old_per_sec))),
        ("new req/s", Box::new(|r| report::thousands(r.new_per_sec))),
        ("req/s new/old", Box::new(|r| r.rate_ratio.to_string())),
        ("CPU us/req old, new", Box::new(|r| format!("{:.2}, {:.2}", r.old_server_us, r.new_server_us))),
        ("CPU new/old", Box::new(|r| r.server_ratio.to_string())),
        ("p99 new/old", Box::new(|r| format!("{:.2}", r.p99_ratio.median))),
        ("verdict", Box::new(|r| report::verdict(&r.verdicts, &r.faults))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Bounds = Bounds { within: 0.05 };

    fn taken(run: usize, per_sec: f64, cpu_s: f64) -> Taken {
        let outcome =
            Outcome { per_sec, answers: 1_000_000, server_cpu_s: vec![cpu_s], ..Outcome::default() };
        let nodes = vec!["net".to_owned()];
        Taken { run, system: System::OursForward, disturbed: false, nodes, outcome }
    }

    fn pair(run: usize, old: (f64, f64), new: (f64, f64)) -> Pair {
        let [old, new] = [old, new].map(|(per_sec, cpu_s)| taken(run, per_sec, cpu_s));
        let point = Point { conns: 100, pipe: 1 };
        Pair { body: 64, point, ground: Ground::Free, spin: false, old, new }
    }

    /// The machine is twice as slow in the second run.
    fn pairs() -> Vec<Pair> {
        vec![
            pair(0, (100.0, 5.0), (98.0, 5.5)),
            pair(1, (50.0, 10.0), (48.0, 10.0)),
            pair(2, (100.0, 5.0), (120.0, 5.4)),
        ]
    }

    #[test]
    fn ratios_are_medians_of_pairs_and_have_a_verdict_each() {
        let rows = rows_of(&pairs(), FIVE);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.rate_ratio, Spread { median: 0.98, min: 0.96, max: 1.2 });
        assert_eq!((row.pairs, row.old_per_sec, row.new_per_sec), (3, 100.0, 98.0));
        let verdicts = ["met: req/s 0.980 >= 0.95 of old", "MISSED: CPU 1.080 <= 1.05 of old"];
        assert_eq!(row.verdicts, verdicts);
        assert!(all_met(row.verdicts[..1].iter()).is_ok());
        let missed = all_met(row.verdicts.iter()).unwrap_err();
        assert_eq!(missed.to_string(), "1 of 2 bounds are missed");
    }

    #[test]
    fn better_is_good_enough_and_nothing_at_all_is_not() {
        assert_eq!(FIVE.at_least("req/s", Some(3.0)), "met: req/s 3.000 >= 0.95 of old");
        assert_eq!(FIVE.at_most("RSS", Some(0.2)), "met: RSS 0.200 <= 1.05 of old");
        assert_eq!(FIVE.at_most("RSS", ratio(1.0, 0.0)), "MISSED: RSS ? <= 1.05 of old");
    }

    #[test]
    fn a_point_on_one_processor_is_a_row_of_its_own_and_a_fault_says_whose_it_is() {
        let mut all = pairs();
        all[1].new.outcome.errors = 2;
        all.extend(pairs().into_iter().map(|pair| Pair { ground: Ground::OneCpu, ..pair }));
        let text = table(&rows_of(&all, FIVE));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("FAULT in 1 run: new: 2 error frames"), "{text}");
        assert!(text.contains("(100,1) one cpu") && text.contains("0.98 (0.96-1.20)"), "{text}");
    }

    #[test]
    fn floors_belong_to_no_release() {
        let systems = [System::FloorEpoll, System::OursForward, System::OursHandler];
        assert_eq!(ours(&systems).unwrap(), systems[1..]);
        assert!(ours(&systems[..1]).is_err());
    }
}

//! `bench open`: latency at a fixed rate, the same for every system, from the intended moment of sending.

use serde::Serialize;

use crate::cli::OpenArgs;
use crate::load::{self, Outcome, Plan, Way};
use crate::report::{self, Column};
use crate::stats;
use crate::system::{Running, System};
use crate::targets::OPEN_P99_MAX;
use crate::turns;

#[derive(Debug, Clone, Serialize)]
struct Sample {
    run: usize,
    system: System,
    rate: f64,
    outcome: Outcome,
}

pub(crate) fn run(args: &OpenArgs) -> anyhow::Result<()> {
    let mut rate = args.rate;
    let samples = turns::each_run(args.runs, &args.which.systems, &args.common, |run| {
        let rate = match rate {
            Some(rate) => rate,
            None => *rate.insert(args.share * lowest_capacity(args, run.systems())?),
        };
        run.in_turn(|running| {
            let outcome = load::measure(running, &plan(args, Some(rate)))?;
            eprintln!("{}", progress(run.number, args.runs, rate, running.system, &outcome));
            Ok(Sample { run: run.number, system: running.system, rate, outcome })
        })
    })?;
    let rows: Vec<Row> = args.which.systems.iter().map(|&system| row_of(system, &samples)).collect();
    report::show(&table(&rows), &rows, &samples, args.common.json.as_deref())
}

fn plan(args: &OpenArgs, rate: Option<f64>) -> Plan {
    let way = rate.map_or(Way::Closed { pipe: 1 }, |rate| Way::Open { rate });
    Plan { way, conns: args.conns, body: args.body, secs: args.secs, warm: args.warm, cpu: None }
}

/// What the slowest of the systems does in a closed loop of one request per connection. Deeper pipelines
/// do far more, but only because requests then come in batches, which those of an open loop do not.
fn lowest_capacity(args: &OpenArgs, systems: &[Running]) -> anyhow::Result<f64> {
    let mut lowest = f64::INFINITY;
    for running in systems {
        let outcome = load::measure(running, &Plan { secs: 1.0, ..plan(args, None) })?;
        eprintln!("capacity of {}: {}/s", running.system, report::thousands(outcome.per_sec));
        anyhow::ensure!(
            outcome.per_sec > 0.0,
            "{} does not answer: {}",
            running.system,
            outcome.fault().unwrap_or_default()
        );
        lowest = lowest.min(outcome.per_sec);
    }
    Ok(lowest)
}

fn progress(run: usize, runs: usize, rate: f64, system: System, o: &Outcome) -> String {
    format!(
        "run {}/{runs} {rate:.0}/s {system:<19} p50 {:>7.3} p99 {:>7.3} p99.9 {:>7.3} ms  cpu {:>6.2} us  client late <= {:.3} ms  others {:.2} steal {:.2}{}",
        run + 1,
        o.p50_us / 1e3,
        o.p99_us / 1e3,
        o.p999_us / 1e3,
        o.server_us_per_answer(),
        o.late_us_max / 1e3,
        o.other_cores,
        o.steal_cores,
        o.fault().map(|fault| format!(" FAULT: {fault}")).unwrap_or_default(),
    )
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    system: System,
    runs: usize,
    rate: f64,
    per_sec: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    server_us: f64,
    late_us_max: f64,
    /// Median over the runs of p99 / floor-epoll's p99.
    p99_ratio: Option<f64>,
    verdicts: Vec<String>,
    faults: Vec<String>,
}

fn row_of(system: System, samples: &[Sample]) -> Row {
    let own: Vec<&Sample> = samples.iter().filter(|s| s.system == system).collect();
    let median =
        |value: fn(&Outcome) -> f64| stats::median(own.iter().map(|s| value(&s.outcome))).unwrap_or_default();
    let p99_ratio = stats::median(own.iter().filter_map(|sample| {
        let floor = samples.iter().find(|s| s.system == System::FloorEpoll && s.run == sample.run)?;
        (floor.outcome.p99_us > 0.0).then(|| sample.outcome.p99_us / floor.outcome.p99_us)
    }));
    Row {
        system,
        runs: own.len(),
        rate: own.first().map_or(0.0, |s| s.rate),
        per_sec: median(|o| o.per_sec),
        p50_us: median(|o| o.p50_us),
        p99_us: median(|o| o.p99_us),
        p999_us: median(|o| o.p999_us),
        max_us: median(|o| o.max_us),
        server_us: median(Outcome::server_us_per_answer),
        late_us_max: median(|o| o.late_us_max),
        verdicts: p99_ratio.filter(|_| system.is_ours()).map(verdict).into_iter().collect(),
        p99_ratio,
        faults: own.iter().filter_map(|s| s.outcome.fault()).collect(),
    }
}

fn verdict(ratio: f64) -> String {
    let word = if ratio <= OPEN_P99_MAX { "met" } else { "MISSED" };
    format!("{word}: p99 {ratio:.2} <= {OPEN_P99_MAX:.2} of floor-epoll")
}

fn table(rows: &[Row]) -> String {
    let ms = |us: f64| format!("{:.3}", us / 1e3);
    let columns: [Column<Row>; 12] = [
        ("system", Box::new(|r| r.system.to_string())),
        ("runs", Box::new(|r| r.runs.to_string())),
        ("asked/s", Box::new(|r| report::thousands(r.rate))),
        ("answered/s", Box::new(|r| report::thousands(r.per_sec))),
        ("p50 ms", Box::new(move |r| ms(r.p50_us))),
        ("p99 ms", Box::new(move |r| ms(r.p99_us))),
        ("p99.9 ms", Box::new(move |r| ms(r.p999_us))),
        ("max ms", Box::new(move |r| ms(r.max_us))),
        ("server CPU us/req", Box::new(|r| format!("{:.2}", r.server_us))),
        ("client late ms", Box::new(move |r| ms(r.late_us_max))),
        ("p99 x epoll", Box::new(|r| r.p99_ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")))),
        ("verdict", Box::new(|r| report::verdict(&r.verdicts, &r.faults))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(run: usize, system: System, p99_us: f64) -> Sample {
        Sample { run, system, rate: 1000.0, outcome: Outcome { p99_us, ..Outcome::default() } }
    }

    #[test]
    fn p99_is_compared_within_a_run() {
        use System::{FloorEpoll, OursForward};
        let samples = [
            sample(0, FloorEpoll, 100.0),
            sample(0, OursForward, 250.0),
            sample(1, FloorEpoll, 1000.0),
            sample(1, OursForward, 2500.0),
        ];
        assert_eq!(row_of(OursForward, &samples).verdicts, ["met: p99 2.50 <= 3.00 of floor-epoll"]);
        assert!(row_of(FloorEpoll, &samples).verdicts.is_empty());
        assert!(row_of(OursForward, &samples[1..2]).verdicts.is_empty(), "no floor, no verdict");
        assert_eq!(verdict(3.1), "MISSED: p99 3.10 <= 3.00 of floor-epoll");
    }
}

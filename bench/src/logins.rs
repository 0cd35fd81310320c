//! `bench logins`: clients that connect, log in, ask some times and leave, again and again.

use serde::Serialize;

use crate::cli::{LoginsArgs, Rounds};
use crate::load::{Outcome, Plan, Way};
use crate::report::{self, Column};
use crate::stats::Spread;
use crate::system::System;
use crate::taken::{self, Group, Taken};
use crate::turns;

const SYSTEMS: [System; 3] = [System::FloorEpoll, System::OursForward, System::OursLogin];

pub(crate) fn run(args: &LoginsArgs) -> anyhow::Result<()> {
    let Rounds { secs, warm, runs, .. } = args.rounds;
    let way = Way::Cycles { requests: args.requests };
    let plan = Plan { way, conns: args.conns as usize, body: args.body, secs, warm, cpu: None };
    let samples = turns::each_run(runs, &SYSTEMS, &args.common, |run| {
        run.in_turn(|running| {
            let taken = taken::take(running, &plan, run.number, &args.rounds)?;
            eprintln!("{}", taken.progress(runs, &format!("{} clients", args.conns)));
            Ok(taken)
        })
    })?;
    let rows = SYSTEMS.map(|system| row_of(args, system, &samples));
    report::show(&table(&rows), &rows, &samples, args.common.json.as_deref())
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    system: System,
    conns: u32,
    body: usize,
    /// What a client sends between its connecting and its leaving.
    messages: String,
    runs: usize,
    disturbed: usize,
    /// Cycles per second.
    per_sec: Spread,
    /// Of a whole cycle.
    p50_us: f64,
    p99_us: f64,
    /// CPU of all processes per cycle.
    server_us: Spread,
    server_us_by_node: Vec<(String, f64)>,
    /// Medians of the ratios within a run.
    rate_to_floor: Option<f64>,
    server_to_floor: Option<f64>,
    server_to_forward: Option<f64>,
    faults: Vec<String>,
}

fn row_of(args: &LoginsArgs, system: System, samples: &[Taken]) -> Row {
    let group = Group::of(samples.iter(), system);
    let other = |other: System, value: fn(&Outcome) -> f64| {
        (other != system).then(|| group.ratio(other, value)).flatten()
    };
    let messages = match system.login() {
        Some(_) => format!("login + {}", args.requests),
        None => (args.requests + 1).to_string(),
    };
    Row {
        system,
        conns: args.conns,
        body: args.body,
        messages,
        runs: group.own.len(),
        disturbed: group.disturbed(),
        per_sec: group.spread(|o| o.per_sec),
        p50_us: group.median(|o| o.p50_us),
        p99_us: group.median(|o| o.p99_us),
        server_us: group.spread(Outcome::server_us_per_answer),
        server_us_by_node: group.by_node(),
        rate_to_floor: other(System::FloorEpoll, |o| o.per_sec),
        server_to_floor: other(System::FloorEpoll, Outcome::server_us_per_answer),
        server_to_forward: other(System::OursForward, Outcome::server_us_per_answer),
        faults: group.faults(),
    }
}

fn table(rows: &[Row]) -> String {
    let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let columns: [Column<Row>; 13] = [
        ("clients", Box::new(|r| r.conns.to_string())),
        ("body", Box::new(|r| r.body.to_string())),
        ("messages", Box::new(|r| r.messages.clone())),
        ("system", Box::new(|r| r.system.to_string())),
        ("runs", Box::new(|r| report::runs(r.runs, r.disturbed))),
        ("cycles/s", Box::new(|r| report::thousands(r.per_sec.median))),
        ("min-max", Box::new(|r| r.per_sec.range_in_thousands())),
        ("x epoll", Box::new(move |r| times(r.rate_to_floor))),
        ("a cycle p50/p99 ms", Box::new(|r| format!("{:.2} / {:.2}", r.p50_us / 1e3, r.p99_us / 1e3))),
        ("server CPU us/cycle", Box::new(|r| r.server_us.to_string())),
        ("by process", Box::new(|r| report::by_node(&r.server_us_by_node))),
        (
            "CPU x epoll / x forward",
            Box::new(move |r| format!("{} / {}", times(r.server_to_floor), times(r.server_to_forward))),
        ),
        ("faults", Box::new(|r| report::verdict(&[], &r.faults))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Bench, Command};
    use clap::Parser;

    #[test]
    fn a_cycle_is_compared_with_the_same_number_of_messages_without_a_login() {
        let Command::Logins(args) = Bench::parse_from(["bench", "logins"]).command else { panic!() };
        let taken = |system, cpu_s| {
            let outcome =
                Outcome { per_sec: 100.0, answers: 1000, server_cpu_s: vec![cpu_s], ..Outcome::default() };
            Taken { run: 0, system, disturbed: false, nodes: vec!["net".into()], outcome }
        };
        let samples =
            [taken(System::FloorEpoll, 0.1), taken(System::OursForward, 0.2), taken(System::OursLogin, 0.3)];
        let rows = SYSTEMS.map(|system| row_of(&args, system, &samples));
        assert_eq!(rows.each_ref().map(|row| &*row.messages), ["11", "11", "login + 10"]);
        let login = &rows[2];
        assert!((login.server_us.median - 300.0).abs() < 1e-9);
        assert!((login.server_to_floor.unwrap() - 3.0).abs() < 1e-9);
        assert!((login.server_to_forward.unwrap() - 1.5).abs() < 1e-9);
        assert_eq!(rows[0].rate_to_floor, None);
        assert_eq!(table(&rows).lines().count(), 5);
    }
}

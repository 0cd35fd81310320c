//! `bench idle`: how much memory of each server process a connection takes that does nothing.
//!
//! Kernel memory of the sockets is not in it: it is the same for every server.

use std::time::Duration;

use serde::Serialize;

use crate::cli::IdleArgs;
use crate::load::Idlers;
use crate::machine;
use crate::proc::{self, Memory};
use crate::releases::{self, Bounds, Release};
use crate::report::{self, Column};
use crate::system::{self, Running, System};
use crate::targets::IDLE_BYTES_MAX;

/// Servers are at rest when all of them together used less than this in [`REST`].
const REST_CPU_NS: u64 = 3_000_000;
const REST: Duration = Duration::from_millis(300);
const REST_PATIENCE: Duration = Duration::from_secs(15);

/// One process of a system; memory in bytes.
#[derive(Debug, Clone, Serialize)]
struct Row {
    system: System,
    /// Whose programs, where two releases are compared.
    release: Option<Release>,
    node: String,
    conns: usize,
    rss_before: i64,
    /// Growth per connection: after opening, and after one request on each.
    opened_rss: f64,
    opened_pss: f64,
    used_rss: f64,
    used_pss: f64,
    verdicts: Vec<String>,
}

pub(crate) fn run(args: &IdleArgs) -> anyhow::Result<()> {
    let _lock = machine::lock_machine()?;
    let Some(dir) = &args.against.against else {
        let mut rows = measure_all(system::start_all(&args.which.systems, &args.common)?, args.conns, None)?;
        rows.iter_mut().for_each(judge);
        return report::show(&table(&rows), &rows, &(), args.common.json.as_deref());
    };
    let systems = releases::ours(&args.which.systems)?;
    let mut rows = Vec::new();
    for release in [Release::Old, Release::New] {
        let running = release.start(&systems, &args.common, dir)?;
        rows.extend(measure_all(running, args.conns, Some(release))?);
    }
    judge_releases(&mut rows, Bounds::of(&args.against));
    report::show(&table(&rows), &rows, &(), args.common.json.as_deref())?;
    releases::all_met(rows.iter().flat_map(|row| &row.verdicts))
}

fn measure_all(systems: Vec<Running>, conns: usize, release: Option<Release>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for running in systems {
        let whose = release.map(|release| format!(" {release}")).unwrap_or_default();
        eprintln!("{}{whose}: opening {conns} connections", running.system);
        let measured = measure(&running, conns)?;
        rows.extend(measured.into_iter().map(|row| Row { release, ..row }));
    }
    Ok(rows)
}

fn measure(running: &Running, conns: usize) -> anyhow::Result<Vec<Row>> {
    // A first client pays for what is made once.
    Idlers::open(running, 1)?.use_once()?;
    let before = memory_at_rest(running)?;
    let mut idlers = Idlers::open(running, conns)?;
    let opened = memory_at_rest(running)?;
    idlers.use_once()?;
    let used = memory_at_rest(running)?;
    let nodes = running.nodes.iter().zip(before).zip(opened.into_iter().zip(used));
    Ok(nodes
        .map(|((node, before), (opened, used))| {
            row_of(running.system, &node.name, conns, before, opened, used)
        })
        .collect())
}

fn memory_at_rest(running: &Running) -> anyhow::Result<Vec<Memory>> {
    let cpu = || running.nodes.iter().map(|node| proc::cpu_ns(node.pid)).sum::<u64>();
    let rested = machine::wait_until(REST_PATIENCE, || {
        let then = cpu();
        machine::pause(REST);
        cpu() - then < REST_CPU_NS
    });
    if !rested {
        eprintln!("{} does not come to rest; its memory may still grow", running.system);
    }
    running.nodes.iter().map(|node| proc::memory(node.pid)).collect()
}

fn row_of(system: System, node: &str, conns: usize, before: Memory, opened: Memory, used: Memory) -> Row {
    let each = |after: i64, before: i64| (after - before) as f64 / conns as f64;
    Row {
        system,
        release: None,
        node: node.to_owned(),
        conns,
        rss_before: before.rss,
        opened_rss: each(opened.rss, before.rss),
        opened_pss: each(opened.pss, before.pss),
        used_rss: each(used.rss, before.rss),
        used_pss: each(used.pss, before.pss),
        verdicts: vec![],
    }
}

/// Whether a process of ours has the clients' connections.
fn has_clients(row: &Row) -> bool {
    row.system.is_ours() && (row.node == "net" || row.system == System::OursAll)
}

fn judge(row: &mut Row) {
    if has_clients(row) {
        row.verdicts = vec![verdict(row.opened_rss.max(row.used_rss))];
    }
}

/// The new release's rows, each by the same process of the old one.
fn judge_releases(rows: &mut [Row], bounds: Bounds) {
    let old: Vec<Row> = rows.iter().filter(|row| row.release == Some(Release::Old)).cloned().collect();
    for row in rows.iter_mut().filter(|row| row.release == Some(Release::New)) {
        let same = |old: &&Row| (old.system, &old.node) == (row.system, &row.node);
        let Some(old) = old.iter().find(same).filter(|_| has_clients(row)) else { continue };
        let parts = [("opened B", row.opened_rss, old.opened_rss), ("used B", row.used_rss, old.used_rss)];
        let verdict = |(what, new, old)| bounds.at_most(what, releases::ratio(new, old));
        row.verdicts = parts.into_iter().map(verdict).collect();
    }
}

fn verdict(bytes: f64) -> String {
    let word = if bytes <= IDLE_BYTES_MAX { "met" } else { "MISSED" };
    format!("{word}: {bytes:.0} <= {IDLE_BYTES_MAX:.0} B per connection")
}

/// `ours-forward`, or `ours-forward old`.
fn name(row: &Row) -> String {
    row.release.map_or_else(|| row.system.to_string(), |release| format!("{} {release}", row.system))
}

fn table(rows: &[Row]) -> String {
    let columns: [Column<Row>; 9] = [
        ("system", Box::new(name)),
        ("process", Box::new(|r| r.node.clone())),
        ("connections", Box::new(|r| r.conns.to_string())),
        ("RSS before MiB", Box::new(|r| format!("{:.1}", r.rss_before as f64 / 1048576.0))),
        ("opened: RSS B each", Box::new(|r| format!("{:.0}", r.opened_rss))),
        ("PSS", Box::new(|r| format!("{:.0}", r.opened_pss))),
        ("used once: RSS B each", Box::new(|r| format!("{:.0}", r.used_rss))),
        ("PSS", Box::new(|r| format!("{:.0}", r.used_pss))),
        ("verdict", Box::new(|r| report::verdict(&r.verdicts, &[]))),
    ];
    report::table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Against;

    /// A process that has grown by so many bytes for each of 100 connections, and by three times as many in the end.
    fn row(system: System, node: &str, bytes: i64) -> Row {
        let memory = |rss| Memory { rss, pss: rss / 2 };
        let (opened, used) = (memory(1000 + bytes * 100), memory(1000 + bytes * 300));
        row_of(system, node, 100, memory(1000), opened, used)
    }

    #[test]
    fn growth_is_per_connection_and_only_net_of_ours_is_judged() {
        let judged = |system, node| {
            let mut row = row(system, node, 1000);
            judge(&mut row);
            row
        };
        let net = judged(System::OursForward, "net");
        assert_eq!((net.opened_rss, net.opened_pss, net.used_rss), (1000.0, 500.0, 3000.0));
        assert_eq!(net.verdicts, ["MISSED: 3000 <= 2048 B per connection"]);
        assert!(judged(System::OursForward, "gate").verdicts.is_empty());
        assert!(judged(System::FloorEpoll, "net").verdicts.is_empty());
    }

    #[test]
    fn a_release_is_judged_by_the_same_process_of_the_old_one() {
        let of =
            |release, node, bytes| Row { release: Some(release), ..row(System::OursForward, node, bytes) };
        let mut rows = [
            of(Release::Old, "gate", 10),
            of(Release::Old, "net", 1000),
            of(Release::New, "net", 1100),
            of(Release::New, "gate", 100),
        ];
        let bounds = Bounds::of(&Against { against: None, within: 5.0 });
        judge_releases(&mut rows, bounds);
        let verdicts = ["MISSED: opened B 1.100 <= 1.05 of old", "MISSED: used B 1.100 <= 1.05 of old"];
        assert_eq!(rows[2].verdicts, verdicts);
        let others = [0, 1, 3].map(|at: usize| rows[at].verdicts.len());
        assert_eq!(others, [0; 3]);
        assert_eq!(name(&rows[1]), "ours-forward old");
    }
}

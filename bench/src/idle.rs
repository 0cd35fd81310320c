//! `bench idle`: how much memory of each server process a connection takes that does nothing.
//!
//! Kernel memory of the sockets is not in it: it is the same for every server.

use std::time::Duration;

use serde::Serialize;

use crate::cli::IdleArgs;
use crate::load::Idlers;
use crate::machine;
use crate::proc::{self, Memory};
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
    let mut rows = Vec::new();
    let _lock = machine::lock_machine()?;
    for running in system::start_all(&args.which.systems, &args.common)? {
        eprintln!("{}: opening {} connections", running.system, args.conns);
        rows.extend(measure(&running, args.conns)?);
    }
    report::show(&table(&rows), &rows, &(), args.common.json.as_deref())
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
    let opened_rss = each(opened.rss, before.rss);
    let used_rss = each(used.rss, before.rss);
    let judged = system.is_ours() && (node == "net" || system == System::OursAll);
    Row {
        system,
        node: node.to_owned(),
        conns,
        rss_before: before.rss,
        opened_rss,
        opened_pss: each(opened.pss, before.pss),
        used_rss,
        used_pss: each(used.pss, before.pss),
        verdicts: judged.then(|| verdict(opened_rss.max(used_rss))).into_iter().collect(),
    }
}

fn verdict(bytes: f64) -> String {
    let word = if bytes <= IDLE_BYTES_MAX { "met" } else { "MISSED" };
    format!("{word}: {bytes:.0} <= {IDLE_BYTES_MAX:.0} B per connection")
}

fn table(rows: &[Row]) -> String {
    let columns: [Column<Row>; 9] = [
        ("system", Box::new(|r| r.system.to_string())),
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

    #[test]
    fn growth_is_per_connection_and_only_net_of_ours_is_judged() {
        let memory = |rss| Memory { rss, pss: rss / 2 };
        let row = |system, node| row_of(system, node, 100, memory(1000), memory(101_000), memory(301_000));
        let net = row(System::OursForward, "net");
        assert_eq!((net.opened_rss, net.opened_pss, net.used_rss), (1000.0, 500.0, 3000.0));
        assert_eq!(net.verdicts, ["MISSED: 3000 <= 2048 B per connection"]);
        assert!(row(System::OursForward, "gate").verdicts.is_empty());
        assert!(row(System::FloorEpoll, "net").verdicts.is_empty());
    }
}

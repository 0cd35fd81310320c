//! What /proc tells about processes and the machine; reading is thin, parsing is pure.

use std::fs;

use anyhow::Context;

/// Linux counts /proc/stat in hundredths of a second on every architecture that we know.
const TICKS_PER_SEC: f64 = 100.0;

/// Nanoseconds of CPU that all threads of a process have used; 0 when it is gone.
pub(crate) fn cpu_ns(pid: i32) -> u64 {
    let schedstat = |thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok();
    threads(pid).into_iter().filter_map(schedstat).map(|text| first_number(&text)).sum()
}

/// The threads of a process; none when it is gone.
pub(crate) fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn first_number(text: &str) -> u64 {
    text.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Seconds that all processors together spent since boot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MachineTime {
    /// On processes and interrupts, without the niced ones (our spinners are niced).
    pub(crate) busy: f64,
    /// Taken by the host of a virtual machine.
    pub(crate) steal: f64,
}

pub(crate) fn machine_time() -> anyhow::Result<MachineTime> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_stat(&text).context("/proc/stat has no cpu line")
}

/// `cpu  user nice system idle iowait irq softirq steal …`
fn parse_stat(text: &str) -> Option<MachineTime> {
    let numbers = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<f64> = numbers.map_while(|n| n.parse().ok()).collect();
    let &[user, _nice, system, _idle, _iowait, irq, softirq, steal, ..] = &ticks[..] else { return None };
    Some(MachineTime { busy: (user + system + irq + softirq) / TICKS_PER_SEC, steal: steal / TICKS_PER_SEC })
}

/// Bytes of memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss: i64,
    /// Shared pages counted in parts.
    pub(crate) pss: i64,
}

pub(crate) fn memory(pid: i32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_rollup(&text).with_context(|| format!("{path} has no Rss and Pss"))
}

fn parse_rollup(text: &str) -> Option<Memory> {
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()
    };
    Some(Memory { rss: kib("Rss:")? * 1024, pss: kib("Pss:")? * 1024 })
}

/// The processor's name, for the report.
pub(crate) fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|l| l.split_once(':')).map_or_else(|| "unknown".into(), |(_, name)| name.trim().into())
}

/// The kernel's version, for the report.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_user_system_and_interrupts_without_nice() {
        let text = "cpu  100 5000 200 9 9 30 70 400 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_stat(text), Some(MachineTime { busy: 4.0, steal: 4.0 }));
        assert_eq!(parse_stat("cpu  1 2 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn rollup_is_rss_and_pss_in_bytes() {
        let text =
            "5581-7ffe ---p 00000000 00:00 0 [rollup]\nRss:    1084 kB\nPss:     571 kB\nPss_Dirty: 84 kB\n";
        assert_eq!(parse_rollup(text), Some(Memory { rss: 1084 * 1024, pss: 571 * 1024 }));
        assert_eq!(parse_rollup("Rss: 1 kB"), None);
    }

    #[test]
    fn schedstat_starts_with_nanoseconds_on_cpu() {
        assert_eq!((first_number("123456 789 10\n"), first_number("")), (123_456, 0));
    }

    #[test]
    fn this_process_uses_memory_and_a_dead_one_no_cpu() {
        let own = memory(std::process::id() as i32).unwrap();
        assert!(own.rss > 0 && own.pss > 0 && own.pss <= own.rss);
        assert_eq!(cpu_ns(i32::MAX), 0);
    }
}

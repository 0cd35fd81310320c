//! The process itself: its CPU time, memory and descriptors, as Linux tells them under `/proc/self`.

use std::time::Duration;

use super::{Gauge, Registry, TimeCounter};

/// Ticks of a second in `/proc/self/stat`: 100 for every program on every platform of Linux, whatever the kernel counts in.
const TICKS_PER_SECOND: u64 = 100;

/// The metrics of this process, read at each scrape.
#[derive(Debug)]
pub struct ProcessMetrics {
    cpu: TimeCounter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
}

impl ProcessMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            cpu: registry
                .time("ff_process_cpu_seconds", "CPU time of the process, in user space and in the kernel"),
            resident: registry
                .gauge("ff_process_resident_memory_bytes", "Memory of the process that is in RAM"),
            open_fds: registry.gauge("ff_process_open_fds", "Open descriptors of the process"),
            max_fds: registry
                .gauge("ff_process_max_fds", "The most descriptors that the process may have open"),
            threads: registry.gauge("ff_process_threads", "Threads of the process"),
        }
    }

    /// Reads them anew. What the system does not tell stays as it was.
    pub fn read(&self) {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(cpu) = cpu(&stat) {
            self.cpu.follow(cpu);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = number(&status, "VmRSS:") {
            self.resident.set((kib * 1024) as f64);
        }
        if let Some(threads) = number(&status, "Threads:") {
            self.threads.set(threads as f64);
        }
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(max) = number(&limits, "Max open files") {
            self.max_fds.set(max as f64);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // Without the one that lists them.
            self.open_fds.set_count(open.count().saturating_sub(1));
        }
    }
}

/// The CPU time in `/proc/self/stat`: the 14th and 15th field, counted behind the name, which may have spaces.
fn cpu(stat: &str) -> Option<Duration> {
    let mut behind = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = behind.next()?.parse().ok()?;
    let system: u64 = behind.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The first number of the line that begins with `key`.
fn number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(number("Name:\tx\nVmRSS:\t  1536 kB\n", "VmRSS:"), Some(1536));
        assert_eq!(
            number("Max open files            1024                 4096  files\n", "Max open files"),
            Some(1024)
        );
        assert_eq!((cpu("?"), number("", "VmRSS:")), (None, None));
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = ProcessMetrics::new(&Registry::new());
        process.read();
        assert!(process.resident.get() > 4096.0 && process.open_fds.get() >= 3.0);
        assert!(process.max_fds.get() >= process.open_fds.get() && process.threads.get() >= 1.0);
    }
}

//! The system's knowledge of a process: whether a number still stands for the same one, and what it does.

use std::fs;

/// When a process was started, in clock ticks since the boot: with its number it names a process for ever.
/// `None` when there is none, or only a zombie.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, started) = parse(&stat)?;
    (!matches!(state, 'Z' | 'X' | 'x')).then_some(started)
}

/// What a process does, in words.
pub(crate) fn describe(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match parse(&stat).map(|(state, _)| state) {
        Some('R') => "running: it computes (an endless loop?)",
        Some('S') => "asleep: it waits for something (a lock? a blocking call?)",
        Some('D') => "stuck in the kernel (a disk? a network file system?)",
        Some('T') => "stopped by a signal (SIGSTOP)",
        Some('t') => "stopped by a debugger",
        Some('Z' | 'X' | 'x') | None => "gone",
        Some(_) => "in an unknown state",
    }
    .into()
}

/// Whether this process ignores SIGHUP: whoever started it (nohup) wants it to outlive its terminal.
pub(crate) fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status).is_some_and(|signals| signals & 1 != 0)
}

/// The signals that a process ignores, by /proc/PID/status: the bit of number one is the lowest.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// This boot of the system: process numbers of another say nothing.
pub(crate) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// State (field 3) and start time (field 22) of /proc/PID/stat. The name before them is in parentheses and
/// may itself have parentheses and spaces.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) T 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 7777 1 2 3";
        assert_eq!(parse(line), Some(('T', 7777)));
        assert_eq!(parse("42 (x) T 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_signals_that_a_process_ignores_are_read() {
        assert_eq!(ignored("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n"), Some(0x1001));
        assert_eq!(ignored("SigBlk:\t0000000000000001\n"), None);
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let own = std::process::id();
        assert_eq!(started(own), started(own));
        assert!(started(own).is_some() && !boot().is_empty());
        assert_eq!(started(u32::MAX), None);
        assert_eq!(describe(u32::MAX), "gone");
        assert!(!describe(own).is_empty());
    }
}

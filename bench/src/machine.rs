//! What the bench asks of the operating system: descriptors, pauses, leashes, idle-priority spinners.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Raises the soft limit of descriptors to the hard one, for this process and those that it starts.
pub(crate) fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}

/// How many descriptors this process may have open.
pub(crate) fn descriptor_limit() -> anyhow::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

#[expect(clippy::disallowed_methods, reason = "the bench's own processes have no event loop to block")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks every few milliseconds until `ready` says so; false when `patience` is over.
pub(crate) fn wait_until(patience: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        pause(Duration::from_millis(10));
    }
}

/// Waits until the whole machine (spinners apart) uses less than `cores`, at most for `patience`.
pub(crate) fn wait_for_quiet(cores: f64, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let (then, since) = (crate::proc::machine_time()?, Instant::now());
        pause(Duration::from_millis(500));
        let busy = crate::proc::machine_time()?.busy - then.busy;
        if busy / since.elapsed().as_secs_f64() < cores || Instant::now() >= end {
            return Ok(());
        }
    }
}

/// Makes this process get `signal` when the one that started it ends, however it ends.
pub(crate) fn die_with_parent(signal: Signal) -> anyhow::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(signal)?)
}

/// Becomes `command`, which then gets SIGTERM when the bench ends: no server outlives a killed bench.
pub(crate) fn exec_on_a_leash(command: &[String]) -> anyhow::Result<()> {
    die_with_parent(Signal::SIGTERM)?;
    let (program, args) = command.split_first().context("no command")?;
    Err(Command::new(program).args(args).exec()).with_context(|| program.clone())
}

/// A thread of idle priority on each processor that keeps it from halting: on a virtual machine, waking a
/// halted one costs more than the servers do. They end when this is dropped.
pub(crate) struct Spinners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |cpu| {
            let stop = stop.clone();
            std::thread::spawn(move || match become_idle_on(cpu) {
                Ok(()) => {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::black_box((0..10_000).for_each(|n| _ = std::hint::black_box(n)));
                    }
                }
                Err(error) => eprintln!("bench: no spinner on cpu {cpu}: {error:#}"),
            })
        };
        let threads = (0..cpus).map(spin).collect();
        Self { stop, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A spinner has nothing to say when it ends.
            let _ = thread.join();
        }
    }
}

fn become_idle_on(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    set_idle_priority().context("SCHED_IDLE")
}

/// Gives the calling thread the lowest priority there is. Niced too, so that its time is counted apart.
#[expect(unsafe_code, reason = "nix has neither sched_setscheduler nor setpriority")]
fn set_idle_priority() -> std::io::Result<()> {
    use nix::libc;
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: both take plain numbers and a pointer to a struct that lives until they return; 0 is this thread.
    let failed = unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19) != 0
            || libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A lock that benches on one machine share, so that they do not measure each other.
/// `BENCH_LOCK` names another file, to share it with other tools.
pub(crate) fn lock_machine() -> anyhow::Result<std::fs::File> {
    let path = std::env::var_os("BENCH_LOCK")
        .map_or_else(|| std::env::temp_dir().join("bench.lock"), std::path::PathBuf::from);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    if file.try_lock().is_err() {
        eprintln!("another bench holds {}; waiting for it", path.display());
        file.lock()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinners_start_and_end() {
        let spinners = Spinners::start();
        assert!(!spinners.threads.is_empty());
        drop(spinners);
    }

    #[test]
    fn waiting_ends_with_the_condition_or_with_patience() {
        let mut n = 0;
        assert!(wait_until(Duration::from_secs(5), || {
            n += 1;
            n == 3
        }));
        assert!(!wait_until(Duration::ZERO, || false));
    }
}

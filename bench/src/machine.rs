//! What the bench asks of the operating system: descriptors, pauses, leashes, idle-priority spinners.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
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

/// The last processor that this process may use: interrupts tend to be the first one's.
pub(crate) fn last_cpu() -> anyhow::Result<usize> {
    let own = sched_getaffinity(Pid::from_raw(0))?;
    let allowed = |cpu: &usize| own.is_set(*cpu).unwrap_or(false);
    (0..CpuSet::count()).rev().find(allowed).context("this process may use no processor")
}

/// Keeps the calling thread on a processor.
pub(crate) fn run_on(cpu: usize) -> anyhow::Result<()> {
    sched_setaffinity(Pid::from_raw(0), &only(cpu)?).with_context(|| format!("running on processor {cpu}"))
}

fn only(cpu: usize) -> nix::Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(set)
}

/// Processes that are kept on one processor, with all their threads; when this is dropped they run again wherever
/// this one may.
pub(crate) struct Pinned {
    pids: Vec<i32>,
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(cpu: usize, pids: Vec<i32>) -> anyhow::Result<Self> {
        let pinned = Self { pids, before: sched_getaffinity(Pid::from_raw(0))? };
        pinned.put_all(&only(cpu)?).with_context(|| format!("putting the servers on processor {cpu}"))?;
        Ok(pinned)
    }

    fn put_all(&self, on: &CpuSet) -> anyhow::Result<()> {
        for pid in &self.pids {
            for thread in crate::proc::threads(*pid) {
                match sched_setaffinity(Pid::from_raw(thread), on) {
                    // It has ended meanwhile.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = self.put_all(&self.before) {
            eprintln!("bench: the servers stay on one processor: {error:#}");
        }
    }
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
    run_on(cpu)?;
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
    fn a_pinned_process_runs_on_one_processor_and_then_wherever_this_one_may() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let set = || sched_getaffinity(Pid::from_raw(child.id() as i32)).unwrap();
        let (own, last) = (sched_getaffinity(Pid::from_raw(0)).unwrap(), last_cpu().unwrap());
        assert!(own.is_set(last).unwrap());
        let pinned = Pinned::to(last, vec![child.id() as i32]).unwrap();
        assert_eq!(set(), only(last).unwrap());
        drop(pinned);
        assert_eq!(set(), own);
        child.kill().unwrap();
        child.wait().unwrap();
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

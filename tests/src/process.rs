//! One process as the kernel tells of it: whether it runs, its memory, its descriptors.

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::wait;

/// Bytes of memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most since its start.
    pub peak: u64,
}

/// How many descriptors a process has open.
///
/// # Errors
/// It is gone.
pub fn descriptors(pid: i32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Lets this process, and those that it starts, have as many descriptors open as the system allows it.
///
/// # Errors
/// The system allows less than `needed`.
pub fn raise_descriptors(needed: u64) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= needed, "{needed} descriptors are needed, and {hard} allowed: ulimit -Hn {needed}");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

impl Memory {
    /// Of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: i32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&text).with_context(|| format!("no VmRSS and VmHWM of {pid}: {text}"))
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(Self { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

/// Waits until a process that was sent SIGSTOP has stopped: the signal is a request, and each of its threads
/// comes to it when it runs next.
///
/// # Errors
/// It has not.
pub async fn until_stopped(pid: i32) -> Result<()> {
    wait::until("every thread is stopped", async || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        for task in tasks.flatten() {
            let stat = std::fs::read_to_string(task.path().join("stat")).map_err(|e| e.to_string())?;
            if !stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')) {
                return Err(stat);
            }
        }
        Ok(())
    })
    .await
}

/// Whether a process runs. A zombie does not: whose parent was killed belongs to init, which may be slow to
/// look, or to a container's first process, which may never do.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent =
        |stat: &str| stat.rsplit_once(") Z ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    // A zombie of the master would be one that nobody will ever look at.
    let orphan = parent(&stat).is_some_and(|parent: i32| parent == 1 || !comm_is_master(parent));
    !stat.is_empty() && !orphan
}

/// Waits until a process is gone: what it logs at its end stands in the log.
///
/// # Errors
/// It is not.
pub async fn until_gone(pid: i32) -> Result<()> {
    let what = format!("process {pid} is gone");
    wait::until(&what, async || if is_alive(pid) { Err("it runs") } else { Ok(()) }).await
}

fn comm_is_master(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "master")
}

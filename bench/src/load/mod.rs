//! The load client: one thread, epoll, C connections; checks every answer and prints one JSON line.
//!
//! Closed loop: P requests outstanding on each connection, an answer at once starts the next.
//! Open loop: requests at a fixed rate, each latency measured from the moment it should have been sent.
//! Broadcasts: one connection asks, all get. Cycles: connections come, ask and go.

mod broadcast;
mod client;
mod cycles;
mod drive;
mod flight;
mod idle;
mod ledger;
mod websocket;

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cli::LoadArgs;
use crate::machine;
use crate::system::Running;

pub(crate) use idle::Idlers;

/// What a load client found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Good answers in the measured time; deliveries of broadcasts, and whole cycles, where these are counted.
    pub(crate) answers: u64,
    /// The measured time.
    pub(crate) secs: f64,
    pub(crate) per_sec: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) mean_us: f64,
    /// The following six count the whole time, warm-up and end included. Requests; with broadcasts, how many
    /// were asked for.
    pub(crate) sent: u64,
    pub(crate) good: u64,
    /// Error frames.
    pub(crate) errors: u64,
    /// Answers that overtook an earlier request's on the same connection; counted as good too.
    pub(crate) misordered: u64,
    /// Answers to nothing, or with another command or body than the request.
    pub(crate) wrong: u64,
    /// Requests without an answer.
    pub(crate) missing: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// The first error frame's body.
    pub(crate) first_error: Option<String>,
    /// CPU seconds of each watched process in the measured time.
    pub(crate) server_cpu_s: Vec<f64>,
    pub(crate) load_cpu_s: f64,
    /// Cores that neither the watched processes nor this one used.
    pub(crate) other_cores: f64,
    /// Cores that the machine's host took away.
    pub(crate) steal_cores: f64,
    /// Open loop: the most that this client itself was late with sending.
    pub(crate) late_us_max: f64,
}

impl Outcome {
    pub(crate) fn server_us_per_answer(&self) -> f64 {
        self.server_cpu_s.iter().sum::<f64>() * 1e6 / self.answers.max(1) as f64
    }

    /// What is not as it must be; `None` when every request had its good answer in order.
    pub(crate) fn fault(&self) -> Option<String> {
        let counts = [
            (self.errors, "error frames"),
            (self.misordered, "out of order"),
            (self.wrong, "wrong"),
            (self.missing, "missing"),
            (self.closed, "connections closed"),
        ];
        let faults: Vec<_> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let why = self.first_error.as_ref().map(|body| format!("; first error: {body}"));
        (!faults.is_empty()).then(|| format!("{}{}", faults.join(", "), why.unwrap_or_default()))
    }
}

/// How a system is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Closed {
        pipe: usize,
    },
    Open {
        rate: f64,
    },
    /// Broadcasts under way.
    Broadcast {
        window: u32,
    },
    /// Requests of a connection, its login apart.
    Cycles {
        requests: u32,
    },
}

/// What to load a system with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    pub(crate) conns: usize,
    pub(crate) body: usize,
    pub(crate) secs: f64,
    pub(crate) warm: f64,
    /// The processor on which the servers and the client run; `None`: wherever the scheduler puts them.
    pub(crate) cpu: Option<usize>,
}

/// Loads a system from a process of its own.
pub(crate) fn measure(running: &Running, plan: &Plan) -> anyhow::Result<Outcome> {
    let _pinned = plan.cpu.map(|cpu| machine::Pinned::to(cpu, running.pids())).transpose()?;
    let pids: Vec<_> = running.pids().iter().map(i32::to_string).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("load").args(["--addr", &running.addr.to_string()]);
    command.args(["--command", &running.command.to_string(), "--watch", &pids.join(",")]);
    command
        .args(["--conns", &plan.conns.to_string()])
        .args(["--body", &plan.body.to_string()])
        .args(["--secs", &plan.secs.to_string()])
        .args(["--warm", &plan.warm.to_string()]);
    match plan.way {
        Way::Closed { pipe } => command.args(["--pipe", &pipe.to_string()]),
        Way::Open { rate } => command.args(["--rate", &rate.to_string()]),
        Way::Broadcast { window } => command.args(["--broadcast", &window.to_string()]),
        Way::Cycles { requests } => command.args(["--cycles", &requests.to_string()]),
    };
    if let Some(cpu) = plan.cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    if let Some(login) = running.system.login() {
        command.args(["--login", &login.to_string()]);
    }
    if running.system.speaks_websocket() {
        command.arg("--websocket");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("the load client")?;
    ensure!(output.status.success(), "the load client failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("the load client's answer")
}

/// `bench load`.
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    machine::die_with_parent(Signal::SIGKILL)?;
    if let Some(cpu) = args.cpu {
        machine::run_on(cpu)?;
    }
    let needed = args.conns as u64 + 16;
    let limit = machine::descriptor_limit()?;
    ensure!(
        needed <= limit,
        "{} connections need {needed} open files; the hard limit is {limit}",
        args.conns
    );
    if args.idle {
        return idle::run(args);
    }
    let outcome = match (args.broadcast, args.cycles) {
        (Some(window), _) => broadcast::Drive::connect(args, window)?.run()?,
        (_, Some(requests)) => cycles::Drive::start(args, requests)?.run()?,
        (None, None) => drive::Drive::connect(args)?.run()?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_outcome_has_no_fault_and_a_dirty_one_names_it() {
        let clean = Outcome { answers: 10, server_cpu_s: vec![0.000_02, 0.000_03], ..Outcome::default() };
        assert_eq!(clean.fault(), None);
        assert!((clean.server_us_per_answer() - 5.0).abs() < 1e-9);
        let dirty = Outcome { errors: 2, missing: 1, first_error: Some("no route".into()), ..clean };
        assert_eq!(dirty.fault().unwrap(), "2 error frames, 1 missing; first error: no route");
    }
}

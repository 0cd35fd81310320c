//! The signals that a master obeys.

use std::io;

use ffnet::notify::{Notifier, Word};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::audit::Caller;
use crate::supervisor::machine::Answer;
use crate::supervisor::{Handle, Order, proc};

/// The command of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalCommand {
    /// SIGTERM or SIGINT, for the first time.
    Stop,
    /// SIGTERM or SIGINT again.
    Kill,
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Detach,
}

impl SignalCommand {
    /// Who gives it, for the audit.
    fn caller(self) -> Caller {
        match self {
            Self::Stop => Caller::signal("SIGTERM or SIGINT", "stop"),
            Self::Kill => Caller::signal("SIGTERM or SIGINT again", "kill"),
            Self::Reload => Caller::signal("SIGHUP", "reload"),
            Self::Detach => Caller::signal("SIGUSR2", "detach"),
        }
    }
}

/// Hears signals from its creation on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    /// `None`: it stays ignored.
    hup: Option<Signal>,
    usr2: Signal,
    stops: u32,
}

impl Signals {
    /// From now on signals do not end this process any more.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn new() -> io::Result<Self> {
        Self::hearing(Some(signal(SignalKind::hangup())?))
    }

    /// As [`Signals::new`], where SIGHUP is the end of the terminal: a process that was started with that one ignored (by nohup) goes
    /// on ignoring it.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn of_terminal() -> io::Result<Self> {
        // Hearing it would take the place of ignoring it.
        let ignored = proc::ignores_hangup();
        Self::hearing(if ignored { None } else { Some(signal(SignalKind::hangup())?) })
    }

    fn hearing(hup: Option<Signal>) -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup,
            usr2: signal(SignalKind::user_defined2())?,
            stops: 0,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> SignalCommand {
        let hung_up = async {
            match &mut self.hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hung_up => return SignalCommand::Reload,
            _ = self.usr2.recv() => return SignalCommand::Detach,
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
        self.stops += 1;
        if self.stops == 1 { SignalCommand::Stop } else { SignalCommand::Kill }
    }

    /// Obeys them for a whole cluster, for ever; `manager` is told what became of each reload.
    pub async fn obey(self, handle: Handle, manager: Option<Notifier>) {
        let reload = Notify::new();
        tokio::join!(reload_each_time(&reload, &handle, manager.as_ref()), self.command(&reload, &handle));
    }

    async fn command(mut self, reload: &Notify, handle: &Handle) {
        loop {
            let command = self.next().await;
            let order = match command {
                SignalCommand::Stop => {
                    info!("stopping in order; a second signal kills every node at once");
                    Order::StopAll
                }
                SignalCommand::Kill => {
                    warn!("a second signal: every node is killed");
                    Order::KillAll
                }
                SignalCommand::Reload => {
                    reload.notify_one();
                    continue;
                }
                SignalCommand::Detach => Order::Detach,
            };
            // The outcome is logged by the supervisor; the next signal must not wait for it.
            let handle = handle.clone();
            tokio::spawn(async move {
                if let Err(refused) = handle.order_of(&command.caller(), order).await {
                    warn!("refused: {refused}");
                }
            });
        }
    }
}

/// Reloads as often as it is asked to. Who asks while a command runs waits for its end: what is new then goes live, whoever gave
/// that command. Those who ask meanwhile are one.
async fn reload_each_time(asked: &Notify, handle: &Handle, manager: Option<&Notifier>) {
    loop {
        asked.notified().await;
        let caller = SignalCommand::Reload.caller();
        let reloaded = outcome(handle.order_of(&caller, Order::ReloadWhenFree).await);
        // A manager that does not listen misses it.
        manager.map(|manager| manager.say(&Word::Reloaded(reloaded)));
    }
}

/// What became of a reload: the reason of each node that is not as the reload wanted it, a line each.
fn outcome(answer: Answer) -> Result<(), String> {
    let nodes = answer.map_err(|refused| refused.to_string())?;
    let failed = nodes.iter().filter(|node| !node.ok);
    let failed: Vec<String> = failed.map(|node| format!("{}: {}", node.node, node.outcome)).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// SIGUSR1 opens the files of this process's log again, and has those of others opened by `of_others`, for as long as this runs.
pub async fn reopen_logs(of_others: impl Fn() -> usize) {
    let Ok(mut reopen) = signal(SignalKind::user_defined1()) else { return };
    while reopen.recv().await.is_some() {
        if let Some(log) = fftelemetry::current() {
            log.reopen();
        }
        let nodes = of_others();
        info!("the log files are opened again, also those of {nodes} nodes");
    }
}

//! The signals that a master obeys.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::supervisor::{Handle, Order};

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

/// Hears signals from its creation on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
    stops: u32,
}

impl Signals {
    /// From now on signals do not end this process any more.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
            stops: 0,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> SignalCommand {
        tokio::select! {
            _ = self.hup.recv() => return SignalCommand::Reload,
            _ = self.usr2.recv() => return SignalCommand::Detach,
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
        self.stops += 1;
        if self.stops == 1 { SignalCommand::Stop } else { SignalCommand::Kill }
    }

    /// Obeys them for a whole cluster, for ever.
    pub async fn obey(mut self, handle: Handle) {
        loop {
            let order = match self.next().await {
                SignalCommand::Stop => {
                    info!("stopping in order; a second signal kills every node at once");
                    Order::StopAll
                }
                SignalCommand::Kill => {
                    warn!("a second signal: every node is killed");
                    Order::KillAll
                }
                SignalCommand::Reload => Order::Reload(None),
                SignalCommand::Detach => Order::Detach,
            };
            // The outcome is logged by the supervisor; the next signal must not wait for it.
            let handle = handle.clone();
            tokio::spawn(async move {
                if let Err(refused) = handle.order(order).await {
                    warn!("refused: {refused}");
                }
            });
        }
    }
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

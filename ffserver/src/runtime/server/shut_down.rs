//! The stop of a node, in order: clients, calls, the app, its records, its links; each bounded by what is left of the drain
//! time.

use std::time::Duration;

use ffproto::control::ToMaster;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use super::FFServer;
use super::start::RunningNode;
use crate::exec::execution;
use crate::identity::lifecycle::Phase;
use crate::node::Node;
use crate::runtime::control::MasterNotice;

/// How long links may take to write what is queued.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// What is written behind has at least so long at a stop, however long handlers took.
const WRITE_OUT_MIN: Duration = Duration::from_secs(1);

impl FFServer {
    pub(super) async fn shut_down(
        &self,
        mut running: RunningNode,
        word: &watch::Sender<MasterNotice>,
        deadline: Instant,
    ) {
        info!(
            "{} is stopping, within {:?}",
            self.identity.name(),
            deadline.saturating_duration_since(Instant::now())
        );
        self.identity.lifecycle().set_phase(Phase::Stopping);
        word.send_replace(MasterNotice::Say(ToMaster::Stopping));
        if let Some(front) = &running.handover.front {
            front.end(deadline).await;
        }
        if let Some(mut serving) = running.serving.take()
            && timeout_at(deadline, &mut serving).await.is_err()
        {
            warn!("clients were cut off: their handlers did not end in time");
            serving.abort();
        }
        let tasks = self.identity.tasks();
        if timeout_at(deadline, tasks.end()).await.is_err() {
            warn!("{} handlers did not end in time", tasks.len());
        }
        self.run_stopping(running.own_node(), deadline).await;
        write_records(running.own_node(), deadline).await;
        self.close_down(running).await;
    }

    pub(super) async fn run_stopping(&self, node: &Node, deadline: Instant) {
        if let Some(hook) = &self.hooks.stopping {
            match timeout_at(deadline, execution::run(|| hook(node.clone()))).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => error!("the app's on_stopping hook failed: {}", e.log_text()),
                Err(_) => error!("the app's on_stopping hook did not end in time"),
            }
        }
    }

    /// Ends what is left: the links, in good order, and the databases.
    pub(super) async fn close_down(&self, running: RunningNode) {
        let transit = running.own_node().transit();
        transit.close_links("the node is stopping");
        running.links.close();
        // The last words of the links are a few bytes each; a dead peer must not hold up the stop.
        let last_words = async {
            running.links.wait().await;
            transit.parents_gone().await;
        };
        let _ = timeout(LAST_WORDS_MAX, last_words).await;
        running.tasks.iter().for_each(JoinHandle::abort);
        for (_, db) in running.own_node().databases() {
            let _ = timeout(Duration::from_secs(2), db.close()).await;
        }
    }
}

/// Writes what was written behind to the database; what cannot be is in the journal.
pub(super) async fn write_records(node: &Node, deadline: Instant) {
    if let Some(records) = node.records() {
        records.close(deadline.max(Instant::now() + WRITE_OUT_MIN)).await;
    }
}

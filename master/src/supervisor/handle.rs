//! The handle of a running supervisor, for operators: its view, its logs, its ear. Cheap to clone.

use std::sync::Arc;

use ffproto::control::{LogOrder, ToNode};
use ffproto::{NodeName, Version};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::event::{Event, Order};
use super::feed::FeedEvent;
use super::machine::{Answer, ClusterView, PhaseView, Refused};
use crate::asker::Asker;
use crate::audit::{Audit, Caller};
use crate::metrics::ClusterMetrics;
use crate::output::Logs;

/// A handle to a running cluster. The view and the logs answer even while the supervisor is busy.
#[derive(Clone)]
pub struct Handle {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) view: watch::Receiver<Arc<ClusterView>>,
    pub(crate) logs: Logs,
    pub(crate) feed: broadcast::Sender<Arc<FeedEvent>>,
    pub(crate) metrics: ClusterMetrics,
    pub(crate) audit: Audit,
}

impl Handle {
    /// The cluster as it is now.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// The feed of what happens from now on, as it happens. A slow reader misses the oldest of it.
    pub fn events(&self) -> broadcast::Receiver<Arc<FeedEvent>> {
        self.feed.subscribe()
    }

    /// The last lines of a node, oldest first.
    pub fn lines(&self, node: &str) -> Vec<String> {
        self.logs.last(node)
    }

    /// The same, and how many lines the node has printed in all, since this master began.
    pub fn lines_printed(&self, node: &str) -> (Vec<String>, u64) {
        self.logs.last_of(node)
    }

    /// The metrics of every node and of the master, as Prometheus' text. Answers also while nodes or the supervisor hang.
    pub async fn metrics(&self) -> String {
        self.metrics.text(&self.view()).await
    }

    /// What asks the nodes.
    pub(crate) fn asker(&self) -> &Asker {
        self.metrics.asker()
    }

    /// Orders something about the log of a node's processes, of all nodes without a name. How many processes it was sent to: those
    /// that are linked, take their messages, and are not of a release before such orders.
    pub fn order_about_logs(&self, node: Option<&NodeName>, order: &LogOrder) -> usize {
        self.asker().tell(node, Version::LOG_ORDERS, &ToNode::Log(order.clone()))
    }

    /// Waits until the view is as wanted and returns it; `None` when the supervisor ended first.
    /// Has no deadline of its own. Cancel-safe.
    pub async fn until(&self, wanted: impl FnMut(&ClusterView) -> bool) -> Option<Arc<ClusterView>> {
        let mut wanted = wanted;
        let mut view = self.view.clone();
        view.wait_for(|view| wanted(view)).await.ok().map(|view| Arc::clone(&view))
    }

    /// Waits until the first start is over: `true` when the cluster is up.
    pub async fn up(&self) -> bool {
        let view = self.until(|view| view.state != PhaseView::Starting).await;
        view.is_some_and(|view| view.state == PhaseView::Up)
    }

    /// Gives somebody's order, as [`order`](Self::order), and writes down what became of it.
    ///
    /// # Errors
    /// [`Refused`]: nothing has been done.
    pub async fn order_of(&self, caller: &Caller, order: Order) -> Answer {
        let begun = Instant::now();
        let answer = self.order(order).await;
        self.audit.command(caller, 0, result_of(&answer), begun.elapsed());
        answer
    }

    /// Gives an order and waits for what became of it. A caller that goes away does not undo it.
    ///
    /// # Errors
    /// [`Refused`]: nothing has been done.
    pub async fn order(&self, order: Order) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.events.send(Event::Ordered { order, reply }).await.is_err() {
            return Err(Refused::Stopping);
        }
        answer.await.unwrap_or(Err(Refused::Stopping))
    }
}

/// What became of a command, in one line: what it did to each node, or why nothing was done.
pub(crate) fn result_of(answer: &Answer) -> String {
    match answer {
        Ok(nodes) if nodes.is_empty() => "done".into(),
        Ok(nodes) => {
            let each: Vec<String> =
                nodes.iter().map(|node| format!("{}: {}", node.node, node.outcome)).collect();
            each.join("; ")
        }
        Err(refused) => format!("refused: {refused}"),
    }
}

//! The backend of a node's discovery, of whichever type, and the task that runs it for as long as the node lives.

use std::pin::Pin;
use std::time::Duration;

use ffambient::Chance;
use ffnet::backoff::Backoff;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::{Discovery, DiscoveryError};
use crate::cluster::found::{OwnNode, Snapshot};

/// A run that lasts as long has reached its backend: the end of the next one is logged again.
const HEALTHY: Duration = Duration::from_secs(5);

type Run<'a> = Pin<Box<dyn Future<Output = Result<(), DiscoveryError>> + Send + 'a>>;

/// [`Discovery`] without its type.
trait DynDiscovery: Send {
    fn run<'a>(
        &'a mut self,
        own: &'a mut watch::Receiver<OwnNode>,
        shown: &'a watch::Sender<Snapshot>,
    ) -> Run<'a>;
}

impl<D: Discovery> DynDiscovery for D {
    fn run<'a>(
        &'a mut self,
        own: &'a mut watch::Receiver<OwnNode>,
        shown: &'a watch::Sender<Snapshot>,
    ) -> Run<'a> {
        Box::pin(Discovery::run(self, own, shown))
    }
}

/// The backend of one node's discovery. The mutex is never locked: it makes a server that has the backend, and has not begun,
/// a value that threads may share, without asking implementations to be one.
pub(crate) struct Backend(Mutex<Box<dyn DynDiscovery>>);

impl Backend {
    pub(crate) fn new(discovery: impl Discovery) -> Self {
        Self(Mutex::new(Box::new(discovery)))
    }

    /// Runs discovery until the node has left. After an error it is run again: what was shown stays.
    pub(crate) async fn run(
        self,
        mut own: watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
        chance: &Chance,
    ) {
        let mut backend = self.0.into_inner();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), HEALTHY);
        let mut complained = false;
        loop {
            let begun = Instant::now();
            let Err(error) = backend.run(&mut own, shown).await else { return };
            if begun.elapsed() >= HEALTHY || !complained {
                complained = true;
                let why = fftelemetry::chain(&error);
                warn!("no discovery, going on with what is known and trying on: {why}");
            }
            tokio::time::sleep(backoff.next(chance.share(), begun.elapsed())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ffproto::{Incarnation, NodeName, NodeNumber};
    use tokio::time::timeout;

    use super::*;
    use crate::cluster::found::{Load, found};

    /// A backend whose outage begins with the first run, after it has shown something.
    struct Flickers(u16);

    impl Discovery for Flickers {
        async fn run(
            &mut self,
            own: &mut watch::Receiver<OwnNode>,
            shown: &watch::Sender<Snapshot>,
        ) -> Result<(), DiscoveryError> {
            self.0 += 1;
            shown.send_modify(|snapshot| {
                snapshot.number = Some(NodeNumber(self.0));
                snapshot.show(found("gate", "gate", 1));
            });
            if self.0 < 3 {
                return Err(DiscoveryError::Backend("it is out of reach".into()));
            }
            let _ = own.wait_for(|own| own.leaving).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_backend_takes_nothing_away_and_it_is_run_again_until_the_node_leaves() {
        let (own, told) = watch::channel(OwnNode {
            name: NodeName::try_from("game").unwrap(),
            kind: "game".into(),
            incarnation: Incarnation(1),
            version: String::new(),
            since_ms: 1,
            address: None,
            load: Load::default(),
            leaving: false,
        });
        let shown = Arc::new(watch::Sender::new(Snapshot::default()));
        let (mut seen, writes) = (shown.subscribe(), shown.clone());
        let run =
            tokio::spawn(
                async move { Backend::new(Flickers(0)).run(told, &writes, &Chance::seeded(1)).await },
            );
        let third = seen.wait_for(|snapshot| snapshot.number == Some(NodeNumber(3)));
        assert_eq!(timeout(Duration::from_secs(60), third).await.unwrap().unwrap().nodes.len(), 1);
        assert!(!run.is_finished());
        own.send_modify(|own| own.leaving = true);
        timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    }
}

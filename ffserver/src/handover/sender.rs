//! How a node's process is replaced: the old one hands its state, its clients and its place over to its
//! successor ([`crate::handover::receiver`]), and takes them back when that fails. The order of messages stands in
//! [`ffproto::handover`].
//!
//! An app that freezes nothing needs no pause: the successor serves, neighbours switch to it one by one, and
//! each session goes when nothing runs for it. An app that freezes its state is paused first: neighbours hold
//! their messages, what runs ends, the state goes, and the successor's links bring the messages.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ffhttp::{Front, Handoff, Retirement};
use ffnet::Link;
use ffnet::door::{self, Passage};
use ffproto::control::Door;
use ffproto::handover::{FromNew, FromOld, STATE_PIECE_BYTES, Who};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::app::hooks::{Frozen, Hooks};
use crate::cluster::affinity_delta::AffinityDelta;
use crate::error::HandlerError;
use crate::exec::execution::Execution;
use crate::gateway::acceptor::{Clients, Departure, Leaving};
use crate::identity::lifecycle::Phase;
use crate::node::Node;
use crate::ops::session_requests::answer_successor;
use crate::session::local::Directive;
use crate::transit::envelope_hold::ASKED_MAX;
use ffstore::record::Records;

/// The other process answers a greeting within this, or is none of ours.
pub(crate) const GREETING_MAX: Duration = Duration::from_secs(2);
/// How long a neighbour may take to answer a Pause; one that hangs is lost by its heartbeat soon.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a successor may take to serve when nobody waits for it.
const SERVES_MAX: Duration = Duration::from_secs(10);
/// Choices that travel together.
const STICKY_AT_ONCE: usize = 4096;
/// How often what has no event is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a process that has ended everything passes on what its neighbours have just sent.
const LINGER: Duration = Duration::from_millis(50);
/// How long the successor's last word may be late.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);

/// What of a running node is handed over.
pub(crate) struct Estate {
    pub(crate) node: Node,
    pub(crate) hooks: Hooks,
    /// Whether the ports accept.
    pub(crate) ports: watch::Sender<bool>,
    /// Its clients, when it has a netport.
    pub(crate) clients: Option<Clients>,
    /// Its HTTP connections, when it has a webport.
    pub(crate) front: Option<Front>,
}

/// Why a process keeps, or takes back, what it should hand over. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("the successor is not there: {0}")]
    Door(#[source] io::Error),
    #[error("somebody else waits at the door: {0}")]
    Stranger(String),
    #[error("{0}")]
    Failed(String),
    #[error("the successor has ended")]
    Ended,
    #[error("the connection to the successor broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the successor did not {what} within {ms} ms")]
    TooSlow { what: &'static str, ms: u128 },
    #[error("{handlers} handlers still ran {ms} ms after the pause began (limits.park_ms): {waits}")]
    Busy { handlers: usize, waits: String, ms: u128 },
    #[error("the app's freeze hook failed: {0}")]
    Freeze(String),
    #[error("the node was told to stop")]
    Stopped,
}

type ToSuccessor = Passage<FromNew, FromOld>;
pub(crate) type ToOld = Passage<FromOld, FromNew>;

/// The old process, whose successor serves.
pub(crate) struct HandingOver {
    passage: ToSuccessor,
    frozen: Option<Frozen>,
    /// What is chosen here meanwhile.
    chosen: Arc<AffinityDelta>,
}

/// How the sending of what leaves has ended.
#[derive(PartialEq, Eq)]
enum Sent {
    /// With everything, or at its deadline.
    All,
    /// The whole node is being stopped.
    SuccessorStops,
}

/// What an old process keeps for taking back.
#[derive(Default)]
pub(crate) struct Kept {
    frozen: Option<Frozen>,
    passage: Option<ToSuccessor>,
    /// The HTTP connections that are still here.
    http: Option<Retirement>,
    /// Those that wait for the successor.
    travellers: Vec<Handoff>,
}

pub(crate) fn who(node: &Node) -> Who {
    let cluster = node.identity().local(Vec::new()).cluster.to_string();
    Who { cluster, name: node.name().clone(), incarnation: node.incarnation() }
}

pub(crate) fn is_kin(ours: &Who, theirs: &Who) -> bool {
    ours.cluster == theirs.cluster && ours.name == theirs.name
}

impl Estate {
    /// Hands over until the successor serves. Whatever fails, [`Estate::take_back`] undoes it; `kept` has what
    /// it needs. Not cancel-safe but for that.
    pub(crate) async fn hand_over(&self, door: &Door, kept: &mut Kept) -> Result<HandingOver, HandOverError> {
        let begun = Instant::now();
        let park = self.node.identity().limits().park;
        let mut passage = self.greet(door).await?;
        info!("handing over to the successor");
        let chosen = Arc::<AffinityDelta>::default();
        let frozen = match &self.hooks.freeze {
            None => None,
            Some((version, hook)) => {
                self.pause(begun + park / 2, kept).await?;
                let frozen = run_hook(hook(self.node.clone())).await;
                let bytes = frozen.map_err(|e| HandOverError::Freeze(e.log_text()))?;
                Some(Frozen { version: *version, bytes })
            }
        };
        kept.frozen.clone_from(&frozen);
        let sent = self.send_state(&passage, frozen.as_ref(), chosen.clone()).await;
        let limit = if frozen.is_some() { begun + park } else { begun + SERVES_MAX };
        let told = async {
            sent?;
            expect(&mut passage, "take the state over", &FromNew::Thawed, begun, limit).await?;
            // Whoever connects from now on waits for the successor.
            self.ports.send_replace(false);
            if kept.http.is_none() {
                kept.http = self.retire();
            }
            passage.send(&FromOld::YourTurn, &[]).await?;
            expect(&mut passage, "serve", &FromNew::Serves, begun, limit).await
        };
        let told = told.await;
        match told {
            Ok(()) => Ok(HandingOver { passage, frozen, chosen }),
            Err(error) => {
                kept.passage = Some(passage);
                Err(error)
            }
        }
    }

    async fn greet(&self, door: &Door) -> Result<ToSuccessor, HandOverError> {
        let mut passage: ToSuccessor = door::enter(door).map_err(HandOverError::Door)?;
        let ours = who(&self.node);
        passage.send(&FromOld::Hello(ours.clone()), &[]).await?;
        let heard = timeout(GREETING_MAX, passage.receive()).await;
        let ms = GREETING_MAX.as_millis();
        match heard.map_err(|_| HandOverError::TooSlow { what: "answer", ms })?? {
            Some((FromNew::Hello(theirs), _))
                if is_kin(&ours, &theirs) && theirs.incarnation > ours.incarnation =>
            {
                Ok(passage)
            }
            Some((other, _)) => Err(HandOverError::Stranger(format!("{other:?}"))),
            None => Err(HandOverError::Ended),
        }
    }

    /// Neighbours hold back what is new, clients start nothing new, and what runs comes to its end.
    async fn pause(&self, until: Instant, kept: &mut Kept) -> Result<(), HandOverError> {
        let begun = Instant::now();
        kept.http = self.retire();
        self.node.known_sessions().registry().direct(Directive::Hold);
        let links = self.node.transit().links();
        links.iter().for_each(Link::pause);
        let answered = wait(begun + PAUSE_MAX, || links.iter().all(Link::peer_is_paused));
        if !answered.await {
            warn!("not every neighbour has answered the pause; one that hangs is lost soon");
        }
        if wait(until, || self.is_quiet()).await {
            // Requests of routes end as well; a stream may last, and is not waited for longer.
            let some = begun + (until - begun) / 2;
            while let Some(http) = &mut kept.http
                && let Ok(Some(one)) = timeout_at(some, http.next()).await
            {
                kept.travellers.push(one);
            }
            return Ok(());
        }
        let names: Vec<&str> =
            links.iter().filter(|l| l.waiting_calls() > 0).map(|l| l.peer().name.as_str()).collect();
        let waits = if names.is_empty() {
            "for nothing that the framework sees".to_owned()
        } else {
            format!("for answers of {}", names.join(", "))
        };
        let (handlers, ms) = (self.node.identity().tasks().running_calls(), begun.elapsed().as_millis());
        Err(HandOverError::Busy { handlers, waits, ms })
    }

    /// HTTP connections wait for the successor from now on, each as soon as it is between two requests.
    fn retire(&self) -> Option<Retirement> {
        let until = Instant::now() + self.node.config().drain;
        self.front.as_ref().map(|front| front.retire(until))
    }

    /// Whether nothing runs here, for nobody.
    fn is_quiet(&self) -> bool {
        self.node.identity().tasks().running_calls() == 0
            && !self.node.known_sessions().registry().has_session_at_work()
            && !self.node.transit().park().any()
            && self.node.transit().links().iter().all(|link| link.waiting_calls() == 0)
    }

    async fn send_state(
        &self,
        passage: &ToSuccessor,
        frozen: Option<&Frozen>,
        chosen: Arc<AffinityDelta>,
    ) -> Result<(), HandOverError> {
        let sticky = self.node.transit().affinity().hand_over(chosen);
        for some in sticky.chunks(STICKY_AT_ONCE) {
            passage.send(&FromOld::Sticky(some.to_vec()), &[]).await?;
        }
        self.send_known(passage).await?;
        for some in self.node.known_sessions().users().hand_over().chunks(1024) {
            passage.send(&FromOld::Users(some.to_vec()), &[]).await?;
        }
        for piece in frozen.iter().flat_map(|frozen| frozen.bytes.chunks(STATE_PIECE_BYTES)) {
            passage.send(&FromOld::State(piece.to_vec()), &[]).await?;
        }
        let version = frozen.map(|frozen| frozen.version);
        Ok(passage.send(&FromOld::Frozen { version }, &[]).await?)
    }

    async fn send_known(&self, passage: &ToSuccessor) -> io::Result<()> {
        for some in self.node.known_sessions().remote().hand_over().chunks(1024) {
            passage.send(&FromOld::Known(some.to_vec()), &[]).await?;
        }
        let kept = self.node.records().map(Records::bindings).unwrap_or_default();
        for some in kept.chunks(1024) {
            passage.send(&FromOld::Kept(some.to_vec()), &[]).await?;
        }
        Ok(())
    }

    /// Goes on as before; `kept` as [`Estate::hand_over`] or [`Estate::leave`] has left it.
    pub(crate) async fn take_back(&self, kept: Kept) {
        if let Some(passage) = kept.passage {
            // One that lives leaves; one that is gone needs to hear nothing.
            let _ = timeout(GREETING_MAX, passage.send(&FromOld::TookBack, &[])).await;
        }
        if let (Some(frozen), Some(hook)) = (kept.frozen, &self.hooks.thaw)
            && let Err(e) = run_hook(hook(self.node.clone(), frozen)).await
        {
            warn!("the app's thaw hook failed in the old process: {}", e.log_text());
        }
        if let Some(front) = &self.front {
            drop(kept.http);
            front.resume();
            for (stream, unread) in kept.travellers {
                if let Err(e) = front.adopt(stream, unread) {
                    warn!("an HTTP connection is lost: {e}");
                }
            }
        }
        self.node.transit().affinity().keep();
        self.node.known_sessions().handoff().end();
        self.node.transit().links().iter().for_each(Link::resume);
        match &self.clients {
            Some(clients) => clients.stay(),
            None => self.node.known_sessions().registry().direct(Directive::Run),
        }
        self.node.identity().lifecycle().set_phase(Phase::Ready);
        self.ports.send_replace(true);
    }

    /// Sends everything that is left to the successor, waits until nothing is left, says so by `ended`, and then
    /// waits until the successor is proven. An error means: take back.
    pub(crate) async fn leave(
        &self,
        mut handing: HandingOver,
        deadline: Instant,
        kept: &mut Kept,
        ended: impl FnOnce(),
    ) -> Result<(), HandOverError> {
        kept.frozen = handing.frozen.take();
        let left = self.try_leave(&mut handing, deadline, kept, ended).await;
        if left.is_err() {
            kept.passage = Some(handing.passage);
        }
        left
    }

    /// Whether nothing is left here: no client, no HTTP connection, and no neighbour that needs this process.
    fn has_left(&self, leaving: Option<&Departure>, no_http: bool) -> bool {
        leaving.is_none_or(Departure::is_over)
            && no_http
            && self.node.transit().links().iter().all(Link::peer_has_switched)
            && self.is_quiet()
    }

    /// Whether nothing new can begin here: no client is left, and no child that sends. When a parent is being
    /// replaced, too, its old process and this one would else wait for each other's last word.
    fn begins_nothing(&self, leaving: Option<&Departure>, no_http: bool) -> bool {
        leaving.is_none_or(Departure::is_over)
            && no_http
            && self.node.transit().children().links().all(Link::peer_has_switched)
            && self.is_quiet()
    }

    /// What [`Estate::has_left`] still waits for, for the operator.
    fn what_is_left(&self, no_http: bool) -> String {
        let links = self.node.transit().links();
        let names = |of: &dyn Fn(&&Link) -> bool| {
            let names = links.iter().filter(of).map(|link| link.peer().name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let left = [
            (!self.node.sessions().is_empty()).then(|| format!("{} clients", self.node.sessions().len())),
            (!no_http).then(|| "HTTP connections".to_owned()),
            (self.node.identity().tasks().running_calls() > 0)
                .then(|| format!("{} handlers", self.node.identity().tasks().running_calls())),
            self.node.transit().park().any().then(|| "messages that wait for other nodes".to_owned()),
            Some(format!("links that were not switched: [{}]", names(&|link| !link.peer_has_switched()))),
            Some(format!("answers of: [{}]", names(&|link| link.waiting_calls() > 0))),
        ];
        left.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Sends what leaves, until nothing is left or the time is over.
    async fn send_all(
        &self,
        passage: &mut ToSuccessor,
        chosen: &AffinityDelta,
        leaving: &mut Option<Departure>,
        http: &mut Option<Retirement>,
        deadline: Instant,
    ) -> Result<Sent, HandOverError> {
        let mut said_last = false;
        let (answer, mut answers) = mpsc::channel(ASKED_MAX);
        loop {
            // Also when nothing was left from the begin on: neighbours that are replaced next wait for it.
            if !said_last && self.begins_nothing(leaving.as_ref(), http.is_none()) {
                said_last = true;
                self.node.transit().links().iter().for_each(Link::last_call);
            }
            if self.has_left(leaving.as_ref(), http.is_none()) {
                break;
            }
            if Instant::now() >= deadline {
                warn!("not everything ended in time (drain_s): {}", self.what_is_left(http.is_none()));
                break;
            }
            tokio::select! {
                biased;
                said = passage.receive() => match said? {
                    Some((FromNew::Asked { number, session, body }, _)) => {
                        answer_successor(self.node.known_sessions(), &answer, number, session, &body);
                    }
                    said => if heard(said)? {
                        return Ok(Sent::SuccessorStops);
                    },
                },
                Some(answered) = answers.recv() => passage.send(&answered, &[]).await?,
                some = chosen.next(STICKY_AT_ONCE) => passage.send(&FromOld::Sticky(some), &[]).await?,
                // Before the next client: it has got those that are queued.
                payload = self.node.known_sessions().handoff().next() => {
                    passage.send(&FromOld::Broadcast(payload), &[]).await?;
                }
                one = next_client(leaving) => if let Err(error) = send_client(passage, &one).await {
                    if let Some(clients) = &self.clients {
                        clients.take_back(one);
                    }
                    return Err(error.into());
                },
                next = next_http(http) => match next {
                    Some((stream, unread)) => {
                        passage.send(&FromOld::Http { unread }, &[stream.as_fd()]).await?;
                    }
                    None => *http = None,
                },
                () = tokio::time::sleep(LOOK_EVERY) => leaving.iter_mut().for_each(Departure::tell_more),
            }
        }
        while let Some(payload) = self.node.known_sessions().handoff().take() {
            passage.send(&FromOld::Broadcast(payload), &[]).await?;
        }
        // What is not answered is asked of the successor itself.
        while let Ok(answered) = answers.try_recv() {
            passage.send(&answered, &[]).await?;
        }
        Ok(Sent::All)
    }

    async fn try_leave(
        &self,
        handing: &mut HandingOver,
        deadline: Instant,
        kept: &mut Kept,
        ended: impl FnOnce(),
    ) -> Result<(), HandOverError> {
        self.node.identity().lifecycle().set_phase(Phase::HandedOver);
        let HandingOver { passage, chosen, .. } = handing;
        while let Some((stream, unread)) = kept.travellers.pop() {
            passage.send(&FromOld::Http { unread }, &[stream.as_fd()]).await?;
        }
        // What neighbours have sent here for a session is done before the session leaves; what they send from
        // now on waits at the successor.
        if self.clients.is_some() {
            let links = self.node.transit().links();
            if !wait(Instant::now() + PAUSE_MAX, || links.iter().all(Link::peer_has_switched)).await {
                let late: Vec<String> = links
                    .iter()
                    .filter(|link| !link.peer_has_switched())
                    .map(|link| format!("{} (start {})", link.peer().name, link.peer().incarnation))
                    .collect();
                warn!("clients leave before these have turned to the successor: {}", late.join(", "));
            }
        }
        self.node.known_sessions().handoff().begin();
        let mut leaving = self.clients.as_ref().map(Clients::leave);
        if self.send_all(passage, chosen, &mut leaving, &mut kept.http, deadline).await?
            == Sent::SuccessorStops
        {
            return Ok(());
        }
        let lingers = Instant::now() + LINGER;
        // Those that were opened here meanwhile.
        self.send_known(passage).await?;
        passage.send(&FromOld::Done, &[]).await?;
        ended();
        let proven = Instant::now() + self.node.identity().limits().prove + MARGIN;
        let said = timeout_at(proven, passage.receive()).await;
        tokio::time::sleep_until(lingers).await;
        match said {
            // A successor that lives and is silent is trusted after all: it serves.
            Err(_late) => Ok(()),
            Ok(said) => match said?.map(|(said, _)| said) {
                Some(FromNew::Proven) => Ok(()),
                Some(FromNew::Failed { reason }) => Err(HandOverError::Failed(reason)),
                Some(_) | None => Err(HandOverError::Ended),
            },
        }
    }
}

/// The next client that leaves; for ever none when there are no clients.
async fn next_client(leaving: &mut Option<Departure>) -> Leaving {
    match leaving {
        Some(leaving) => leaving.next().await,
        None => std::future::pending().await,
    }
}

/// The next HTTP connection that leaves; for ever none when that is over.
async fn next_http(http: &mut Option<Retirement>) -> Option<Handoff> {
    match http {
        Some(http) => http.next().await,
        None => std::future::pending().await,
    }
}

/// Before `Done` a successor that serves says nothing, unless it fails; or it is told to stop, and then this
/// process has nothing to wait for either: true.
fn heard<D>(said: Option<(FromNew, D)>) -> Result<bool, HandOverError> {
    match said.map(|(said, _)| said) {
        None => Err(HandOverError::Ended),
        Some(FromNew::Failed { reason }) => Err(HandOverError::Failed(reason)),
        Some(said) => Ok(said == FromNew::Proven),
    }
}

async fn send_client(passage: &ToSuccessor, one: &Leaving) -> io::Result<()> {
    if !one.sticky.is_empty() {
        passage.send(&FromOld::Sticky(one.sticky.clone()), &[]).await?;
    }
    passage.send(&FromOld::Session(Box::new(one.record.clone())), &[one.socket.as_fd()]).await
}

async fn expect(
    passage: &mut ToSuccessor,
    what: &'static str,
    wanted: &FromNew,
    begun: Instant,
    limit: Instant,
) -> Result<(), HandOverError> {
    let too_slow = |_| HandOverError::TooSlow { what, ms: begun.elapsed().as_millis() };
    match timeout_at(limit, passage.receive()).await.map_err(too_slow)?? {
        Some((said, _)) if said == *wanted => Ok(()),
        Some((FromNew::Failed { reason }, _)) => Err(HandOverError::Failed(reason)),
        Some((other, _)) => Err(HandOverError::Stranger(format!("{other:?}"))),
        None => Err(HandOverError::Ended),
    }
}

/// Looks until `done`, at most until `until`.
async fn wait(until: Instant, done: impl Fn() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(crate) async fn run_hook<T: Send + 'static>(
    hook: impl Future<Output = Result<T, HandlerError>> + Send + 'static,
) -> Result<T, HandlerError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    Execution::hook(async move {
        let _ = tell.send(hook.await?);
        Ok(None)
    })
    .await?;
    told.await.map_err(HandlerError::internal)
}

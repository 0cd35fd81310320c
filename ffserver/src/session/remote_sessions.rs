//! Replicas: the sessions of other net nodes that this node handles, as far as it has been told of them.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use ffproto::handover::ReplicaRecord;
use ffproto::relay::SessionState;
use ffproto::{Fault, NodeNumber, SessionId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::cluster::side::{PeerKey, Side};
use crate::session::queue::QueueLimits;

/// A replica: a session of another net node.
pub(crate) struct RemoteSession {
    pub(crate) id: SessionId,
    /// The neighbour that the session's messages come from: what is sent to the client goes there, behind their
    /// answers.
    neighbour: Mutex<PeerKey>,
    state: Mutex<Arc<SessionState>>,
    gone: AtomicBool,
    /// Whether the hook at the replica's opening has run.
    opened: AtomicBool,
    /// Whether the app has been told that the session has a user.
    verified: AtomicBool,
    /// Whether the session's messages come here: it has not been moved away.
    here: AtomicBool,
    /// The last of the session's moves that it came here with.
    entered: AtomicU32,
    /// The turn of the replica: held while a hook of it runs, so that hooks come in their order.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl RemoteSession {
    /// A replica whose opening the app knows of, and its user if it has one, when `opened`.
    fn new(id: SessionId, neighbour: PeerKey, state: SessionState, opened: bool) -> Self {
        let verified = AtomicBool::new(opened && state.user.is_some());
        let (state, gone, turn) = (Mutex::new(Arc::new(state)), AtomicBool::new(false), Default::default());
        let (here, entered, neighbour) = (AtomicBool::new(false), AtomicU32::new(0), Mutex::new(neighbour));
        Self { id, neighbour, state, gone, opened: AtomicBool::new(opened), verified, here, entered, turn }
    }

    /// The neighbour that leads to the session's net node.
    pub(crate) fn neighbour(&self) -> PeerKey {
        self.neighbour.lock().clone()
    }

    /// Sets another neighbour as the one that leads to the session's net node.
    pub(crate) fn turn_to(&self, neighbour: PeerKey) {
        *self.neighbour.lock() = neighbour;
    }

    /// Notes that one of the session's moves brings it here. False when that move is known.
    pub(crate) fn enters(&self, number: u32) -> bool {
        let new = self.entered.fetch_max(number, Ordering::SeqCst) < number;
        if new {
            self.here.store(true, Ordering::SeqCst);
        }
        new
    }

    /// Notes that the session was moved away. False when it was not here.
    pub(crate) fn leaves(&self) -> bool {
        self.here.swap(false, Ordering::SeqCst)
    }

    /// Whether the session's messages are handled here.
    pub(crate) fn handles_here(&self) -> bool {
        self.here.load(Ordering::SeqCst)
    }

    /// Notes that the hook at the replica's opening has run.
    pub(crate) fn set_opened(&self) {
        self.opened.store(true, Ordering::SeqCst);
    }

    /// Whether the app must be told that the session has a user: true for one caller, when the session has one and its
    /// opening has been told.
    pub(crate) fn becomes_verified(&self) -> bool {
        self.opened.load(Ordering::SeqCst)
            && self.state().user.is_some()
            && !self.verified.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.state.lock().clone()
    }

    /// Takes a state over, unless it is older than the known one.
    pub(crate) fn update(&self, state: SessionState) {
        let mut known = self.state.lock();
        if state.version > known.version {
            *known = Arc::new(state);
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// A job that waits until a session is known: it is given whether that is so, and then goes on.
pub(crate) type ReplicaJob = Box<dyn FnOnce(Result<(), Fault>) + Send>;

enum ReplicaEntry {
    /// The session's net node has been asked, or the hook at its opening runs.
    Opening(Opening),
    Open(Arc<RemoteSession>),
}

#[derive(Default)]
struct Opening {
    jobs: VecDeque<ReplicaJob>,
    /// The bytes that the jobs keep in memory; counted for all that have come, as the opening lasts a moment only.
    bytes: usize,
    remote: Option<Arc<RemoteSession>>,
    /// A state that came before the answer of the net node had been looked at.
    newer: Option<SessionState>,
    ended: bool,
}

/// The admission of a job, and what it came to.
pub(crate) enum JobAdmission {
    /// The session is known: run it now.
    Now(ReplicaJob),
    /// The job waits.
    Waits,
    /// The job waits, and is the first: the net node must be asked.
    First,
    /// Too many jobs wait.
    Full(ReplicaJob),
}

/// The table of replicas: one entry for each session whose messages have come here, until it has ended.
#[derive(Default)]
pub(crate) struct RemoteSessions {
    entries: Mutex<FxHashMap<SessionId, ReplicaEntry>>,
    /// The number of replicas that have ended and are not closed yet: mostly none, and then no look is needed.
    ending: AtomicUsize,
}

impl RemoteSessions {
    /// The replica, if the session is known.
    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<RemoteSession>> {
        match self.entries.lock().get(&id)? {
            ReplicaEntry::Open(remote) => Some(remote.clone()),
            ReplicaEntry::Opening(opening) => opening.remote.clone(),
        }
    }

    /// Whether messages of the session may run at once.
    pub(crate) fn is_open(&self, id: SessionId) -> bool {
        matches!(self.entries.lock().get(&id), Some(ReplicaEntry::Open(_)))
    }

    /// Notes that a message of the session is handled here, and came by way of `neighbour`, which leads to the session from
    /// now on unless another neighbour `leads` to it. Returns whether the message may run at once; when `stays`, the
    /// session is here.
    pub(crate) fn takes_message(
        &self,
        id: SessionId,
        stays: bool,
        neighbour: &PeerKey,
        leads: impl Fn(&PeerKey) -> bool,
    ) -> bool {
        match self.entries.lock().get(&id) {
            Some(ReplicaEntry::Open(remote)) => {
                if stays && !remote.here.load(Ordering::Relaxed) {
                    remote.here.store(true, Ordering::SeqCst);
                }
                let mut known = remote.neighbour.lock();
                if *known != *neighbour && !leads(&known) {
                    known.clone_from(neighbour);
                }
                true
            }
            _ => false,
        }
    }

    /// Notes that a message of the session is handled here that has waited for it.
    pub(crate) fn is_here(&self, id: SessionId) {
        if let Some(remote) = self.get(id) {
            remote.here.store(true, Ordering::SeqCst);
        }
    }

    /// Lets a job run, which keeps so many bytes, now or when the session is known, behind those before it, within
    /// the limits. The first always waits.
    pub(crate) fn admit(
        &self,
        id: SessionId,
        limits: QueueLimits,
        bytes: usize,
        job: ReplicaJob,
    ) -> JobAdmission {
        let mut entries = self.entries.lock();
        match entries.get_mut(&id) {
            None => {
                let opening = Opening { jobs: VecDeque::from([job]), bytes, ..Opening::default() };
                entries.insert(id, ReplicaEntry::Opening(opening));
                JobAdmission::First
            }
            Some(ReplicaEntry::Opening(opening))
                if opening.jobs.len() >= limits.messages_max
                    || opening.bytes.saturating_add(bytes) > limits.bytes_max =>
            {
                JobAdmission::Full(job)
            }
            Some(ReplicaEntry::Opening(opening)) => {
                opening.bytes += bytes;
                opening.jobs.push_back(job);
                JobAdmission::Waits
            }
            Some(ReplicaEntry::Open(_)) => JobAdmission::Now(job),
        }
    }

    /// Adds the replica of a session of which its net node has told; jobs still wait.
    pub(crate) fn add(&self, id: SessionId, state: SessionState, neighbour: PeerKey) -> Arc<RemoteSession> {
        let new = Arc::new(RemoteSession::new(id, neighbour, state, false));
        if let Some(ReplicaEntry::Opening(opening)) = self.entries.lock().get_mut(&id) {
            opening.newer.take().into_iter().for_each(|state| new.update(state));
            opening.remote = Some(new.clone());
            if opening.ended {
                self.gone(&new);
            }
        }
        new
    }

    /// Takes a new state that the net node tells. Returns the replica, if the session is known.
    pub(crate) fn update(&self, id: SessionId, state: SessionState) -> Option<Arc<RemoteSession>> {
        match self.entries.lock().get_mut(&id) {
            Some(
                ReplicaEntry::Opening(Opening { remote: Some(remote), .. }) | ReplicaEntry::Open(remote),
            ) => {
                remote.update(state);
                return Some(remote.clone());
            }
            Some(ReplicaEntry::Opening(opening)) => opening.newer = Some(state),
            None => {}
        }
        None
    }

    /// The next job; when none waits the session is open, and later ones run at once.
    pub(crate) fn next_job(&self, id: SessionId) -> Option<ReplicaJob> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id)?;
        let ReplicaEntry::Opening(opening) = entry else { return None };
        let job = opening.jobs.pop_front();
        if job.is_none()
            && let Some(remote) = opening.remote.take()
        {
            *entry = ReplicaEntry::Open(remote);
        }
        job
    }

    /// Removes a session that its net node does not know, or that cannot be asked for. Returns the jobs that wait, to
    /// be told so.
    pub(crate) fn give_up(&self, id: SessionId) -> VecDeque<ReplicaJob> {
        match self.entries.lock().remove(&id) {
            Some(ReplicaEntry::Opening(opening)) => opening.jobs,
            _ => VecDeque::new(),
        }
    }

    /// Notes that a session has ended: nothing can be sent to it from now on.
    pub(crate) fn ended(&self, id: SessionId) {
        match self.entries.lock().get_mut(&id) {
            Some(
                ReplicaEntry::Opening(Opening { remote: Some(remote), .. }) | ReplicaEntry::Open(remote),
            ) => {
                self.gone(remote);
            }
            Some(ReplicaEntry::Opening(opening)) => opening.ended = true,
            None => {}
        }
    }

    fn gone(&self, remote: &RemoteSession) {
        if !remote.gone.swap(true, Ordering::Relaxed) {
            self.ending.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets a session that has ended and whose last message has been handled; `Some` for one caller only.
    pub(crate) fn close(&self, id: SessionId) -> Option<Arc<RemoteSession>> {
        if self.ending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut entries = self.entries.lock();
        match entries.get(&id)? {
            ReplicaEntry::Open(remote) if remote.is_gone() => {
                let remote = remote.clone();
                entries.remove(&id);
                self.ending.fetch_sub(1, Ordering::Relaxed);
                Some(remote)
            }
            _ => None,
        }
    }

    /// The open replicas, for a successor of this process.
    pub(crate) fn hand_over(&self) -> Vec<ReplicaRecord> {
        let entries = self.entries.lock();
        let open = entries.values().filter_map(|entry| match entry {
            ReplicaEntry::Open(remote) if !remote.is_gone() => Some(remote),
            _ => None,
        });
        let known = |remote: &Arc<RemoteSession>| {
            let PeerKey { side, name: neighbour } = remote.neighbour();
            let from_parent = side == Side::Parent;
            let (here, entered) = (&remote.here, &remote.entered);
            let (here, entered) = (here.load(Ordering::SeqCst), entered.load(Ordering::SeqCst));
            ReplicaRecord {
                id: remote.id,
                neighbour,
                from_parent,
                state: (*remote.state()).clone(),
                here,
                entered,
            }
        };
        open.map(known).collect()
    }

    /// Takes over a replica that the predecessor has opened.
    pub(crate) fn take_over(&self, session: ReplicaRecord) {
        let ReplicaRecord { id, neighbour, from_parent, state, here, entered } = session;
        let side = if from_parent { Side::Parent } else { Side::Child };
        let neighbour = PeerKey::new(side, neighbour);
        match self.entries.lock().entry(id) {
            // The session is known already: this is what the predecessor was told since, when it is newer.
            MapEntry::Occupied(known) => {
                if let ReplicaEntry::Open(remote) = known.get() {
                    remote.update(state);
                    if remote.entered.fetch_max(entered, Ordering::SeqCst) < entered {
                        remote.here.store(here, Ordering::SeqCst);
                    }
                }
            }
            MapEntry::Vacant(place) => {
                let remote = RemoteSession::new(id, neighbour, state, true);
                remote.here.store(here, Ordering::SeqCst);
                remote.entered.store(entered, Ordering::SeqCst);
                place.insert(ReplicaEntry::Open(Arc::new(remote)));
            }
        }
    }

    /// The sessions of a net node that have a replica here.
    pub(crate) fn of(&self, node: NodeNumber) -> Vec<SessionId> {
        self.entries.lock().keys().copied().filter(|id| id.node() == node).collect()
    }

    /// The net nodes whose sessions have replicas here.
    pub(crate) fn nodes(&self) -> Vec<NodeNumber> {
        let mut nodes: Vec<NodeNumber> = self.entries.lock().keys().map(|id| id.node()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use ffproto::NodeName;

    use super::*;

    fn gate() -> PeerKey {
        PeerKey::new(Side::Parent, NodeName::try_from("gate").unwrap())
    }

    const ALICE: SessionId = SessionId(1);
    const LIMITS: QueueLimits = QueueLimits { messages_max: 2, bytes_max: 100 };

    fn state(version: u64) -> SessionState {
        let address = "127.0.0.1:1".parse().unwrap();
        SessionState { version, address, user: None, attributes: Default::default() }
    }

    #[test]
    fn what_waits_for_a_session_runs_in_order_before_what_comes_later() {
        let (known, ran) = (RemoteSessions::default(), Arc::new(Mutex::new(Vec::new())));
        let job = |n: u32| -> ReplicaJob {
            let ran = ran.clone();
            Box::new(move |outcome| ran.lock().push((n, outcome.is_ok())))
        };
        assert!(matches!(known.admit(ALICE, LIMITS, 60, job(1)), JobAdmission::First));
        assert!(matches!(known.admit(ALICE, LIMITS, 41, job(2)), JobAdmission::Full(_)), "too many bytes");
        assert!(matches!(known.admit(ALICE, LIMITS, 0, job(2)), JobAdmission::Waits));
        assert!(matches!(known.admit(ALICE, LIMITS, 0, job(3)), JobAdmission::Full(_)), "too many");
        known.add(ALICE, state(1), gate());
        assert!(!known.is_open(ALICE), "the hook at its opening runs");
        known.next_job(ALICE).unwrap()(Ok(()));
        assert!(matches!(known.admit(ALICE, LIMITS, 0, job(4)), JobAdmission::Waits), "behind the second");
        while let Some(job) = known.next_job(ALICE) {
            job(Ok(()));
        }
        let JobAdmission::Now(fifth) = known.admit(ALICE, LIMITS, 0, job(5)) else { panic!("it is open") };
        fifth(Ok(()));
        assert_eq!(*ran.lock(), [(1, true), (2, true), (4, true), (5, true)]);
    }

    #[test]
    fn a_session_is_closed_once_and_an_older_state_changes_nothing() {
        let known = RemoteSessions::default();
        known.admit(ALICE, LIMITS, 0, Box::new(|_| {}));
        known.update(ALICE, state(5));
        let remote = known.add(ALICE, state(3), gate());
        assert_eq!(remote.state().version, 5, "it came behind the answer and was looked at before");
        remote.update(state(4));
        assert_eq!(remote.state().version, 5);
        remote.update(state(6));
        assert_eq!(remote.state().version, 6);
        known.ended(ALICE);
        assert!(known.close(ALICE).is_none(), "its first message has not run");
        known.next_job(ALICE).unwrap()(Ok(()));
        assert!(known.next_job(ALICE).is_none());
        assert!(remote.is_gone());
        assert!(known.close(ALICE).is_some());
        assert!(known.close(ALICE).is_none());
    }

    #[test]
    fn what_the_old_process_has_heard_since_it_told_of_a_session_is_taken_over_too() {
        let known = RemoteSessions::default();
        let session = |version, here, entered| ReplicaRecord {
            id: ALICE,
            neighbour: gate().name,
            from_parent: true,
            state: state(version),
            here,
            entered,
        };
        known.take_over(session(1, false, 0));
        known.take_over(session(3, true, 1));
        let remote = known.get(ALICE).unwrap();
        assert_eq!(remote.state().version, 3);
        assert!(!remote.enters(1) && remote.leaves(), "it has come to the old process");
        known.take_over(session(2, true, 1));
        assert_eq!(remote.state().version, 3, "what this process has heard is newer");
        assert!(!remote.leaves(), "it has left since");
    }

    #[test]
    fn a_session_turns_to_another_neighbour_when_its_own_leads_there_no_more() {
        let known = RemoteSessions::default();
        known.take_over(ReplicaRecord {
            id: ALICE,
            neighbour: gate().name,
            from_parent: true,
            state: state(1),
            here: true,
            entered: 0,
        });
        let other = PeerKey::new(Side::Parent, NodeName::try_from("gate2").unwrap());
        assert!(known.takes_message(ALICE, true, &other, |_| true));
        assert_eq!(
            known.get(ALICE).unwrap().neighbour(),
            gate(),
            "pushes keep their way as long as it leads there"
        );
        assert!(known.takes_message(ALICE, true, &other, |_| false));
        assert_eq!(known.get(ALICE).unwrap().neighbour(), other);
    }

    #[test]
    fn an_end_that_overtakes_the_answer_is_not_forgotten() {
        let known = RemoteSessions::default();
        known.admit(ALICE, LIMITS, 0, Box::new(|_| {}));
        known.ended(ALICE);
        assert!(known.add(ALICE, state(1), gate()).is_gone());
        known.next_job(ALICE).unwrap()(Ok(()));
        assert!(known.next_job(ALICE).is_none());
        assert!(known.close(ALICE).is_some());
    }

    #[test]
    fn a_session_that_its_net_node_does_not_know_gives_back_what_waits() {
        let known = RemoteSessions::default();
        known.admit(ALICE, LIMITS, 0, Box::new(|_| {}));
        known.admit(ALICE, LIMITS, 0, Box::new(|_| {}));
        assert_eq!(known.give_up(ALICE).len(), 2);
        assert_eq!(known.nodes(), []);
    }
}

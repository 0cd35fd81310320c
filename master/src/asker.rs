//! The asker: asks linked nodes over their control connections, and gathers what they answer within a deadline.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ffproto::control::ToNode;
use ffproto::question::{Answer, Question};
use ffproto::{Incarnation, NodeName, Version};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::supervisor::machine::Tell;

/// How long a node may take for what it can tell at once: one that is well takes a few milliseconds.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(250);

/// The asker of one master. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Asker(Arc<Mutex<State>>);

/// One start of a node.
pub(crate) type Process = (NodeName, Incarnation);

#[derive(Default)]
struct State {
    links: HashMap<Process, NodeLink>,
    asking: HashMap<u64, mpsc::UnboundedSender<(Process, Told)>>,
    last_ask: u64,
}

/// A control connection, as the asker sees it.
struct NodeLink {
    conn: u64,
    version: Version,
    outbox: mpsc::Sender<Tell>,
}

/// What nodes are asked.
#[derive(Debug, Clone)]
pub(crate) enum Asks {
    /// The metrics.
    Metrics,
    /// A question of an operator.
    Question(Question),
}

/// What a node has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Its metrics.
    Metrics(String),
    /// The answer to a question of an operator.
    Answer(Answer),
}

/// Why a process that was asked has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It had this long.
    Late(Duration),
    /// Its release does not know the question.
    TooOld,
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late(within) => write!(f, "no answer within {} ms", within.as_millis()),
            Self::TooOld => f.write_str("its release is too old for that: reload it to this one"),
        }
    }
}

impl Asks {
    fn message(&self, ask: u64) -> ToNode {
        match self {
            Self::Metrics => ToNode::Metrics { ask },
            Self::Question(question) => ToNode::Ask { ask, question: question.clone() },
        }
    }

    fn is_known_to(&self, version: Version) -> bool {
        matches!(self, Self::Metrics) || version.has(Version::QUESTIONS)
    }
}

impl Asker {
    /// A node has a control connection, on which a version is spoken.
    pub(crate) fn linked(&self, process: Process, conn: u64, version: Version, outbox: mpsc::Sender<Tell>) {
        self.0.lock().links.insert(process, NodeLink { conn, version, outbox });
    }

    /// That connection has ended. The process may live, and come back.
    pub(crate) fn unlinked(&self, process: &Process, conn: u64) {
        let mut state = self.0.lock();
        if state.links.get(process).is_some_and(|link| link.conn == conn) {
            state.links.remove(process);
        }
    }

    /// The processes that have a control connection now.
    pub(crate) fn all_linked(&self) -> Vec<Process> {
        self.0.lock().links.keys().cloned().collect()
    }

    /// Tells the linked processes of a node, or of all, something that came with a version; how many were told.
    pub(crate) fn tell(&self, node: Option<&NodeName>, since: Version, message: &ToNode) -> usize {
        let state = self.0.lock();
        let meant = state.links.iter().filter(|((name, _), _)| node.is_none_or(|node| node == name));
        let told = meant.filter(|(_, link)| {
            link.version.has(since) && link.outbox.try_send(Tell::Message(message.clone())).is_ok()
        });
        told.count()
    }

    /// A node answers; given back when nobody waits for it.
    pub(crate) fn answered(&self, process: Process, ask: u64, told: Told) -> Option<(Process, Told)> {
        match self.0.lock().asking.get(&ask) {
            // Read by who has asked, and not by the task of a connection.
            Some(asking) => asking.send((process, told)).err().map(|unread| unread.0),
            None => Some((process, told)),
        }
    }

    /// Asks the linked processes that are `meant`, and gives each answer to `each` as it comes, until all have come or the time is
    /// over. Returns those that have not answered.
    pub(crate) async fn ask(
        &self,
        asks: &Asks,
        meant: impl Fn(&Process) -> bool,
        within: Duration,
        mut each: impl FnMut(Process, Told),
    ) -> Vec<(Process, Silence)> {
        let until = Instant::now() + within;
        let (ask, mut open, mut silent, mut answers) = self.0.lock().begin(asks, meant);
        while !open.is_empty() {
            let Ok(Some((process, told))) = timeout_at(until, answers.recv()).await else { break };
            if open.remove(&process) {
                each(process, told);
            }
        }
        self.0.lock().asking.remove(&ask);
        silent.extend(open.into_iter().map(|process| (process, Silence::Late(within))));
        silent
    }
}

/// A question that has been asked: its number, who is to answer, who cannot, and where the answers come.
type Begun = (u64, HashSet<Process>, Vec<(Process, Silence)>, mpsc::UnboundedReceiver<(Process, Told)>);

impl State {
    fn begin(&mut self, asks: &Asks, meant: impl Fn(&Process) -> bool) -> Begun {
        self.last_ask += 1;
        let ask = self.last_ask;
        let (asking, answers) = mpsc::unbounded_channel();
        // Who has gone away while he waited.
        self.asking.retain(|_, asking| !asking.is_closed());
        self.asking.insert(ask, asking);
        let (mut asked, mut silent) = (HashSet::new(), Vec::new());
        for (process, link) in self.links.iter().filter(|(process, _)| meant(process)) {
            if !asks.is_known_to(link.version) {
                silent.push((process.clone(), Silence::TooOld));
                continue;
            }
            // One whose outbox is full does not take its messages: it is late as well.
            let _ = link.outbox.try_send(Tell::Message(asks.message(ask)));
            asked.insert(process.clone());
        }
        (ask, asked, silent, answers)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fixture::name;

    /// A process that answers every question as `answer` says, or not at all.
    pub(crate) fn answering(
        asker: &Asker,
        process: Process,
        answer: impl Fn(Question) -> Option<Answer> + Send + 'static,
    ) {
        let (outbox, mut tells) = mpsc::channel(8);
        asker.linked(process.clone(), 1, Version::QUESTIONS, outbox);
        let asker = asker.clone();
        tokio::spawn(async move {
            while let Some(tell) = tells.recv().await {
                let Tell::Message(ToNode::Ask { ask, question }) = tell else { continue };
                if let Some(answer) = answer(question) {
                    asker.answered(process.clone(), ask, Told::Answer(answer));
                }
            }
        });
    }

    fn process(node: &str, incarnation: u64) -> Process {
        (name(node), Incarnation(incarnation))
    }

    async fn ask(asker: &Asker, within: Duration) -> (Vec<Process>, Vec<(Process, Silence)>) {
        let (asks, mut answered) = (Asks::Question(Question::Commands), Vec::new());
        let silent = asker.ask(&asks, |_| true, within, |process, _| answered.push(process)).await;
        answered.sort();
        (answered, silent)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_named_when_the_time_is_over_and_holds_nobody_back_before() {
        let asker = Asker::default();
        for node in ["gate", "net"] {
            answering(&asker, process(node, 1), |_| Some(Answer::NoCommand));
        }
        let (begun, within) = (Instant::now(), Duration::from_secs(5));
        assert_eq!(ask(&asker, within).await, (vec![process("gate", 1), process("net", 1)], vec![]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        answering(&asker, process("game1", 1), |_| None);
        let (answered, silent) = ask(&asker, within).await;
        assert_eq!((answered.len(), begun.elapsed()), (2, within));
        assert_eq!(silent, [(process("game1", 1), Silence::Late(within))]);
        assert_eq!(silent[0].1.to_string(), "no answer within 5000 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_a_release_without_questions_is_named_and_told_nothing() {
        let asker = Asker::default();
        let (outbox, mut tells) = mpsc::channel(8);
        asker.linked(process("old", 1), 1, Version(3), outbox);
        answering(&asker, process("new", 1), |_| Some(Answer::NoCommand));
        let (answered, silent) = ask(&asker, ANSWER_MAX).await;
        assert_eq!((answered, silent), (vec![process("new", 1)], vec![(process("old", 1), Silence::TooOld)]));
        assert!(tells.try_recv().is_err(), "it would hang up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waits_for_comes_back_and_one_of_another_process_is_none() {
        let asker = Asker::default();
        let late = (process("net", 1), Told::Answer(Answer::NoCommand));
        assert_eq!(asker.answered(late.0.clone(), 7, late.1.clone()), Some(late));
        let (outbox, mut tells) = mpsc::channel(8);
        asker.linked(process("net", 1), 1, Version::QUESTIONS, outbox);
        let (of, stranger) = (asker.clone(), process("gate", 9));
        tokio::spawn(async move {
            if let Some(Tell::Message(ToNode::Ask { ask, .. })) = tells.recv().await {
                of.answered(stranger, ask, Told::Answer(Answer::NoCommand));
            }
            std::future::pending::<()>().await;
        });
        let (answered, silent) = ask(&asker, ANSWER_MAX).await;
        assert_eq!((answered, silent.len()), (vec![], 1));
    }
}

//! Commands that take time: a queue of steps, one node at a time, each with an outcome that was seen.

use std::collections::VecDeque;

use ffconfig::{Cluster, Node, Restart};
use ffnet::backoff::Backoff;
use ffproto::NodeName;

use super::seat::State;
use super::{Answer, Ask, Command, Machine, Moment, Outcome, Refused};
use crate::supervisor::order;

/// What a step does with its node.
#[derive(Debug)]
enum Act {
    Start,
    Stop,
    /// Stop it and forget it.
    Remove,
    /// Stop it if it runs and start it, with another config if there is one.
    Replace(Option<Box<Node>>),
    /// Somebody else's node, or one that an operator has stopped: take over its config, touch nothing.
    Note(Box<Node>),
}

/// How far the current step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The node must be down first.
    Leaving,
    /// The node must become ready.
    Coming,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Job {
    ask: Ask,
    what: &'static str,
    steps: VecDeque<(NodeName, Act)>,
    current: Option<Current>,
    done: Vec<Outcome>,
}

impl Job {
    /// For whoever is refused meanwhile.
    pub(super) fn title(&self) -> String {
        match &self.current {
            Some((node, ..)) => format!("a {} is at `{node}`", self.what),
            None => format!("a {} is running", self.what),
        }
    }
}

impl Machine {
    pub(super) fn begin_job(&mut self, ask: Ask, command: Command, now: Moment) {
        let planned = match command {
            Command::Stop(node) => self.single(node, "stop", Act::Stop),
            Command::Start(node) => self.single(node, "start", Act::Start),
            Command::Restart(node) => self.single(node, "restart", Act::Replace(None)),
            Command::Reload { cluster, elsewhere, only: Some(node) } => {
                self.reload_one(&cluster, &elsewhere, node)
            }
            Command::Reload { cluster, elsewhere, only: None } => {
                Ok(self.reload_all(&cluster, &elsewhere, now))
            }
            Command::StopAll | Command::KillAll => return,
        };
        match planned {
            Ok((what, steps)) => self.job = Some(Job { ask, what, steps, current: None, done: Vec::new() }),
            Err(refused) => self.answer(ask, Err(refused)),
        }
    }

    fn single(&self, node: NodeName, what: &'static str, act: Act) -> Planned {
        let seat = self.seats.get(&node).ok_or_else(|| self.unknown(&node))?;
        if !seat.is_ours_to_start() && !matches!(act, Act::Stop) {
            let text =
                format!("`{node}` is started by somebody else: `master single {node} CONFIG` on its host");
            return Err(Refused::Conflict(text));
        }
        Ok((what, VecDeque::from([(node, act)])))
    }

    fn unknown(&self, node: &NodeName) -> Refused {
        Refused::Unknown { name: node.to_string(), nearest: None }
    }

    fn reload_one(&self, cluster: &Cluster, elsewhere: &[NodeName], name: NodeName) -> Planned {
        let Some(node) = cluster.node(name.as_str()) else {
            let text = format!("the config has no `{name}` any more: reload all nodes to stop it");
            return Err(self
                .seats
                .get(&name)
                .map_or_else(|| self.unknown(&name), |_| Refused::Conflict(text)));
        };
        if !self.seats.contains_key(&name) {
            return Err(Refused::Conflict(format!(
                "`{name}` is new in the config: reload all nodes to start it"
            )));
        }
        if elsewhere.contains(&name) == self.is_here(&name) {
            return Err(Refused::Conflict(format!("`{name}` moves to another host: reload all nodes")));
        }
        self.single(name, "reload", Act::Replace(Some(Box::new(node.clone()))))
    }

    /// One node at a time: first what is there or new, parents before children, so that whoever starts
    /// finds its parents; then what is no longer wanted, children before parents.
    fn reload_all(&mut self, new: &Cluster, elsewhere: &[NodeName], now: Moment) -> (&'static str, Steps) {
        self.restart = new.master.restart.clone();
        let removed = |node: &&Node| new.node(node.name.as_str()).is_none();
        let removed = order::stop_waves(self.nodes().filter(removed)).concat();
        let mut steps = VecDeque::new();
        for name in order::start_order(&new.nodes) {
            let Some(node) = new.node(name.as_str()).cloned() else { continue };
            let here = !elsewhere.contains(&name);
            let Some(seat) = self.seats.get_mut(&name) else {
                let number = self.free_number();
                self.add_seat(node, here, number, now);
                steps.push_back((name, Act::Start));
                continue;
            };
            seat.here = here;
            let replace = seat.is_ours_to_start() && !matches!(seat.state, State::Stopped);
            let act = if replace { Act::Replace(Some(node.into())) } else { Act::Note(node.into()) };
            steps.push_back((name, act));
        }
        self.order = new.nodes.iter().map(|node| node.name.clone()).chain(removed.iter().cloned()).collect();
        steps.extend(removed.into_iter().map(|name| (name, Act::Remove)));
        ("reload", steps)
    }

    /// Goes on with the running command as far as it can go now.
    pub(super) fn advance_job(&mut self, now: Moment) {
        while let Some(mut job) = self.job.take() {
            let current = match job.current.take() {
                Some(current) => current,
                None => match job.steps.pop_front() {
                    Some((name, act)) => self.begin_step(name, act, now),
                    None => return self.answer(job.ask, Ok(job.done)),
                },
            };
            match self.look_at(current, now) {
                Looked::Wait(current) => {
                    job.current = Some(current);
                    self.job = Some(job);
                    return;
                }
                Looked::Go(current) => job.current = Some(current),
                Looked::Done(outcome) => {
                    let failed = !outcome.ok;
                    job.done.push(outcome);
                    if failed {
                        // What is not touched goes on as it was: better than a second broken node.
                        let rest = job.steps.drain(..);
                        job.done.extend(rest.map(|(node, _)| left_alone(node)));
                    }
                }
            }
            self.job = Some(job);
        }
    }

    fn begin_step(&mut self, name: NodeName, act: Act, now: Moment) -> Current {
        let stage = match &act {
            Act::Start => {
                self.want_up(&name, now);
                Stage::Coming
            }
            Act::Stop | Act::Remove | Act::Replace(_) => {
                self.stop_node(&name, now);
                Stage::Leaving
            }
            Act::Note(_) => Stage::Leaving,
        };
        (name, act, stage)
    }

    /// Starts a node that is down, or waits for its next try, at once.
    fn want_up(&mut self, name: &NodeName, now: Moment) {
        let startable = |state| {
            matches!(state, State::Stopped | State::Absent | State::Backoff { .. } | State::CrashLoop { .. })
        };
        if let Some(seat) = self.seats.get_mut(name)
            && seat.here
            && startable(seat.state)
        {
            let Restart { backoff, healthy, .. } = &self.restart;
            seat.backoff = Backoff::new(backoff.min, backoff.max, *healthy);
            self.launch(name, now);
        }
    }

    fn look_at(&mut self, (name, act, stage): Current, now: Moment) -> Looked {
        let Some(seat) = self.seats.get_mut(&name) else {
            return Looked::Done(Outcome { node: name, ok: false, outcome: "is not there any more".into() });
        };
        let done = |node, outcome: String| Looked::Done(Outcome { node, ok: true, outcome });
        match (act, stage) {
            (Act::Note(node), _) => {
                seat.node = node.into();
                let stopped = "is stopped, and stays so until it is started";
                let theirs = "is started by somebody else: reload it on its host";
                done(name, if seat.is_ours_to_start() { stopped } else { theirs }.into())
            }
            (act, Stage::Leaving) if !seat.is_down() => Looked::Wait((name, act, stage)),
            (Act::Replace(config), Stage::Leaving) => {
                if let Some(config) = config {
                    seat.node = config.into();
                }
                self.want_up(&name, now);
                Looked::Go((name, Act::Start, Stage::Coming))
            }
            (Act::Remove, Stage::Leaving) => {
                self.seats.remove(&name);
                self.order.retain(|other| *other != name);
                done(name, "stopped: it is not in the config any more".into())
            }
            (_, Stage::Leaving) => {
                let how = seat.last_exit.clone().unwrap_or_else(|| "it did not run".into());
                done(name, format!("stopped: {how}"))
            }
            (act, Stage::Coming) => self.look_at_start(name, act, now),
        }
    }

    fn look_at_start(&self, name: NodeName, act: Act, now: Moment) -> Looked {
        let seat = &self.seats[&name];
        let (ok, outcome) = match seat.state {
            State::Ready => {
                let ms = now.at.duration_since(seat.born).as_millis();
                (true, format!("ready: pid {}, started {ms} ms ago", seat.pid.unwrap_or_default()))
            }
            State::Absent => (true, "is to be started by somebody else on its host".into()),
            State::Backoff { .. } | State::CrashLoop { .. } | State::Stopped => {
                (false, format!("does not start: {}", seat.end_in_words()))
            }
            State::Waiting | State::Starting { .. } | State::Stopping(_) => {
                return Looked::Wait((name, act, Stage::Coming));
            }
        };
        Looked::Done(Outcome { node: name, ok, outcome })
    }

    /// A stop of everything ends the running command; whoever asked hears how far it came.
    pub(super) fn interrupt_job(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let current = job.current.take().map(|(node, ..)| node);
        let interrupted =
            |node| Outcome { node, ok: false, outcome: "interrupted: the cluster stops".into() };
        job.done.extend(current.map(interrupted));
        job.done.extend(job.steps.drain(..).map(|(node, _)| left_alone(node)));
        let answer: Answer = Ok(job.done);
        self.answer(job.ask, answer);
    }
}

type Current = (NodeName, Act, Stage);
type Steps = VecDeque<(NodeName, Act)>;
type Planned = Result<(&'static str, Steps), Refused>;

/// What a look at the current step showed.
enum Looked {
    Wait(Current),
    Go(Current),
    Done(Outcome),
}

fn left_alone(node: NodeName) -> Outcome {
    Outcome { node, ok: false, outcome: "not touched".into() }
}

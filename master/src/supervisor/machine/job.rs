//! Commands that take time: steps, one node at a time, each with an outcome that was seen.

use std::sync::Arc;

use ffconfig::{Cluster, Node, Restart};
use ffnet::backoff::Backoff;
use ffproto::NodeName;

use super::replace::Second;
use super::seat::{Seat, SeatState, Stage};
use super::view::{CommandView, StepStage, StepView};
use super::{Answer, Ask, Command, Machine, Moment, Outcome, Refused};
use crate::supervisor::order;
use crate::supervisor::plan::{self, Move, Present};
use crate::utc::utc;

/// Behind the outcome of a node whose app has not handed its state over.
const STATE_LOST: &str = "; WARNING: its state is lost: the app has .state(…) and no .freeze(…)";

/// Behind the outcome of a node that a reload could not replace.
const RESTARTED: &str = "; WARNING: it was stopped and started anew, not replaced: its connections and its state in memory are lost";

/// What a step does with its node.
#[derive(Debug, Clone)]
enum Act {
    Start,
    Stop,
    /// Stop it and start it.
    Restart,
    Move(Move),
}

/// A step of a job: one node's part of a command.
#[derive(Debug)]
struct Step {
    node: NodeName,
    act: Act,
    stage: StepStage,
    since_ms: u64,
    outcome: Option<String>,
    /// Whether the step of another node of its process has begun this one, too: a process is started once.
    begun: bool,
    /// Whether the node was to be replaced, and is stopped and started.
    restarted: bool,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Job {
    ask: Ask,
    what: &'static str,
    begun_ms: u64,
    steps: Vec<Step>,
    /// The step that runs; all of them are done at its length.
    at: usize,
}

impl Job {
    /// For whoever is refused meanwhile.
    pub(super) fn title(&self) -> String {
        match self.steps.get(self.at) {
            Some(step) => format!("a {} is at `{}`", self.what, step.node),
            None => format!("a {} waits for old processes to leave", self.what),
        }
    }

    /// What is not touched goes on as it was: better than a second broken node.
    fn leave_alone(&mut self, from: usize, now_ms: u64) {
        for step in self.steps.iter_mut().skip(from) {
            step.end(StepStage::NotTouched, "not touched".into(), now_ms);
        }
    }

    fn answer(&self) -> Answer {
        Ok(self.steps.iter().map(Step::outcome).collect())
    }

    /// Whether nodes are replaced now, and others of their process may come next: not when a step waits to begin, or all are done.
    pub(super) fn is_under_way(&self) -> bool {
        self.steps.get(self.at).is_some_and(|step| step.stage != StepStage::Planned)
    }

    /// The steps of the nodes that are one process after the step that runs, in the order of the plan; that step among them.
    fn together(&self) -> Vec<usize> {
        let Some(step) = self.steps.get(self.at) else { return Vec::new() };
        let is_one = |other: &Step| match (step.act.starts(), other.act.starts()) {
            (Some(node), Some(other)) => node.shares_process_with(other),
            // A command for one node is for its process.
            (None, None) => !matches!(step.act, Act::Move(_)) || step.node == other.node,
            _ => false,
        };
        self.steps.iter().enumerate().filter(|(_, other)| is_one(other)).map(|(at, _)| at).collect()
    }
}

impl Act {
    /// The config that a process of the node is started with by a reload.
    fn starts(&self) -> Option<&Node> {
        match self {
            Self::Move(step) => step.starts(),
            _ => None,
        }
    }
}

/// A node of the process that a step is about, with the config that it is to have, if that is another one.
struct Mate {
    name: NodeName,
    node: Option<Arc<Node>>,
}

impl Step {
    fn new(node: NodeName, act: Act, now_ms: u64) -> Self {
        Self {
            node,
            act,
            stage: StepStage::Planned,
            since_ms: now_ms,
            outcome: None,
            begun: false,
            restarted: false,
        }
    }

    fn enter(&mut self, stage: StepStage, now_ms: u64) {
        if self.stage != stage {
            (self.stage, self.since_ms) = (stage, now_ms);
        }
    }

    fn end(&mut self, stage: StepStage, outcome: String, now_ms: u64) {
        self.enter(stage, now_ms);
        self.outcome = Some(outcome);
    }

    fn outcome(&self) -> Outcome {
        let ok = matches!(self.stage, StepStage::Done | StepStage::Proving);
        Outcome { node: self.node.clone(), ok, outcome: self.outcome.clone().unwrap_or_default() }
    }
}

/// The state of the current step, as a look showed it.
enum Looked {
    Wait(StepStage),
    /// The node is down: the same step goes on with its start.
    Launch,
    Done(bool, String),
}

impl Machine {
    pub(super) fn begin_job(&mut self, ask: Ask, command: Command, now: Moment) {
        let planned = match command {
            Command::Stop(node) => self.single(node, "stop", Act::Stop),
            Command::Start(node) => self.single(node, "start", Act::Start),
            Command::Restart(node) => self.single(node, "restart", Act::Restart),
            Command::Reload { cluster, elsewhere, only: Some(node) } => {
                self.reload_one(&cluster, &elsewhere, node)
            }
            Command::Reload { cluster, elsewhere, only: None } => {
                Ok(self.reload_all(&cluster, &elsewhere, now))
            }
            Command::StopAll | Command::KillAll | Command::Detach => return,
        };
        match planned {
            Ok((what, steps)) => {
                let steps = steps.into_iter().map(|(node, act)| Step::new(node, act, now.unix_ms));
                let steps = steps.collect();
                self.job = Some(Job { ask, what, begun_ms: now.unix_ms, steps, at: 0 });
            }
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
        // The first step stops the process, and starts it.
        let then = if matches!(act, Act::Restart) { Act::Start } else { act.clone() };
        let acts = std::iter::once(act).chain(std::iter::repeat(then));
        Ok((what, self.with_its_process(&node).into_iter().zip(acts).collect()))
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
        let before = self.with_its_process(&name);
        let is_ours = |other: &&Node| self.seats.get(&other.name).is_none_or(Seat::is_ours_to_start);
        let after: Vec<&Node> =
            cluster.in_process_with(node).filter(|other| other.name == name || is_ours(other)).collect();
        if after.len() != before.len() || after.iter().any(|node| !before.contains(&node.name)) {
            return Err(Refused::Conflict(format!(
                "`{name}` shares its process with other nodes than before: reload all nodes"
            )));
        }
        self.single(name, "reload", Act::Start)?;
        let replace = |name: NodeName| {
            let node = Box::new(cluster.node(name.as_str())?.clone());
            Some((name, Act::Move(Move::Replace(node))))
        };
        Ok(("reload", order::start_order(after).into_iter().filter_map(replace).collect()))
    }

    fn reload_all(&mut self, new: &Cluster, elsewhere: &[NodeName], now: Moment) -> (&'static str, Steps) {
        self.restart = new.master.restart.clone();
        let seats = self.order.iter().filter_map(|name| self.seats.get(name));
        let present = seats.map(|seat| Present {
            node: &seat.life.node,
            ours: seat.here,
            theirs: seat.life.theirs && seat.life.wire.is_some(),
            stopped: matches!(seat.state, SeatState::Stopped),
        });
        let steps = plan::reload(&present.collect::<Vec<_>>(), new, elsewhere);
        for (name, step) in &steps {
            let here = !elsewhere.contains(name);
            match (self.seats.get_mut(name), step) {
                (Some(_), Move::Leave(_) | Move::Remove) => {}
                (Some(seat), _) => seat.here = here,
                (None, Move::Start(node)) => {
                    let number = self.free_number();
                    self.add_seat((**node).clone(), here, number, now);
                }
                (None, _) => {}
            }
        }
        let removed = steps.iter().filter(|(_, step)| *step == Move::Remove).map(|(name, _)| name.clone());
        self.order = new.nodes.iter().map(|node| node.name.clone()).chain(removed).collect();
        ("reload", steps.into_iter().map(|(name, step)| (name, Act::Move(step))).collect())
    }

    /// Goes on with the running command as far as it can go now.
    pub(super) fn advance_job(&mut self, now: Moment) {
        while let Some(mut job) = self.job.take() {
            let together = job.together();
            let steps = together.iter().filter_map(|at| job.steps.get(*at));
            let mate = |step: &Step| Mate {
                name: step.node.clone(),
                node: step.act.starts().map(|node| Arc::new(node.clone())),
            };
            let mates: Vec<Mate> = steps.map(mate).collect();
            let Some(step) = job.steps.get_mut(job.at) else {
                if self.is_proving(&mut job, now) {
                    self.job = Some(job);
                    return;
                }
                self.last_command = Some(job.view(Some(now)));
                return self.answer(job.ask, job.answer());
            };
            if step.outcome.is_some() {
                job.at += 1;
                self.job = Some(job);
                continue;
            }
            if step.stage == StepStage::Planned && !step.begun && self.waits_for_old(&step.act, &mates) {
                self.job = Some(job);
                return;
            }
            if step.stage == StepStage::Planned {
                let stage = match step.begun {
                    true => self.join_step(&step.node.clone(), now),
                    false => self.begin_step(&step.node, &step.act, &mates, now),
                };
                step.enter(stage, now.unix_ms);
                for (at, step) in job.steps.iter_mut().enumerate() {
                    step.begun |= together.contains(&at) && step.act.starts().is_some();
                }
            }
            let Some(step) = job.steps.get_mut(job.at) else { continue };
            match self.look_at(step, &mates, now) {
                Looked::Wait(stage) => {
                    step.enter(stage, now.unix_ms);
                    self.job = Some(job);
                    return;
                }
                Looked::Launch => {
                    self.want_up(&mates, now);
                    step.enter(StepStage::Starting, now.unix_ms);
                    for (at, step) in job.steps.iter_mut().enumerate() {
                        let replaces = matches!(step.act, Act::Move(Move::Replace(_)));
                        step.restarted |= replaces && together.contains(&at);
                    }
                }
                Looked::Done(ok, outcome) => {
                    let restarted = if ok && step.restarted { RESTARTED } else { "" };
                    let outcome = outcome + restarted;
                    let proving = self.seats.get(&step.node).is_some_and(|seat| seat.second.is_some());
                    let stage = match ok {
                        false => StepStage::Failed,
                        true if proving => StepStage::Proving,
                        true => StepStage::Done,
                    };
                    step.end(stage, outcome, now.unix_ms);
                    job.at += 1;
                    if !ok {
                        let from = job.at;
                        job.leave_alone(from, now.unix_ms);
                        job.at = job.steps.len();
                    }
                }
            }
            self.job = Some(job);
        }
    }

    /// Whether predecessors still stand by; those that have left are done.
    fn is_proving(&self, job: &mut Job, now: Moment) -> bool {
        let mut proving = false;
        for step in &mut job.steps {
            let stands_by = self.seats.get(&step.node).is_some_and(|seat| seat.second.is_some());
            if step.stage == StepStage::Proving && !stands_by {
                step.enter(StepStage::Done, now.unix_ms);
            }
            proving |= stands_by;
        }
        proving
    }

    /// A node that had been replaced has been rolled back after all, or its new process has died.
    pub(super) fn note_failure(&mut self, name: &NodeName, why: &str, now: Moment) {
        let Some(job) = &mut self.job else { return };
        let (at, now_ms) = (job.at, now.unix_ms);
        let done = job.steps.iter_mut().take(at).find(|step| step.node == *name);
        let Some(step) = done.filter(|step| step.outcome().ok || step.stage == StepStage::Failed) else {
            return;
        };
        step.end(StepStage::Failed, why.to_owned(), now_ms);
        // The step that runs comes to its end.
        job.leave_alone(at + 1, now_ms);
    }

    fn begin_step(&mut self, name: &NodeName, act: &Act, mates: &[Mate], now: Moment) -> StepStage {
        match act {
            Act::Start => {
                self.want_up(mates, now);
                StepStage::Starting
            }
            Act::Move(Move::Start(_) | Move::Replace(_)) => self.begin_replace(name, mates, now),
            Act::Stop | Act::Restart => {
                mates.iter().for_each(|mate| self.stop_node(&mate.name, now));
                StepStage::Stopping
            }
            Act::Move(Move::Leave(_) | Move::Remove) => {
                self.stop_node(name, now);
                StepStage::Stopping
            }
            Act::Move(Move::Note(_)) => StepStage::Stopping,
        }
    }

    /// Whether a predecessor still stands by for a node that is to be replaced, as after an adoption: a node has two processes and no
    /// third. It leaves by itself, and that is bounded.
    fn waits_for_old(&self, act: &Act, mates: &[Mate]) -> bool {
        let stands_by = |mate: &Mate| {
            let second = self.seats.get(&mate.name).and_then(|seat| seat.second.as_ref());
            second.is_some_and(Second::is_old)
        };
        matches!(act, Act::Move(Move::Start(_) | Move::Replace(_))) && mates.iter().any(stands_by)
    }

    /// Goes on with a step whose process another step has started: its node's turn has come.
    fn join_step(&mut self, name: &NodeName, now: Moment) -> StepStage {
        self.take_turn(name, now);
        let is_successor = |seat: &Seat| seat.second.as_ref().is_some_and(|second| !second.is_old());
        let seat = self.seats.get(name);
        // It may have been rolled back since.
        match seat.is_some_and(|seat| is_successor(seat) || seat.verdict.is_some()) {
            true => StepStage::Preparing,
            false => StepStage::Starting,
        }
    }

    /// Beside those that serve; in place of those that do not.
    fn begin_replace(&mut self, name: &NodeName, mates: &[Mate], now: Moment) -> StepStage {
        let seats = || mates.iter().filter_map(|mate| self.seats.get(&mate.name));
        let serves = |seat: &Seat| {
            matches!(seat.state, SeatState::Ready)
                && (seat.life.process && seat.hang.is_none() && seat.second.is_none())
        };
        let is_idle = |seat: &Seat| is_startable(seat.state) && seat.second.is_none();
        let (idle, replaceable) = (seats().all(is_idle), seats().all(|seat| serves(seat) || is_idle(seat)));
        // The verdict on a replacement before this one (an adoption rolls back, too) is none on this one.
        for mate in mates {
            self.seats.get_mut(&mate.name).into_iter().for_each(|seat| seat.verdict = None);
        }
        if idle {
            self.want_up(mates, now);
            return StepStage::Starting;
        }
        if replaceable {
            let nodes: Vec<Arc<Node>> = mates.iter().filter_map(|mate| mate.node.clone()).collect();
            self.begin_replacement(&nodes, now);
            return self.join_step(name, now);
        }
        for Mate { name, .. } in mates {
            let hangs = self.seats.get(name).is_some_and(|seat| seat.hang.is_some());
            self.stop_node(name, now);
            if let Some(seat) = self.seats.get_mut(name).filter(|_| hangs)
                && let SeatState::Stopping(leaving) = &mut seat.state
            {
                // It does not hear what it is told: no time is lost with manners.
                (leaving.stage, leaving.next) = (Stage::Firm, now.at);
            }
        }
        StepStage::Stopping
    }

    /// Starts nodes that are down, or wait for their next try, at once, and in one process; with their new configs.
    fn want_up(&mut self, mates: &[Mate], now: Moment) {
        let mut names = Vec::new();
        for name in &self.order {
            let (Some(mate), Some(seat)) =
                (mates.iter().find(|mate| mate.name == *name), self.seats.get_mut(name))
            else {
                continue;
            };
            if let Some(node) = &mate.node {
                seat.life.node = Arc::clone(node);
            }
            if seat.here && is_startable(seat.state) {
                let Restart { backoff, healthy, .. } = &self.restart;
                seat.backoff = Backoff::new(backoff.min, backoff.max, *healthy);
                names.push(name.clone());
            }
        }
        if !names.is_empty() {
            self.launch_together(&names, now);
        }
    }

    fn look_at(&mut self, step: &Step, mates: &[Mate], now: Moment) -> Looked {
        let name = &step.node;
        let Some(seat) = self.seats.get_mut(name) else {
            return Looked::Done(false, "is not there any more".into());
        };
        match (&step.act, step.stage) {
            (Act::Move(Move::Note(node)), _) => {
                seat.life.node = node.clone().into();
                let stopped = "is stopped, and stays so until it is started";
                let theirs = "is started by somebody else: reload it on its host";
                Looked::Done(true, if seat.is_ours_to_start() { stopped } else { theirs }.into())
            }
            (Act::Move(Move::Replace(_)), StepStage::Preparing | StepStage::HandingOver) => {
                self.look_at_replacement(name, now)
            }
            (_, StepStage::Starting) => self.look_at_start(name, now),
            _ if seat.is_down() || seat.second.is_some() || matches!(seat.state, SeatState::Stopping(_)) => {
                self.look_at_stop(step, mates, now)
            }
            // Nothing is left to wait for: the stop has ended with the process that it was for.
            _ => Looked::Done(false, "was started by somebody else while it was to stop".into()),
        }
    }

    /// A node that is to stop, on its way down or there.
    fn look_at_stop(&mut self, step: &Step, mates: &[Mate], now: Moment) -> Looked {
        let name = &step.node;
        // Who was started by somebody else meanwhile is not waited for.
        let leaves = |seat: &Seat| matches!(seat.state, SeatState::Stopping(_)) || seat.second.is_some();
        let all_down = !mates.iter().any(|mate| self.seats.get(&mate.name).is_some_and(leaves));
        let Some(seat) = self.seats.get_mut(name) else {
            return Looked::Done(false, "is not there any more".into());
        };
        let how = || seat.last_exit.clone().unwrap_or_else(|| "it did not run".into());
        match &step.act {
            _ if !seat.is_down() => Looked::Wait(StepStage::Stopping),
            Act::Restart | Act::Move(Move::Replace(_) | Move::Start(_)) => match all_down {
                true => Looked::Launch,
                false => Looked::Wait(StepStage::Stopping),
            },
            Act::Move(Move::Leave(node)) => {
                seat.life.node = node.clone().into();
                seat.here = false;
                seat.enter(SeatState::Absent, now);
                Looked::Done(true, "stopped here: it is to be started on its host".into())
            }
            Act::Move(Move::Remove) => {
                self.seats.remove(name);
                self.order.retain(|other| other != name);
                Looked::Done(true, "stopped: it is not in the config any more".into())
            }
            Act::Start | Act::Stop | Act::Move(Move::Note(_)) => {
                Looked::Done(true, format!("stopped: {}", how()))
            }
        }
    }

    fn look_at_replacement(&mut self, name: &NodeName, now: Moment) -> Looked {
        let Some(seat) = self.seats.get_mut(name) else {
            return Looked::Done(false, "is not there any more".into());
        };
        match seat.verdict.take() {
            // Its neighbours are not replaced while it may still need them as they are.
            Some(Ok(())) if seat.is_handing_over() => {
                seat.verdict = Some(Ok(()));
                Looked::Wait(StepStage::HandingOver)
            }
            Some(Ok(())) => {
                let ms = now.at.duration_since(seat.life.born).as_millis();
                let pid = seat.life.pid.unwrap_or_default();
                let lost = if seat.life.status.loses_state() { STATE_LOST } else { "" };
                Looked::Done(true, format!("replaced: pid {pid}, started {ms} ms ago{lost}"))
            }
            Some(Err(why)) => Looked::Done(false, why),
            None => Looked::Wait(seat.step_stage().unwrap_or(StepStage::Preparing)),
        }
    }

    fn look_at_start(&self, name: &NodeName, now: Moment) -> Looked {
        let seat = &self.seats[name];
        let (ok, outcome) = match seat.state {
            SeatState::Ready => {
                let ms = now.at.duration_since(seat.life.born).as_millis();
                (true, format!("ready: pid {}, started {ms} ms ago", seat.life.pid.unwrap_or_default()))
            }
            SeatState::Absent => (true, "is to be started by somebody else on its host".into()),
            SeatState::Backoff { .. }
            | SeatState::CrashLoop { .. }
            | SeatState::Failed
            | SeatState::Stopped => (false, format!("does not start: {}", seat.end_in_words())),
            SeatState::Adopting { .. }
            | SeatState::Waiting
            | SeatState::Starting { .. }
            | SeatState::Stopping(_) => {
                return Looked::Wait(StepStage::Starting);
            }
        };
        Looked::Done(ok, outcome)
    }

    /// A stop of everything ends the running command; whoever asked hears how far it came.
    pub(super) fn interrupt_job(&mut self, now: Moment) {
        let Some(mut job) = self.job.take() else { return };
        if let Some(step) = job.steps.get_mut(job.at) {
            step.end(StepStage::Failed, "interrupted: the cluster stops".into(), now.unix_ms);
        }
        let rest = job.at + 1;
        job.leave_alone(rest, now.unix_ms);
        self.last_command = Some(job.view(Some(now)));
        self.answer(job.ask, job.answer());
    }
}

impl Job {
    /// How far it has come, for people.
    pub(super) fn view(&self, ended: Option<Moment>) -> CommandView {
        let step = |step: &Step| StepView {
            node: step.node.clone(),
            stage: step.stage,
            since: utc(step.since_ms),
            outcome: step.outcome.clone(),
        };
        CommandView {
            what: self.what.into(),
            since: utc(self.begun_ms),
            ended: ended.map(|now| utc(now.unix_ms)),
            ok: ended.map(|_| self.steps.iter().all(|step| step.outcome().ok)),
            steps: self.steps.iter().map(step).collect(),
        }
    }
}

/// Whether nothing of the node runs that a start would be beside.
fn is_startable(state: SeatState) -> bool {
    matches!(
        state,
        SeatState::Stopped
            | SeatState::Failed
            | SeatState::Absent
            | SeatState::Backoff { .. }
            | SeatState::CrashLoop { .. }
    )
}

type Steps = Vec<(NodeName, Act)>;
type Planned = Result<(&'static str, Steps), Refused>;

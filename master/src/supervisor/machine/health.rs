//! The health of nodes: whether their loops turn, and what is kept of an end that no operator had asked for.

use std::sync::Arc;
use std::time::Duration;

use ffproto::{Incarnation, NodeName};

use super::seat::{Hang, Life, SILENT, Seat, SeatState};
use super::{CrashView, Do, Exit, Machine, Moment, Report};
use crate::output::LINES_OF_END;
use crate::utc::utc;

/// When the master itself was away for longer than this, silence says nothing of its nodes.
const OWN_ABSENCE: Duration = Duration::from_millis(500);

/// Of each last line so much is shown: with twenty of them a node costs `/status` a few kilobytes.
const LINE_CHARS_MAX: usize = 500;

impl Machine {
    /// A master that was stopped, or had no processor, has heard nobody: that is not their fault.
    pub(super) fn forgive_own_absence(&mut self, now: Moment) {
        let Some(due) = self.wake_at() else { return };
        let away = now.at.saturating_duration_since(due);
        if away > OWN_ABSENCE {
            for seat in self.seats.values_mut() {
                let heard = (seat.life.heard + away).max(now.at.checked_sub(SILENT / 2).unwrap_or(now.at));
                seat.life.heard = heard.min(now.at);
            }
        }
    }

    /// A ready node is silent: it is looked at, then reported, and at last killed.
    pub(super) fn silent(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if seat.silence_due().is_none_or(|due| due > now.at) {
            return;
        }
        let (Some(incarnation), limit) = (seat.life.incarnation, seat.life.node.limits.hang) else { return };
        let node = name.clone();
        let Some(hang) = &mut seat.hang else {
            let since_ms = now.unix_ms.saturating_sub(SILENT.as_millis() as u64);
            seat.hang = Some(Hang { since_ms, process: None, killed: false });
            match seat.life.pid.filter(|_| seat.life.process) {
                Some(pid) => self.out.push(Do::Look { node, incarnation, pid }),
                None => self.looked(name, incarnation, "on another host".into()),
            }
            return;
        };
        hang.killed = true;
        let limit = limit.unwrap_or_default().as_secs();
        let process = hang.process.as_deref().unwrap_or("not known");
        let reason =
            format!("its loop did not turn for {limit} s (limits.hang_s); its process was {process}");
        let text = format!("{name}: {reason}: killed, to be started again");
        seat.life.reason = Some(reason);
        // The others of its process end with it, and are not looked at any more.
        for other in self.aboard(name, incarnation) {
            let hang = self.seats.get_mut(&other).and_then(|seat| seat.hang.as_mut());
            hang.into_iter().for_each(|hang| hang.killed = true);
        }
        self.out.push(Do::Kill { node, incarnation });
        self.warn(text);
    }

    /// What a silent process does is known now: reported.
    pub(super) fn looked(&mut self, name: &NodeName, incarnation: Incarnation, process: String) {
        let Some(seat) = self.seats.get_mut(name).filter(|seat| seat.life.is(incarnation)) else { return };
        let Some(hang) = &mut seat.hang else { return };
        hang.process = Some(process.clone());
        let then = match seat.life.node.limits.hang.filter(|_| seat.life.process) {
            Some(limit) => format!("; killed after {} s", limit.as_secs()),
            None => String::new(),
        };
        let silent = SILENT.as_millis();
        self.warn(format!("{name} hangs: nothing heard for {silent} ms, its process is {process}{then}"));
    }

    /// A node that hung says something.
    pub(super) fn heard_again(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let since_heard = now.at.saturating_duration_since(seat.life.heard);
        if let Some(hang) = seat.hang.take_if(|hang| !hang.killed && since_heard < SILENT) {
            let ms = now.unix_ms.saturating_sub(hang.since_ms);
            self.info(format!("{name} goes on: it hung for {ms} ms"));
        }
    }

    /// Keeps what is known of an end that nobody had asked for: once, of all nodes that were in that process.
    pub(super) fn crashed(&mut self, names: &[NodeName], exit: &Exit, lines: &[String], now: Moment) {
        let seats: Vec<&Seat> = names.iter().filter_map(|name| self.seats.get(name)).collect();
        let speaker = seats.iter().find(|seat| seat.life.reason.is_some()).or(seats.first());
        let Some(mut crash) = speaker.and_then(|seat| seat.crash_report(exit, lines, now)) else { return };
        if let [first, _, ..] = &*seats {
            let during = seats.iter().map(|seat| format!("{}: {}", seat.name(), seat.what_it_does()));
            crash.during = during.collect::<Vec<_>>().join("; ");
            (crash.node, crash.nodes) = (first.life.process_name().clone(), names.to_vec());
        }
        let crash = Arc::new(crash);
        for name in names {
            self.seats.get_mut(name).into_iter().for_each(|seat| seat.crash = Some(Arc::clone(&crash)));
        }
        self.out.push(Do::Report(Report::Crashed(crash)));
    }
}

impl Seat {
    fn crash_report(&self, exit: &Exit, lines: &[String], now: Moment) -> Option<CrashView> {
        let Life { incarnation, pid, born, reason, .. } = &self.life;
        let lines = lines.get(lines.len().saturating_sub(LINES_OF_END)..).unwrap_or_default();
        let lived = now.at.saturating_duration_since(*born).as_millis();
        Some(CrashView {
            node: self.name().clone(),
            nodes: Vec::new(),
            incarnation: (*incarnation)?,
            pid: *pid,
            at: utc(now.unix_ms),
            exit: exit.to_string(),
            reason: reason.clone(),
            during: self.what_it_does(),
            lived_ms: u64::try_from(lived).unwrap_or(u64::MAX),
            lines: lines.iter().map(|line| line.chars().take(LINE_CHARS_MAX).collect()).collect(),
        })
    }

    fn what_it_does(&self) -> String {
        let status = &self.life.status;
        let links = status.parents.iter().filter(|(_, up)| *up).count() + status.children.len();
        let serving = format!("{} sessions, {links} links", status.sessions);
        match (self.state, &self.hang) {
            (SeatState::Ready, Some(Hang { process: Some(process), .. })) => {
                format!("hanging ({process}); {serving}")
            }
            (SeatState::Ready, Some(_)) => format!("hanging; {serving}"),
            (SeatState::Ready, None) => format!("serving: {serving}"),
            (SeatState::Adopting { .. }, _) => "being adopted".into(),
            (SeatState::Stopping(_), _) => "stopping".into(),
            _ => "starting".into(),
        }
    }
}

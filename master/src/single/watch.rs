//! The watch over the loop of a node that is supervised alone: words and times in, what to do out.

use std::time::Duration;

use tokio::time::Instant;

use crate::supervisor::machine::SILENT;

/// When this process was away for longer than that, silence says nothing of the node.
const OWN_ABSENCE: Duration = Duration::from_millis(500);

/// An act that is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing was heard for [`SILENT`].
    Report,
    /// The process was not heard for `limits.hang_s`, or not ready within `limits.start_s`: killed, to be started
    /// again.
    Kill(String),
    /// The process has said that it leaves, and is still there: killed, and that was all.
    End,
}

/// The watch over one process of a node, from its start.
#[derive(Debug)]
pub(super) struct Watch {
    born: Instant,
    start: Duration,
    hang: Option<Duration>,
    /// When its loop was last known to turn, since it is ready.
    heard: Option<Instant>,
    reported: bool,
    done: bool,
    /// Until when it may stay, since it has said that it leaves.
    leaves_by: Option<Instant>,
}

impl Watch {
    pub(super) fn new(limits: &ffconfig::Limits, now: Instant) -> Self {
        let (start, hang) = (limits.start, limits.hang);
        Self { born: now, start, hang, heard: None, reported: false, done: false, leaves_by: None }
    }

    /// Notes that the process is ready.
    pub(super) fn ready(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Notes that the loop turns; returns for how long it had not, when that was reported.
    pub(super) fn turns(&mut self, now: Instant) -> Option<Duration> {
        let before = self.heard.as_mut()?;
        let silent = now.saturating_duration_since(*before);
        *before = now;
        std::mem::take(&mut self.reported).then_some(silent)
    }

    /// It leaves, or is ended: from now on its silence means nothing. It may take until `by`; `None`: somebody else
    /// sees to that.
    pub(super) fn leaves(&mut self, by: Option<Instant>) {
        self.done = true;
        self.leaves_by = by;
    }

    /// When [`act`](Self::act) has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.heard {
            _ if self.done => self.leaves_by,
            None => Some(self.born + self.start),
            Some(heard) if !self.reported => Some(heard + SILENT),
            Some(heard) => self.hang.map(|hang| heard + hang.max(SILENT)),
        }
    }

    /// The act that is to be done now.
    pub(super) fn act(&mut self, now: Instant) -> Option<Act> {
        let due = self.due().filter(|due| *due <= now)?;
        let away = now.saturating_duration_since(due);
        if self.done {
            self.leaves_by = None;
            return Some(Act::End);
        }
        if let Some(heard) = self.heard.as_mut().filter(|_| away > OWN_ABSENCE) {
            // Nobody listened: the node has another chance to be heard.
            *heard = now - SILENT / 2;
            self.reported = false;
            return None;
        }
        match self.heard {
            None => {
                self.done = true;
                let limit = self.start.as_secs();
                Some(Act::Kill(format!("it was not ready within {limit} s (limits.start_s)")))
            }
            Some(_) if !self.reported => {
                self.reported = true;
                Some(Act::Report)
            }
            Some(_) => {
                self.done = true;
                let limit = self.hang.unwrap_or_default().as_secs();
                Some(Act::Kill(format!("its loop did not turn for {limit} s (limits.hang_s)")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> (Watch, Instant) {
        let start = Instant::now();
        let mut watch = Watch::new(&ffconfig::Limits::default(), start);
        watch.ready(start);
        (watch, start)
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_loop_that_stands_is_reported_and_then_killed() {
        let (mut watch, start) = ready();
        assert_eq!(watch.turns(start + S), None);
        assert_eq!(watch.due(), Some(start + S + SILENT));
        assert_eq!(watch.act(start + S * 2), None);
        assert_eq!(watch.act(start + S + SILENT), Some(Act::Report));
        assert_eq!(watch.due(), Some(start + S * 11));
        let killed = watch.act(start + S * 11);
        assert_eq!(killed, Some(Act::Kill("its loop did not turn for 10 s (limits.hang_s)".into())));
        assert_eq!(watch.due(), None, "once");
    }

    #[test]
    fn a_loop_that_turns_again_is_left_alone() {
        let (mut watch, start) = ready();
        assert_eq!(watch.act(start + SILENT), Some(Act::Report));
        assert_eq!(watch.turns(start + S * 5), Some(S * 5));
        assert_eq!(watch.turns(start + S * 6), None);
        assert_eq!(watch.due(), Some(start + S * 6 + SILENT));
        watch.leaves(None);
        assert_eq!(watch.due(), None);
    }

    #[test]
    fn a_node_that_leaves_may_be_silent_but_not_stay() {
        let (mut watch, start) = ready();
        watch.leaves(Some(start + S * 13));
        assert_eq!((watch.due(), watch.act(start + S * 12)), (Some(start + S * 13), None));
        assert_eq!(watch.act(start + S * 13), Some(Act::End));
        assert_eq!(watch.due(), None, "once");
    }

    #[test]
    fn a_node_that_does_not_become_ready_is_killed() {
        let start = Instant::now();
        let mut watch = Watch::new(&ffconfig::Limits::default(), start);
        assert_eq!(watch.turns(start + S), None);
        assert_eq!(watch.act(start + S * 59), None);
        let killed = watch.act(start + S * 60);
        assert_eq!(killed, Some(Act::Kill("it was not ready within 60 s (limits.start_s)".into())));
    }

    #[test]
    fn who_did_not_listen_does_not_blame_the_node() {
        let (mut watch, start) = ready();
        assert_eq!(watch.act(start + S * 60), None);
        assert_eq!(watch.act(start + S * 60 + SILENT / 2), Some(Act::Report));
        assert_eq!(watch.act(start + S * 90), None);
        assert_eq!(watch.turns(start + S * 91), None);
    }
}

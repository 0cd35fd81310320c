//! Starts by hand: whether a person's start of a node may have a key.

use ffproto::handshake::{Refusal, fence};
use ffproto::{Incarnation, NodeName};

use super::Machine;

/// Why a start by hand gets no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotByHand {
    /// The config has no such node.
    #[error("there is no node `{0}` in the config that runs here")]
    Unknown(NodeName),
    /// The clock of whoever starts it is wrong.
    #[error(transparent)]
    Future(Refusal),
    /// The master runs the node itself: the start by hand would end that process.
    #[error(
        "`{0}` runs already, as a process of this master, which its next start would end: stop it first (POST \
         /nodes/{0}/stop)"
    )]
    Runs(NodeName),
    /// A newer start of it has been here, behind which nobody takes this one.
    #[error("{0}: start it again")]
    Older(Refusal),
}

impl Machine {
    /// Whether a start that a person makes may have a key: of a node that this master does not run itself now.
    ///
    /// # Errors
    /// [`NotByHand`].
    pub(crate) fn may_start_by_hand(
        &self,
        name: &NodeName,
        incarnation: Incarnation,
        now_ms: u64,
    ) -> Result<(), NotByHand> {
        let seat = self.seats.get(name).ok_or_else(|| NotByHand::Unknown(name.clone()))?;
        if !incarnation.may_register_at(now_ms) {
            return Err(NotByHand::Future(Refusal::Future(incarnation)));
        }
        if seat.lives().any(|life| life.process) {
            return Err(NotByHand::Runs(name.clone()));
        }
        fence(name, seat.newest(), incarnation).map_err(NotByHand::Older)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::super::*;
    use super::*;
    use crate::fixture::name;

    #[test]
    fn a_node_that_this_master_runs_is_started_by_hand_when_it_was_stopped_or_is_down() {
        let (mut w, game) = (World::up(), name("game1"));
        let may = |w: &World, ahead: u64| {
            let start = Incarnation(w.incarnation("game1").0 + ahead);
            w.machine.may_start_by_hand(&game, start, w.now.unix_ms)
        };
        assert_eq!(may(&w, 1), Err(NotByHand::Runs(game.clone())));
        w.ask(Command::Stop(game.clone()));
        assert_eq!(may(&w, 1), Err(NotByHand::Runs(game.clone())), "it is leaving");
        w.exit("game1", Exit::Code(0));
        assert_eq!(may(&w, 1), Ok(()));
        let theirs = Incarnation(w.incarnation("game1").0 + 1);
        w.register_as("game1", theirs);
        assert_eq!(may(&w, 1), Ok(()), "what a person has started, a person replaces");
        let older = w.machine.may_start_by_hand(&game, Incarnation(theirs.0 - 1), w.now.unix_ms);
        assert!(matches!(older, Err(NotByHand::Older(_))), "{older:?}");
        let future = w.machine.may_start_by_hand(&game, Incarnation(u64::MAX), w.now.unix_ms);
        assert!(matches!(future, Err(NotByHand::Future(_))), "{future:?}");
        let unknown = w.machine.may_start_by_hand(&name("gme"), theirs, w.now.unix_ms);
        assert_eq!(unknown.unwrap_err().to_string(), "there is no node `gme` in the config that runs here");
    }

    #[test]
    fn a_node_that_has_crashed_is_started_by_hand_while_its_master_waits() {
        let mut w = World::up();
        w.exit("game1", Exit::Code(1));
        let start = Incarnation(w.incarnation("game1").0 + 1);
        assert_eq!(w.machine.may_start_by_hand(&name("game1"), start, w.now.unix_ms), Ok(()));
    }
}

//! Route selection: which neighbour takes a message now. Pure: the candidates go in, a pick comes out.

use ffproto::NodeName;

use crate::cluster::side::Side;

/// A neighbour that takes messages for a target and may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) side: Side,
    pub(crate) name: NodeName,
    pub(crate) state: CandidateState,
    /// The neighbour is meant itself.
    pub(crate) end: bool,
    /// A node that is meant lives behind the neighbour.
    pub(crate) leads: bool,
    /// The node that the session has is the neighbour, or lives behind it.
    pub(crate) to_kept: bool,
}

impl AsRef<Candidate> for Candidate {
    fn as_ref(&self) -> &Candidate {
        self
    }
}

/// Whether a neighbour takes a message now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CandidateState {
    /// The link is open; so many calls wait for their outcome there.
    Open(usize),
    /// The neighbour is back soon with all that it knows, or an earlier message of the session must end first.
    Soon,
    /// The neighbour has ended, and may be back.
    Missed,
}

/// The pick for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The candidate at that place.
    Go(usize),
    /// The candidate at that place, when nothing of the session is left at the one that it had.
    Leave(usize),
    /// The message waits.
    Wait,
    /// No candidate takes it.
    None,
}

/// Picks the neighbour that takes a message, by this list of preferences:
///
/// 1. the neighbour that the session has, as long as it leads to a node that is meant;
/// 2. one that leads to the node that the session has;
/// 3. children before parents, and of those the node that is meant itself before a node on the way to it;
/// 4. the least load, by turns among equals;
/// 5. when none leads there now, one behind which a node may be waited for.
pub(crate) fn pick<W: AsRef<Candidate>>(candidates: &[W], kept: Option<&NodeName>, turn: u64) -> Pick {
    let others = || {
        best(candidates, turn, |candidate| {
            (candidate.end || candidate.leads) && Some(&candidate.name) != kept
        })
    };
    if let Some(at) =
        kept.and_then(|kept| candidates.iter().position(|candidate| candidate.as_ref().name == *kept))
    {
        return match candidates[at].as_ref().state {
            CandidateState::Soon => Pick::Wait,
            CandidateState::Open(_) if candidates[at].as_ref().end || candidates[at].as_ref().leads => {
                Pick::Go(at)
            }
            CandidateState::Open(_) => others().map_or(Pick::Go(at), Pick::Leave),
            CandidateState::Missed => others().map_or(Pick::Wait, Pick::Go),
        };
    }
    if candidates
        .iter()
        .map(AsRef::as_ref)
        .any(|candidate: &Candidate| candidate.to_kept && candidate.state == CandidateState::Soon)
    {
        return Pick::Wait;
    }
    if let Some(at) = best(candidates, turn, |candidate| candidate.to_kept) {
        return Pick::Go(at);
    }
    // A neighbour that has just been told which node the session has, after a new link or a move, waits for that node.
    if kept.is_none()
        && candidates
            .iter()
            .map(AsRef::as_ref)
            .any(|candidate: &Candidate| candidate.to_kept && candidate.state == CandidateState::Missed)
    {
        return Pick::Wait;
    }
    for side in [Side::Child, Side::Parent] {
        if let Some(at) =
            best(candidates, turn, |candidate| candidate.side == side && (candidate.end || candidate.leads))
        {
            return Pick::Go(at);
        }
        let is_soon = |candidate: &Candidate| {
            candidate.side == side && !matches!(candidate.state, CandidateState::Open(_))
        };
        if candidates.iter().map(AsRef::as_ref).any(is_soon) {
            return Pick::Wait;
        }
    }
    best(candidates, turn, |_| true).map_or(Pick::None, Pick::Go)
}

/// The best of the open candidates that are meant.
fn best<W: AsRef<Candidate>>(
    candidates: &[W],
    turn: u64,
    is_meant: impl Fn(&Candidate) -> bool,
) -> Option<usize> {
    let n = candidates.len();
    let start = (turn % n.max(1) as u64) as usize;
    let open = (0..n).map(|i| (start + i) % n).filter_map(|at| match candidates[at].as_ref().state {
        CandidateState::Open(load) if is_meant(candidates[at].as_ref()) => Some((at, load)),
        _ => None,
    });
    let rank = |(at, load): &(usize, usize)| {
        let candidate = candidates[*at].as_ref();
        (!candidate.to_kept, candidate.side == Side::Parent, !candidate.end, *load)
    };
    open.min_by_key(rank).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(text: &str) -> Candidate {
        // `child game.1 end open 3`, `parent gate leads soon`.
        let words: Vec<&str> = text.split(' ').collect();
        let state = match words.iter().position(|word| *word == "open") {
            Some(at) => CandidateState::Open(words[at + 1].parse().unwrap()),
            None if words.contains(&"soon") => CandidateState::Soon,
            None => CandidateState::Missed,
        };
        Candidate {
            side: if words[0] == "child" { Side::Child } else { Side::Parent },
            name: NodeName::try_from(words[1]).unwrap(),
            state,
            end: words.contains(&"end"),
            leads: words.contains(&"leads"),
            to_kept: words.contains(&"kept"),
        }
    }

    #[track_caller]
    fn picks(candidates: &[&str], kept: &str, expected: &str) {
        let candidates: Vec<Candidate> = candidates.iter().map(|text| candidate(text)).collect();
        let kept = NodeName::try_from(kept).ok();
        let name = |at: usize| candidates[at].as_ref().name.to_string();
        let picked = match pick(&candidates, kept.as_ref(), 0) {
            Pick::Go(at) => name(at),
            Pick::Leave(at) => format!("leave for {}", name(at)),
            Pick::Wait => "wait".into(),
            Pick::None => "none".into(),
        };
        assert_eq!(picked, expected, "{candidates:?}, kept {kept:?}");
    }

    #[test]
    fn a_new_session_takes_the_nearest_and_of_those_the_least_loaded() {
        picks(&["child a end open 3", "child b end open 2", "parent p end open 0"], "", "b");
        picks(&["child a leads open 0", "child b end open 9"], "", "b");
        picks(&["parent p leads open 1", "child a leads open 2"], "", "a");
        picks(&["parent p leads open 1", "parent q leads open 0"], "", "q");
        picks(&[], "", "none");
    }

    #[test]
    fn where_nobody_is_now_one_that_may_be_back_is_waited_for_or_asked() {
        picks(&["child a end missed"], "", "wait");
        picks(&["child a end missed", "parent p leads open 0"], "", "wait");
        // Nobody lives behind it now; it knows whether somebody is to come.
        picks(&["parent p open 0"], "", "p");
        picks(&["child a open 0", "parent p leads open 0"], "", "p");
    }

    #[test]
    fn a_session_keeps_its_way_as_long_as_that_leads_somewhere() {
        picks(&["child a end open 9", "child b end open 0"], "a", "a");
        picks(&["parent p leads open 9", "parent q leads open 0"], "p", "p");
        picks(&["child a end soon", "child b end open 0"], "a", "wait");
        // It has ended: another one at once, or it is waited for.
        picks(&["child a end missed", "child b end open 0"], "a", "b");
        picks(&["child a end missed"], "a", "wait");
        // Nothing lives behind it any more.
        picks(&["parent p open 0", "parent q leads open 5"], "p", "leave for q");
        picks(&["parent p open 0", "parent q open 0"], "p", "p");
    }

    #[test]
    fn a_node_that_is_known_from_elsewhere_only_is_waited_for_before_another_one_is_chosen() {
        picks(&["child a kept missed", "child b end open 0"], "", "wait");
        picks(&["child a kept end open 9", "child b end open 0"], "", "a");
        picks(&["child b end open 0"], "", "b");
    }

    #[test]
    fn the_node_that_a_session_has_is_reached_another_way_when_its_gate_is_gone() {
        picks(&["parent q leads open 0", "parent r leads kept open 7"], "p", "r");
        picks(&["parent p missed", "parent q leads open 0", "parent r leads kept open 7"], "p", "r");
        picks(&["child a leads open 0", "parent r leads kept open 7"], "", "r");
        picks(&["child a leads open 0", "parent r leads kept soon"], "", "wait");
    }
}

//! The methods of a link's peer, by name: those of the handshake, and what the peer has told since.

use std::sync::atomic::{AtomicBool, Ordering};

use ffproto::relay::MethodsChange;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Link;

/// More names than these have no number.
const NAMES_MAX: usize = u16::MAX as usize;

/// The numbers that the peer's methods have, by name.
pub(super) struct PeerMethods {
    first: FxHashMap<String, u16>,
    /// Whether the peer has told a change: `now` counts from then on. Beside the list of the handshake, so that a look
    /// takes no lock on the links of all the peers that never change.
    has_changed: AtomicBool,
    now: Mutex<FxHashMap<String, u16>>,
}

impl PeerMethods {
    /// The methods of a handshake, in the order of their numbers.
    pub(super) fn of(names: &[String]) -> Self {
        let numbered = names.iter().take(NAMES_MAX).cloned().zip(0..);
        // A number without a name was that of a method that is gone.
        let first = numbered.filter(|(name, _)| !name.is_empty()).collect();
        Self { first, has_changed: AtomicBool::new(false), now: Mutex::default() }
    }

    fn number(&self, name: &str) -> Option<u16> {
        if self.has_changed.load(Ordering::Acquire) {
            return self.now.lock().get(name).copied();
        }
        self.first.get(name).copied()
    }

    fn change(&self, change: &MethodsChange) {
        let mut now = self.now.lock();
        if !self.has_changed.load(Ordering::Acquire) {
            now.clone_from(&self.first);
        }
        let removed: FxHashSet<u16> = change.remove.iter().copied().collect();
        now.retain(|_, number| !removed.contains(number));
        for (number, name) in &change.add {
            if now.len() < NAMES_MAX {
                now.insert(name.clone(), *number);
            }
        }
        self.has_changed.store(true, Ordering::Release);
    }
}

impl Link {
    /// The number of a method at the peer, if the peer takes it.
    pub fn method_number(&self, method: &str) -> Option<u16> {
        self.0.methods.number(method)
    }

    /// Takes the peer's word that it takes other methods than before: what is called after this has the new numbers.
    ///
    /// ```
    /// use ffnet::{Link, handshake::Peer, link::LinkLimits};
    /// use ffproto::relay::MethodsChange;
    ///
    /// # let name = |name: &str| ffproto::NodeName::try_from(name);
    /// # let (kind, program, pid, incarnation) = ("gate".into(), String::new(), 1, ffproto::Incarnation(1));
    /// # let heartbeat = std::time::Duration::from_secs(1);
    /// # let limits = LinkLimits { frame_bytes_max: 1024, outbox_bytes_max: 1024, calls_max: 1, heartbeat };
    /// let methods = vec!["enter".into(), "leave".into()];
    /// let (version, root) = (ffproto::Versions::OURS.max, ffproto::credential::PublicKey([0; 32]));
    /// let peer = Peer { name: name("gate")?, methods, kind, program, pid, incarnation, version, root };
    /// let link = Link::new(name("net")?, peer, limits, Default::default());
    /// link.change_methods(&MethodsChange { add: vec![(7, "dance".into())], remove: vec![0] });
    /// let numbers = ["enter", "leave", "dance"].map(|method| link.method_number(method));
    /// assert_eq!(numbers, [None, Some(1), Some(7)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn change_methods(&self, change: &MethodsChange) {
        self.0.methods.change(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(methods: &PeerMethods, names: &[&str]) -> Vec<Option<u16>> {
        names.iter().map(|name| methods.number(name)).collect()
    }

    #[test]
    fn a_number_without_a_name_is_nobodys() {
        let methods = PeerMethods::of(&["a".into(), String::new(), "b".into()]);
        assert_eq!(numbers(&methods, &["a", "", "b"]), [Some(0), None, Some(2)]);
    }

    #[test]
    fn a_change_adds_names_takes_names_away_and_leaves_the_others() {
        let methods = PeerMethods::of(&["a".into(), "b".into()]);
        methods.change(&MethodsChange { add: vec![(2, "c".into())], remove: vec![0] });
        assert_eq!(numbers(&methods, &["a", "b", "c"]), [None, Some(1), Some(2)]);
        methods.change(&MethodsChange { add: vec![(0, "a".into())], remove: vec![2] });
        assert_eq!(numbers(&methods, &["a", "b", "c"]), [Some(0), Some(1), None]);
    }

    #[test]
    fn there_are_no_more_names_than_numbers() {
        let methods = PeerMethods::of(&[]);
        for round in 0..3 {
            let add = (0..40_000).map(|number| (number, format!("{round} {number}"))).collect();
            methods.change(&MethodsChange { add, remove: vec![] });
        }
        assert_eq!(methods.now.lock().len(), NAMES_MAX);
    }
}

//! The runs of a comparison: all systems are up at once and are measured in turn, another one first in each run.

use crate::cli::Common;
use crate::machine;
use crate::system::{self, Running, System};

/// One run. The machine is locked against other benches until it ends.
pub(crate) struct Run {
    /// From 0.
    pub(crate) number: usize,
    systems: Vec<Running>,
    // Dropped after the systems have ended.
    _lock: std::fs::File,
}

/// Starts the systems anew for each run; all that `measure` found, in that order.
pub(crate) fn each_run<S>(
    runs: usize,
    systems: &[System],
    options: &Common,
    mut measure: impl FnMut(&Run) -> anyhow::Result<Vec<S>>,
) -> anyhow::Result<Vec<S>> {
    let mut samples = Vec::new();
    for number in 0..runs {
        let lock = machine::lock_machine()?;
        let run = Run { number, systems: system::start_all(systems, options)?, _lock: lock };
        samples.extend(measure(&run)?);
    }
    Ok(samples)
}

impl Run {
    /// The systems in the order in which they were named.
    pub(crate) fn systems(&self) -> &[Running] {
        &self.systems
    }

    /// Measures every system once.
    pub(crate) fn in_turn<S>(
        &self,
        measure: impl FnMut(&Running) -> anyhow::Result<S>,
    ) -> anyhow::Result<Vec<S>> {
        self.in_turn_from(self.number, measure)
    }

    /// The same where a run measures more than once: `from` says which system is the first this time.
    pub(crate) fn in_turn_from<S>(
        &self,
        from: usize,
        measure: impl FnMut(&Running) -> anyhow::Result<S>,
    ) -> anyhow::Result<Vec<S>> {
        rotated(&self.systems, from).map(measure).collect()
    }
}

/// All of them, beginning `by` places later: what comes first finds another machine than what follows.
fn rotated<T>(all: &[T], by: usize) -> impl Iterator<Item = &T> {
    let start = by.checked_rem(all.len()).unwrap_or_default();
    all[start..].iter().chain(&all[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_begins_with_another_system_and_measures_all() {
        let order = |run| rotated(&["a", "b", "c"], run).copied().collect::<String>();
        assert_eq!([0, 1, 2, 3].map(order), ["abc", "bca", "cab", "abc"]);
        assert_eq!(rotated::<u8>(&[], 1).count(), 0);
    }
}

//! The totals of one node over all its processes: a counter does not go back when one process takes another's place.
//!
//! Each process of a node counts from zero. What one that has ended had counted, as far as it was seen, is the base that the
//! living ones are added to. While one process replaces the other both count, and both are added. Pure.

use std::collections::{BTreeMap, HashMap};

use super::exposition::{Exposition, FamilyText, Kind};

/// The totals of one node; `L` tells its processes apart.
#[derive(Debug)]
pub struct Totals<L> {
    /// The base: what processes that have ended have counted.
    base: Exposition,
    lives: BTreeMap<L, Life>,
}

/// A process, as it was seen last.
#[derive(Debug, Default)]
struct Life {
    seen: Exposition,
    /// Whether the last scrape has been answered.
    answers: bool,
}

impl<L> Default for Totals<L> {
    fn default() -> Self {
        Self { base: Exposition::default(), lives: BTreeMap::new() }
    }
}

impl<L: Ord> Totals<L> {
    /// A process has answered a scrape.
    pub fn answered(&mut self, life: L, seen: Exposition) {
        self.lives.insert(life, Life { seen, answers: true });
    }

    /// A process has not answered in time: what it had counted is known, but not how it is.
    pub fn silent(&mut self, life: &L) {
        if let Some(life) = self.lives.get_mut(life) {
            life.answers = false;
        }
    }

    /// A process has ended: what it had counted is part of the base.
    pub fn ended(&mut self, life: &L) {
        if let Some(Life { mut seen, .. }) = self.lives.remove(life) {
            seen.families.retain(|name, family| family.kind(name) == Kind::Growing);
            add(&mut self.base, &seen);
        }
    }

    /// The processes that are not over.
    pub fn lives(&self) -> impl Iterator<Item = &L> {
        self.lives.keys()
    }

    /// Every process together: counters of all there ever were, gauges of those that answer.
    #[must_use]
    pub fn together(&self) -> Exposition {
        let mut all = self.base.clone();
        for Life { seen, answers } in self.lives.values() {
            if *answers {
                add(&mut all, seen);
                continue;
            }
            let growing = |(name, family): &(&String, &FamilyText)| family.kind(name) == Kind::Growing;
            let families = seen.families.iter().filter(growing);
            add(&mut all, &Exposition { families: families.map(|(n, f)| (n.clone(), f.clone())).collect() });
        }
        all
    }
}

/// Puts `more` into `all`, series by series.
fn add(all: &mut Exposition, more: &Exposition) {
    for (name, theirs) in &more.families {
        let Some(ours) = all.families.get_mut(name) else {
            all.families.insert(name.clone(), theirs.clone());
            continue;
        };
        if ours.kind != theirs.kind {
            continue;
        }
        let kind = ours.kind(name);
        let known = ours.series.iter().enumerate().map(|(at, (series, _))| (series.clone(), at));
        let known: HashMap<String, usize> = known.collect();
        for (series, value) in &theirs.series {
            match known.get(series).and_then(|at| ours.series.get_mut(*at)) {
                Some((_, ours)) if kind == Kind::Largest => *ours = ours.max(*value),
                Some((_, ours)) => *ours += value,
                None => ours.series.push((series.clone(), *value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(calls: u32, sessions: u32, up: u32) -> Exposition {
        Exposition::parse(&format!(
            "# HELP c_total C.\n# TYPE c_total counter\nc_total{{m=\"a\"}} {calls}\n\
             # HELP s S.\n# TYPE s gauge\ns {sessions}\n# HELP l_up L.\n# TYPE l_up gauge\nl_up {up}\n"
        ))
    }

    fn shown(totals: &Totals<u32>, series: &str) -> Option<f64> {
        let all = totals.together();
        let mut all = all.families.into_values().flat_map(|family| family.series);
        all.find_map(|(name, value)| (name == series).then_some(value))
    }

    const CALLS: &str = "c_total{m=\"a\"}";

    #[test]
    fn a_counter_never_goes_back_over_a_replacement_and_gauges_are_of_who_lives() {
        let mut totals = Totals::default();
        totals.answered(1, text(10, 3, 1));
        assert_eq!(
            (shown(&totals, CALLS), shown(&totals, "s"), shown(&totals, "l_up")),
            (Some(10.0), Some(3.0), Some(1.0))
        );
        // Both serve for a while: the sessions are in the one or in the other, the link is up once.
        totals.answered(2, text(2, 1, 1));
        totals.answered(1, text(11, 2, 1));
        assert_eq!(
            (shown(&totals, CALLS), shown(&totals, "s"), shown(&totals, "l_up")),
            (Some(13.0), Some(3.0), Some(1.0))
        );
        totals.ended(&1);
        assert_eq!((shown(&totals, CALLS), shown(&totals, "s")), (Some(13.0), Some(1.0)));
        totals.answered(2, text(5, 4, 0));
        assert_eq!(
            (shown(&totals, CALLS), shown(&totals, "s"), shown(&totals, "l_up")),
            (Some(16.0), Some(4.0), Some(0.0))
        );
        totals.ended(&2);
        assert_eq!((shown(&totals, CALLS), shown(&totals, "s")), (Some(16.0), None));
        totals.ended(&2);
        assert_eq!(shown(&totals, CALLS), Some(16.0));
    }

    #[test]
    fn of_a_process_that_does_not_answer_the_counters_stand_and_the_gauges_are_left_out() {
        let mut totals = Totals::default();
        totals.answered(1, text(10, 3, 1));
        totals.silent(&1);
        assert_eq!(
            (shown(&totals, CALLS), shown(&totals, "s"), shown(&totals, "l_up")),
            (Some(10.0), None, None)
        );
        totals.answered(1, text(12, 3, 1));
        assert_eq!((shown(&totals, CALLS), shown(&totals, "s")), (Some(12.0), Some(3.0)));
    }

    #[test]
    fn what_a_new_release_does_not_count_any_more_stays_and_what_it_means_otherwise_is_left_out() {
        let mut totals = Totals::default();
        totals.answered(1, text(10, 3, 1));
        totals.ended(&1);
        totals
            .answered(2, Exposition::parse("# HELP c_total C.\n# TYPE c_total gauge\nc_total{m=\"a\"} 1\n"));
        assert_eq!(shown(&totals, CALLS), Some(10.0));
    }
}

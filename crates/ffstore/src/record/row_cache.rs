//! The row cache: what a node knows of the rows of one table. Values, versions, leases, and the writes that wait. A
//! pure machine: `now` comes in.
//!
//! A slot is *clean* (a copy of the database's row, good for a while), *loose* (changed here by a best-effort
//! write over the version that was read), or *held* (the row names this node's journal as its holder, so
//! nobody else writes it, and this node's value is the newest there is). Loose and held ones may be *dirty*:
//! the database does not have their value yet.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::shape::Record;

/// The cost of a slot besides its record: its places in the map and in the queues.
const OVERHEAD: usize = 192;

/// The backlog: what waits to be written on the whole node, all tables together.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) records: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
}

/// Bounds of one table, as `limits` has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: usize,
    pub(crate) fresh: Duration,
    pub(crate) idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    Clean,
    Loose,
    Held,
}

/// The mark of a dirty value: when the database must have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dirty {
    since: Instant,
    due: Instant,
    /// A write-out has taken it; what is written meanwhile is due then.
    in_flight: Option<Option<Instant>>,
}

#[derive(Debug)]
struct Slot<T> {
    /// `None`: the database has no such row.
    value: Option<Arc<T>>,
    /// Of the value; of a loose one, of the row that it was made from.
    version: i64,
    loaded: Instant,
    used: Instant,
    wrote: Instant,
    state: RowState,
    dirty: Option<Dirty>,
    bytes: usize,
    /// Read since the hand of the clock last came by.
    touched: bool,
    /// The entry of the clock that is the slot's own.
    place: u64,
}

/// A copy of a slot.
#[derive(Debug)]
pub(crate) struct SlotCopy<T> {
    pub(crate) value: Option<Arc<T>>,
    pub(crate) version: i64,
    pub(crate) state: RowState,
    pub(crate) dirty: bool,
}

/// A dirty value on its way to the database.
#[derive(Debug)]
pub(crate) struct Due<K, T> {
    pub(crate) key: K,
    pub(crate) value: Arc<T>,
    pub(crate) version: i64,
    pub(crate) state: RowState,
}

/// The slots of one table.
pub(crate) struct RowCache<T: Record> {
    slots: FxHashMap<T::Key, Slot<T>>,
    /// The slots in about the order of their use: a clock, whose hand is its front.
    clock: VecDeque<(T::Key, u64)>,
    places: u64,
    due: BTreeSet<(Instant, T::Key)>,
    held: usize,
    bytes: usize,
    bounds: Bounds,
    backlog: Arc<Backlog>,
}

impl<T: Record> RowCache<T> {
    pub(crate) fn new(bounds: Bounds, backlog: Arc<Backlog>) -> Self {
        Self {
            slots: FxHashMap::default(),
            clock: VecDeque::new(),
            places: 0,
            due: BTreeSet::new(),
            held: 0,
            bytes: 0,
            bounds,
            backlog,
        }
    }

    /// The value when it may be read without asking anybody: it was loaded at most `fresh` ago, or since
    /// `asked`, or is this node's own. `Some(None)`: it is known that there is no such row.
    #[inline]
    pub(crate) fn read(&mut self, key: &T::Key, asked: Instant, now: Instant) -> Option<Option<Arc<T>>> {
        let slot = self.slots.get_mut(key)?;
        let own = slot.state == RowState::Held || slot.dirty.is_some();
        if !own && slot.loaded < asked && now.saturating_duration_since(slot.loaded) >= self.bounds.fresh {
            return None;
        }
        (slot.used, slot.touched) = (now, true);
        Some(slot.value.clone())
    }

    /// Everything that is known, however old.
    pub(crate) fn known(&self, key: &T::Key) -> Option<SlotCopy<T>> {
        let slot = self.slots.get(key)?;
        Some(SlotCopy {
            value: slot.value.clone(),
            version: slot.version,
            state: slot.state,
            dirty: slot.dirty.is_some(),
        })
    }

    /// Takes in what was read since `asked`, unless this node knows better: it holds the row, has changed it,
    /// has taken it in since, or knows a newer version. Gives what it knows now.
    pub(crate) fn learn(
        &mut self,
        key: &T::Key,
        value: Option<Arc<T>>,
        version: i64,
        asked: Instant,
        now: Instant,
    ) -> Option<Arc<T>> {
        if let Some(slot) = self.slots.get_mut(key) {
            let own = slot.state == RowState::Held || slot.dirty.is_some() || slot.loaded > asked;
            if own || (value.is_some() && slot.value.is_some() && slot.version > version) {
                return slot.value.clone();
            }
        }
        self.put(key, value.clone(), version, now);
        value
    }

    /// Takes in what was written to the database, or read there in a conflict: a clean slot.
    pub(crate) fn put(&mut self, key: &T::Key, value: Option<Arc<T>>, version: i64, now: Instant) {
        self.forget(key);
        self.insert(key, value, version, now);
        self.shrink(self.places);
    }

    fn insert(&mut self, key: &T::Key, value: Option<Arc<T>>, version: i64, now: Instant) {
        let bytes = size::<T>(value.as_deref());
        self.bytes += bytes;
        self.places += 1;
        let place = self.places;
        self.slots.insert(
            key.clone(),
            Slot {
                value,
                version,
                loaded: now,
                used: now,
                wrote: now,
                state: RowState::Clean,
                dirty: None,
                bytes,
                touched: false,
                place,
            },
        );
        self.clock.push_back((key.clone(), place));
    }

    /// Forgets a slot, whatever it is.
    pub(crate) fn forget(&mut self, key: &T::Key) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        self.bytes -= slot.bytes;
        if slot.state == RowState::Held {
            self.held -= 1;
        }
        if let Some(dirty) = slot.dirty.take() {
            self.due.remove(&(dirty.due, key.clone()));
            self.clean_backlog(slot.bytes);
        }
    }

    /// The row of this version now names this node's journal. Gives the version of the value: the next one when it is
    /// a loose one, which the row does not have.
    pub(crate) fn lease(&mut self, key: &T::Key, value: &Arc<T>, version: i64, now: Instant) -> i64 {
        // It may have left since it was read.
        if !self.slots.contains_key(key) {
            self.insert(key, Some(value.clone()), version, now);
        }
        let Some(slot) = self.slots.get_mut(key) else { return version };
        let version =
            if slot.dirty.is_some() && slot.state == RowState::Loose { version + 1 } else { version };
        if slot.state != RowState::Held {
            self.held += 1;
        }
        slot.state = RowState::Held;
        // Whatever was read meanwhile: the row was this when it became ours.
        (slot.value, slot.version, slot.wrote) = (Some(value.clone()), version, now);
        version
    }

    /// The row names no journal any more: the slot is a copy of the database's row.
    pub(crate) fn release(&mut self, key: &T::Key, now: Instant) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.state == RowState::Held {
            self.held -= 1;
            slot.state = RowState::Clean;
            slot.loaded = now;
        }
        if let Some(dirty) = slot.dirty.take() {
            let bytes = slot.bytes;
            self.due.remove(&(dirty.due, key.clone()));
            self.clean_backlog(bytes);
        }
    }

    /// Takes a write in that the database is to have by `due`: of a held row as its next version, of any
    /// other as a loose one over `version`.
    pub(crate) fn write(&mut self, key: &T::Key, value: Arc<T>, version: i64, due: Instant, now: Instant) {
        if !self.slots.contains_key(key) {
            self.insert(key, Some(value.clone()), version, now);
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        let bytes = size::<T>(Some(&value));
        self.bytes = self.bytes - slot.bytes + bytes;
        match slot.state {
            RowState::Held => slot.version = version + 1,
            RowState::Clean | RowState::Loose => slot.state = RowState::Loose,
        }
        let old = slot.bytes;
        (slot.value, slot.bytes, slot.used, slot.wrote) = (Some(value), bytes, now, now);
        match &mut slot.dirty {
            None => {
                slot.dirty = Some(Dirty { since: now, due, in_flight: None });
                self.due.insert((due, key.clone()));
                self.backlog.records.fetch_add(1, Ordering::Relaxed);
                self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Some(dirty) => {
                match &mut dirty.in_flight {
                    Some(next) => *next = Some(next.map_or(due, |next| next.min(due))),
                    None if due < dirty.due => {
                        self.due.remove(&(dirty.due, key.clone()));
                        dirty.due = due;
                        self.due.insert((due, key.clone()));
                    }
                    None => {}
                }
                self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.backlog.bytes.fetch_sub(old, Ordering::Relaxed);
            }
        }
    }

    /// Makes a dirty value due now.
    pub(crate) fn hasten(&mut self, key: &T::Key, now: Instant) {
        let Some(dirty) = self.slots.get_mut(key).and_then(|slot| slot.dirty.as_mut()) else { return };
        match &mut dirty.in_flight {
            Some(next) => *next = next.map(|_| now),
            None => {
                self.due.remove(&(dirty.due, key.clone()));
                dirty.due = now;
                self.due.insert((now, key.clone()));
            }
        }
    }

    /// Takes dirty values that are due by `until`, the earliest first, up to these many and about as many
    /// bytes. Each must come back through [`written`](Self::written) or [`failed`](Self::failed).
    pub(crate) fn take_due(&mut self, until: Instant, max: usize, bytes_max: usize) -> Vec<Due<T::Key, T>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < max && bytes < bytes_max {
            let Some((due, _)) = self.due.first() else { break };
            if *due > until {
                break;
            }
            let Some((_, key)) = self.due.pop_first() else { break };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let (Some(dirty), Some(value)) = (&mut slot.dirty, &slot.value) else { continue };
            dirty.in_flight = Some(None);
            bytes += slot.bytes;
            taken.push(Due { key, value: value.clone(), version: slot.version, state: slot.state });
        }
        taken
    }

    /// The database has `due` (of a loose one, as `version`). What was written since stays dirty.
    pub(crate) fn written(&mut self, due: &Due<T::Key, T>, version: i64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&due.key) else { return };
        let Some(dirty) = slot.dirty else { return };
        let Some(next) = dirty.in_flight else { return };
        let same = slot.value.as_ref().is_some_and(|value| Arc::ptr_eq(value, &due.value));
        if slot.state == RowState::Loose {
            slot.version = version;
        }
        if same {
            if slot.state == RowState::Loose {
                slot.state = RowState::Clean;
            }
            slot.loaded = now;
            slot.dirty = None;
            let bytes = slot.bytes;
            return self.clean_backlog(bytes);
        }
        let next = next.unwrap_or(now);
        slot.dirty = Some(Dirty { since: now, due: next, in_flight: None });
        self.due.insert((next, due.key.clone()));
    }

    /// Notes that a value was not written: it is due again at `again`.
    pub(crate) fn failed(&mut self, due: &Due<T::Key, T>, again: Instant) {
        let Some(slot) = self.slots.get_mut(&due.key) else { return };
        if let Some(dirty) = slot.dirty.as_mut().filter(|dirty| dirty.in_flight.is_some()) {
            (dirty.in_flight, dirty.due) = (None, again);
            self.due.insert((again, due.key.clone()));
        }
    }

    /// When the next dirty value is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Since when the oldest dirty value waits.
    pub(crate) fn oldest_dirty(&self) -> Option<Instant> {
        self.slots.values().filter_map(|slot| slot.dirty.map(|dirty| dirty.since)).min()
    }

    /// Keys of rows that are held, have nothing to be written, and were not written to since `since`.
    pub(crate) fn idle_leases(&self, since: Instant) -> Vec<T::Key> {
        let idle =
            |slot: &Slot<T>| slot.state == RowState::Held && slot.dirty.is_none() && slot.wrote <= since;
        self.slots.iter().filter(|(_, slot)| idle(slot)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether any row is held and has nothing to be written.
    pub(crate) fn is_any_idle(&self) -> bool {
        self.slots.values().any(|slot| slot.state == RowState::Held && slot.dirty.is_none())
    }

    /// The number of rows that are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The number of slots, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.slots.len(), self.bytes)
    }

    /// The values that this node knows better than the database.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&T::Key, &Arc<T>)> {
        let own = |slot: &&Slot<T>| slot.state == RowState::Held || slot.dirty.is_some();
        let own = move |(_, slot): &(&T::Key, &Slot<T>)| own(slot);
        self.slots.iter().filter(own).filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// Clean slots that nobody has used for `idle` leave.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let idle = self.bounds.idle;
        for _ in 0..self.clock.len() {
            let Some((key, place)) = self.clock.pop_front() else { break };
            match self.slots.get(&key).filter(|slot| slot.place == place) {
                Some(slot) if !slot.may_leave() || now.saturating_duration_since(slot.used) < idle => {
                    self.clock.push_back((key, place));
                }
                Some(_) => self.forget(&key),
                None => {}
            }
        }
    }

    /// Clean slots leave until the rest fits: those that were not read since the hand last came by. Entries
    /// whose slots are gone leave the clock before it is twice as long as it need be. The slot at `spared` stays:
    /// somebody is about to use it.
    fn shrink(&mut self, spared: u64) {
        let mut steps = 2 * self.clock.len();
        while steps > 0
            && (self.bytes > self.bounds.bytes_max || self.clock.len() > 2 * self.slots.len() + 16)
        {
            steps -= 1;
            let Some((key, place)) = self.clock.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.place == place) else { continue };
            let full = self.bytes > self.bounds.bytes_max;
            if full && slot.may_leave() && !slot.touched && place != spared {
                self.forget(&key);
            } else {
                slot.touched &= !full;
                self.clock.push_back((key, place));
            }
        }
    }

    fn clean_backlog(&self, bytes: usize) {
        self.backlog.records.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<T> Slot<T> {
    fn may_leave(&self) -> bool {
        self.state == RowState::Clean && self.dirty.is_none()
    }
}

fn size<T: Record>(value: Option<&T>) -> usize {
    OVERHEAD + value.map_or(0, Record::bytes)
}

#[cfg(test)]
mod tests;

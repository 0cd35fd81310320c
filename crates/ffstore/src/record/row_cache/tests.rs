//! The machine without I/O: freshness, dirty values on their way, leases, and what leaves memory.

use super::*;
use crate::Record;

#[derive(Record, Debug, Clone, PartialEq)]
#[record(table = "t")]
struct Row {
    #[record(key)]
    id: i64,
    text: String,
}

const SECOND: Duration = Duration::from_secs(1);

fn slots(bytes_max: usize) -> RowCache<Row> {
    let bounds = Bounds { bytes_max, fresh: SECOND, idle: 10 * SECOND };
    RowCache::new(bounds, Arc::default())
}

fn row(id: i64, text: &str) -> Arc<Row> {
    Arc::new(Row { id, text: text.to_owned() })
}

fn read(slots: &mut RowCache<Row>, id: i64, now: Instant) -> Option<Option<String>> {
    slots.read(&id, now, now).map(|found| found.map(|row| row.text.clone()))
}

fn backlog(slots: &RowCache<Row>) -> usize {
    slots.backlog.records.load(Ordering::Relaxed)
}

/// Every sum is what the slots say.
fn check(slots: &RowCache<Row>) {
    assert_eq!(slots.bytes, slots.slots.values().map(|slot| slot.bytes).sum::<usize>());
    let dirty: Vec<_> = slots.slots.values().filter(|slot| slot.dirty.is_some()).collect();
    assert_eq!(backlog(slots), dirty.len());
    assert_eq!(
        slots.backlog.bytes.load(Ordering::Relaxed),
        dirty.iter().map(|slot| slot.bytes).sum::<usize>()
    );
    let held = slots.slots.values().filter(|slot| slot.state == RowState::Held).count();
    assert_eq!(slots.held, held);
    let due = dirty.iter().filter(|slot| slot.dirty.is_some_and(|dirty| dirty.in_flight.is_none())).count();
    assert_eq!(slots.due.len(), due);
}

#[test]
fn a_copy_is_read_while_it_is_fresh_and_a_missing_row_is_remembered() {
    let now = Instant::now();
    let mut slots = slots(1 << 20);
    assert_eq!(read(&mut slots, 1, now), None);
    slots.learn(&1, Some(row(1, "a")), 5, now, now);
    slots.learn(&2, None, 0, now, now);
    assert_eq!(read(&mut slots, 1, now), Some(Some("a".into())));
    assert_eq!(read(&mut slots, 2, now), Some(None));
    let later = now + SECOND;
    assert_eq!(read(&mut slots, 1, later), None);
    // Who asked before it was loaded takes it, however long it waited.
    assert!(slots.read(&1, now, later).is_some());
    slots.learn(&1, Some(row(1, "older")), 4, later, later);
    assert_eq!(slots.known(&1).unwrap().value.unwrap().text, "a", "a newer one is known");
    check(&slots);
}

#[test]
fn what_is_written_while_it_is_on_its_way_stays_dirty() {
    let now = Instant::now();
    let mut slots = slots(1 << 20);
    slots.learn(&1, Some(row(1, "a")), 5, now, now);
    slots.lease(&1, &row(1, "a"), 5, now);
    slots.write(&1, row(1, "b"), 5, now + SECOND, now);
    slots.write(&1, row(1, "c"), 6, now + 2 * SECOND, now);
    assert_eq!(backlog(&slots), 1, "two writes are one record");
    assert!(slots.take_due(now, 10, 1 << 20).is_empty());
    let taken = slots.take_due(now + SECOND, 10, 1 << 20);
    assert_eq!((taken[0].value.text.as_str(), taken[0].version), ("c", 7));
    assert!(slots.take_due(now + 9 * SECOND, 10, 1 << 20).is_empty(), "it is on its way");
    slots.write(&1, row(1, "d"), 7, now + 3 * SECOND, now);
    slots.written(&taken[0], 7, now + SECOND);
    check(&slots);
    assert_eq!(slots.next_due(), Some(now + 3 * SECOND));
    let taken = slots.take_due(now + 3 * SECOND, 10, 1 << 20);
    slots.failed(&taken[0], now + 4 * SECOND);
    check(&slots);
    assert_eq!(slots.next_due(), Some(now + 4 * SECOND));
    let taken = slots.take_due(now + 4 * SECOND, 10, 1 << 20);
    slots.written(&taken[0], 8, now + 4 * SECOND);
    assert_eq!((backlog(&slots), slots.held()), (0, 1), "clean, and still held");
    assert_eq!(
        read(&mut slots, 1, now + 99 * SECOND),
        Some(Some("d".into())),
        "what is held is always fresh"
    );
    assert_eq!(slots.idle_leases(now), [1]);
    slots.release(&1, now);
    assert_eq!((slots.held(), slots.known(&1).unwrap().version), (0, 8));
    check(&slots);
}

#[test]
fn a_loose_write_keeps_the_version_that_it_was_made_from_until_it_is_written() {
    let now = Instant::now();
    let mut slots = slots(1 << 20);
    slots.learn(&1, Some(row(1, "a")), 5, now, now);
    slots.write(&1, row(1, "b"), 5, now, now);
    slots.learn(&1, Some(row(1, "theirs")), 6, now, now);
    assert_eq!(slots.known(&1).unwrap().version, 5, "this node knows better");
    let taken = slots.take_due(now, 10, 1 << 20);
    assert_eq!((taken[0].state, taken[0].version), (RowState::Loose, 5));
    slots.written(&taken[0], 6, now);
    let known = slots.known(&1).unwrap();
    assert_eq!((known.state, known.version, known.dirty), (RowState::Clean, 6, false));
    check(&slots);
}

#[test]
fn memory_is_bounded_and_what_is_dirty_or_held_never_leaves() {
    let now = Instant::now();
    let mut slots = slots(20_000);
    slots.learn(&0, Some(row(0, "held")), 1, now, now);
    slots.lease(&0, &row(0, "held"), 1, now);
    slots.learn(&1, Some(row(1, "dirty")), 1, now, now);
    slots.write(&1, row(1, "dirty"), 1, now + SECOND, now);
    for id in 2..1000 {
        slots.learn(&id, Some(row(id, "clean")), 1, now, now);
        assert!(read(&mut slots, 2, now).is_some(), "2 is read all the time, and stays");
    }
    assert!(slots.bytes <= 20_000 && slots.slots.len() > 20, "{} bytes", slots.bytes);
    assert!(slots.known(&0).is_some() && slots.known(&1).is_some());
    assert!(slots.clock.len() <= 2 * slots.slots.len() + 17);
    check(&slots);
    slots.sweep(now + 10 * SECOND);
    assert_eq!(slots.slots.len(), 2);
    check(&slots);
}

#[test]
fn the_session_that_ends_makes_its_record_due() {
    let now = Instant::now();
    let mut slots = slots(1 << 20);
    slots.learn(&1, Some(row(1, "a")), 5, now, now);
    slots.write(&1, row(1, "b"), 5, now + 60 * SECOND, now);
    slots.hasten(&1, now);
    assert_eq!(slots.next_due(), Some(now));
    check(&slots);
}

#[test]
fn what_was_asked_before_a_record_was_made_here_is_not_believed() {
    let asked = Instant::now();
    let now = asked + Duration::from_millis(1);
    let mut slots = slots(1 << 20);
    slots.put(&1, Some(row(1, "a")), 5, now);
    slots.learn(&1, None, 0, asked, now + SECOND);
    assert_eq!(slots.known(&1).unwrap().version, 5, "it was read before the insert");
    slots.lease(&1, &row(1, "a"), 5, now);
    slots.write(&1, row(1, "b"), 5, now + SECOND, now);
    assert_eq!(slots.known(&1).unwrap().version, 6);
    // Whatever came in while the lease was under way: the held row is what it was made from.
    slots.put(&2, None, 0, now);
    slots.lease(&2, &row(2, "x"), 9, now);
    slots.write(&2, row(2, "y"), 9, now, now);
    let known = slots.known(&2).unwrap();
    assert_eq!((known.version, &*known.value.unwrap().text), (10, "y"));
    check(&slots);
}

#[test]
fn a_record_that_was_just_read_is_there_though_nothing_else_can_leave() {
    let now = Instant::now();
    let mut slots = slots(4_000);
    for id in 0..100 {
        slots.learn(&id, Some(row(id, "held")), 1, now, now);
        assert!(slots.known(&id).is_some(), "{id}");
        slots.lease(&id, &row(id, "held"), 1, now);
    }
    check(&slots);
}

#[test]
fn a_loose_value_of_a_row_that_becomes_held_is_a_state_of_its_own() {
    let now = Instant::now();
    let mut slots = slots(1 << 20);
    slots.learn(&1, Some(row(1, "a")), 5, now, now);
    assert_eq!(slots.lease(&1, &row(1, "a"), 5, now), 5, "the row has it");
    slots.release(&1, now);
    slots.write(&1, row(1, "loose"), 5, now + SECOND, now);
    let value = slots.known(&1).unwrap().value.unwrap();
    assert_eq!(slots.lease(&1, &value, 5, now), 6, "the row does not have it");
    let taken = slots.take_due(now + SECOND, 10, 1 << 20);
    assert_eq!((taken[0].version, taken[0].state), (6, RowState::Held), "so it goes over the row's version");
    slots.write(&1, row(1, "b"), 6, now + SECOND, now);
    assert_eq!(slots.known(&1).unwrap().version, 7);
    slots.written(&taken[0], 6, now);
    check(&slots);
}

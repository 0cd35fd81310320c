//! The cache in the process: bounded in bytes, the least recently used goes first; time comes in as `now`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use super::Version;

/// The cost of an item besides its key and value: its places in the table, the map and the allocator.
const OVERHEAD: usize = 128;

/// "No item" in the list of use.
const NONE: usize = usize::MAX;

/// A value was larger than the store takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A value was not a decimal number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

#[derive(Debug)]
struct Item {
    key: Arc<[u8]>,
    value: Bytes,
    expires: Option<Instant>,
    version: u64,
    newer: usize,
    older: usize,
}

/// Keys, values, and the order in which they were used.
#[derive(Debug)]
pub(super) struct Store {
    places: HashMap<Arc<[u8]>, usize>,
    items: Slab<Item>,
    newest: usize,
    oldest: usize,
    bytes: usize,
    bytes_max: usize,
    versions: u64,
}

impl Store {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            places: HashMap::new(),
            items: Slab::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            bytes_max,
            versions: 0,
        }
    }

    pub(super) fn get(&mut self, key: &[u8], now: Instant) -> Option<(Bytes, Version)> {
        let place = self.live(key, now)?;
        self.unlink(place);
        self.link_newest(place);
        let item = &self.items[place];
        Some((item.value.clone(), Version(item.version)))
    }

    /// A value that is too large leaves nothing behind, as in memcached: the older value would be wrong.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], expires: Option<Instant>) -> Result<(), TooLarge> {
        self.remove(key);
        let size = size(key, value);
        // One item never fills more than a quarter, so that no single one can push everything else out.
        if size > self.bytes_max / 4 {
            return Err(TooLarge);
        }
        while self.bytes + size > self.bytes_max {
            let oldest = self.items[self.oldest].key.clone();
            self.remove(&oldest);
        }
        self.versions += 1;
        let key: Arc<[u8]> = Arc::from(key);
        let place = self.items.insert(Item {
            key: key.clone(),
            // Copied, so that a small value does not keep the large buffer that it was cut from.
            value: Bytes::copy_from_slice(value),
            expires,
            version: self.versions,
            newer: NONE,
            older: NONE,
        });
        self.places.insert(key, place);
        self.bytes += size;
        self.link_newest(place);
        Ok(())
    }

    /// Stores only where nothing is; whether it did.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<bool, TooLarge> {
        if self.live(key, now).is_some() {
            return Ok(false);
        }
        self.set(key, value, expires).map(|()| true)
    }

    /// Stores only over the version that was read; whether it did.
    pub(super) fn cas(
        &mut self,
        key: &[u8],
        value: &[u8],
        expires: Option<Instant>,
        version: Version,
        now: Instant,
    ) -> Result<bool, TooLarge> {
        match self.live(key, now) {
            Some(place) if self.items[place].version == version.0 => {
                self.set(key, value, expires).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Adds to a counter, which begins at `by` and then keeps its time to live.
    pub(super) fn incr(
        &mut self,
        key: &[u8],
        by: u64,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<u64, NotANumber> {
        let (sum, expires) = match self.live(key, now) {
            None => (by, expires),
            Some(place) => {
                let item = &self.items[place];
                let number = std::str::from_utf8(&item.value).ok().and_then(|text| text.parse::<u64>().ok());
                (number.ok_or(NotANumber)?.wrapping_add(by), item.expires)
            }
        };
        // A counter is 20 bytes at most; only a cache without any room refuses it, and then it counts from 0.
        let _no_room = self.set(key, sum.to_string().as_bytes(), expires);
        Ok(sum)
    }

    /// Gives a new time to live; whether there was anything.
    pub(super) fn touch(&mut self, key: &[u8], expires: Option<Instant>, now: Instant) -> bool {
        let Some(place) = self.live(key, now) else { return false };
        self.items[place].expires = expires;
        self.unlink(place);
        self.link_newest(place);
        true
    }

    /// Whether there was anything.
    pub(super) fn delete(&mut self, key: &[u8], now: Instant) -> bool {
        let found = self.live(key, now).is_some();
        self.remove(key);
        found
    }

    /// The place of a key that has not expired; one that has is removed here.
    fn live(&mut self, key: &[u8], now: Instant) -> Option<usize> {
        let place = *self.places.get(key)?;
        if self.items[place].expires.is_some_and(|expires| expires <= now) {
            self.remove(key);
            return None;
        }
        Some(place)
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(place) = self.places.remove(key) {
            self.unlink(place);
            let item = self.items.remove(place);
            self.bytes -= size(&item.key, &item.value);
        }
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.items[place].newer, self.items[place].older);
        match self.items.get_mut(newer) {
            Some(item) => item.older = older,
            None => self.newest = older,
        }
        match self.items.get_mut(older) {
            Some(item) => item.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        let older = self.newest;
        self.items[place].newer = NONE;
        self.items[place].older = older;
        match self.items.get_mut(older) {
            Some(item) => item.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

fn size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn value(store: &mut Store, key: &str, at: Instant) -> Option<String> {
        let (value, _) = store.get(key.as_bytes(), at)?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// The sum and the list are what the items say.
    fn check(store: &Store) {
        let sum: usize = store.items.iter().map(|(_, item)| size(&item.key, &item.value)).sum();
        assert_eq!(store.bytes, sum);
        assert!(store.bytes <= store.bytes_max);
        assert_eq!(store.places.len(), store.items.len());
        let (mut place, mut before, mut seen) = (store.newest, NONE, 0);
        while place != NONE {
            assert_eq!(store.items[place].newer, before);
            (before, place) = (place, store.items[place].older);
            seen += 1;
        }
        assert_eq!((store.oldest, seen), (before, store.items.len()));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let at = now();
        let mut store = Store::new(5 * size(b"1", b"v"));
        for key in ["1", "2", "3", "4", "5"] {
            store.set(key.as_bytes(), b"v", None).unwrap();
        }
        assert!(value(&mut store, "1", at).is_some());
        store.set(b"6", b"v", None).unwrap();
        assert_eq!(value(&mut store, "2", at), None);
        assert_eq!(value(&mut store, "1", at).as_deref(), Some("v"));
        check(&store);
    }

    #[test]
    fn an_expired_value_is_a_miss_and_gives_its_bytes_back() {
        let at = now();
        let mut store = Store::new(10_000);
        store.set(b"k", b"v", Some(at + Duration::from_secs(1))).unwrap();
        assert!(value(&mut store, "k", at).is_some());
        assert!(store.touch(b"k", Some(at + Duration::from_secs(2)), at));
        assert!(value(&mut store, "k", at + Duration::from_secs(1)).is_some());
        assert_eq!(value(&mut store, "k", at + Duration::from_secs(2)), None);
        assert_eq!(store.bytes, 0);
        assert!(!store.touch(b"k", None, at));
        assert!(!store.delete(b"k", at));
    }

    #[test]
    fn a_value_too_large_leaves_nothing_behind() {
        let at = now();
        let mut store = Store::new(4000);
        store.set(b"k", b"old", None).unwrap();
        assert_eq!(store.set(b"k", &[0; 1000], None), Err(TooLarge));
        assert_eq!(value(&mut store, "k", at), None);
        check(&store);
    }

    #[test]
    fn a_counter_begins_at_its_first_step_and_keeps_its_end() {
        let at = now();
        let end = Some(at + Duration::from_secs(5));
        let mut store = Store::new(10_000);
        assert_eq!(store.incr(b"n", 3, end, at), Ok(3));
        assert_eq!(store.incr(b"n", 4, None, at), Ok(7));
        assert_eq!(store.incr(b"n", u64::MAX, None, at), Ok(6));
        assert_eq!(store.incr(b"n", 1, None, at + Duration::from_secs(5)), Ok(1));
        store.set(b"t", b"text", None).unwrap();
        assert_eq!(store.incr(b"t", 1, None, at), Err(NotANumber));
    }

    #[test]
    fn an_old_version_does_not_overwrite() {
        let at = now();
        let mut store = Store::new(10_000);
        assert_eq!(store.add(b"k", b"1", None, at), Ok(true));
        assert_eq!(store.add(b"k", b"2", None, at), Ok(false));
        let (_, version) = store.get(b"k", at).unwrap();
        assert_eq!(store.cas(b"k", b"3", None, version, at), Ok(true));
        assert_eq!(store.cas(b"k", b"4", None, version, at), Ok(false));
        store.delete(b"k", at);
        store.set(b"k", b"3", None).unwrap();
        assert_eq!(store.cas(b"k", b"4", None, version, at), Ok(false));
        assert_eq!(value(&mut store, "k", at).as_deref(), Some("3"));
    }

    /// Against a map and a list that are slow and obvious, with every operation in a fixed mixed-up order.
    #[test]
    fn it_does_what_an_obvious_cache_does() {
        let at = now();
        let room = 6;
        let mut store = Store::new(room * size(b"0", b"0"));
        let mut obvious: Vec<(u8, u8)> = Vec::new();
        let mut random = 12345_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (verb, key, byte) = (random >> 30, b'a' + (random >> 20 & 7) as u8, (random >> 8) as u8);
            let known = obvious.iter().position(|(k, _)| *k == key);
            match verb {
                0 => {
                    assert_eq!(store.delete(&[key], at), known.is_some());
                    known.map(|place| obvious.remove(place));
                }
                1 => {
                    store.set(&[key], &[byte], None).unwrap();
                    known.map(|place| obvious.remove(place));
                    obvious.push((key, byte));
                    if obvious.len() > room {
                        obvious.remove(0);
                    }
                }
                _ => {
                    let got = store.get(&[key], at).map(|(value, _)| value[0]);
                    assert_eq!(got, known.map(|place| obvious[place].1));
                    if let Some(place) = known {
                        let item = obvious.remove(place);
                        obvious.push(item);
                    }
                }
            }
            check(&store);
        }
    }
}

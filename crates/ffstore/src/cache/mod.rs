//! The cache: bytes under keys, for a while, in this process or in memcached servers.
//!
//! The only module that names memcache. A cache may forget anything at any time, so nothing may be kept
//! only here; and a lost memcached is an error value within `memcached.timeout_ms`, never a hang.
//!
//! ```no_run
//! # async fn example(cache: ffstore::cache::Cache) -> Result<(), ffstore::cache::CacheError> {
//! use std::time::Duration;
//!
//! cache.set("player:7", "ann", Duration::from_secs(60)).await?;
//! let name = cache.get("player:7").await?; // Some(b"ann"), or None when it is gone
//! let visits = cache.incr("visits", 1, Duration::from_secs(86_400)).await?;
//! let mine = cache.add("lock:arena", "node-1", Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Keys may be any bytes of any length. memcached sees `PREFIX:KEY` with firefly's `hostname` as the prefix;
//! spaces, control characters and `%` are escaped, and what is longer than 250 bytes is replaced by its
//! SHA-256, so keys are neither refused nor mixed up.

mod error;
#[cfg(feature = "memcached")]
mod key;
mod local;
#[cfg(feature = "memcached")]
mod memcached;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::error::{CacheError, Cause};
use self::local::Store;
#[cfg(feature = "memcached")]
use self::memcached::MemcachedCache;

/// What the in-process cache holds unless [`Cache::in_process`] is given another bound: memcached's own
/// default.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often [`Cache::update`] tries. Ten writers at once on one key need about as many.
const UPDATE_TRIES: u32 = 16;

/// How long a value stays: at least a second, counted in whole seconds, rounded up. `Duration` converts
/// into it.
///
/// memcached's clock ticks once a second, so a value may go up to a second early there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Until it is deleted, or until the room is needed.
    Forever,
    /// At most so long.
    For(Duration),
}

impl From<Duration> for Life {
    fn from(life: Duration) -> Self {
        Self::For(life)
    }
}

impl Life {
    /// When the life ends, in whole seconds as memcached has it. Beyond the clock's range it does not.
    fn end(self, now: Instant) -> Option<Instant> {
        let Self::For(life) = self else { return None };
        let seconds = life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0)).max(1);
        now.checked_add(Duration::from_secs(seconds))
    }
}

/// The version of a value: which write of a key was read; see [`Cache::cas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u64);

/// A cache. Clones share it.
///
/// Every operation is cancel-safe in that it leaves the cache whole; dropping the future of a write leaves
/// open whether it was done.
#[derive(Clone)]
pub struct Cache(Backend, Arc<CacheCounters>);

/// What the reads of a cache have come to.
#[derive(Debug, Default)]
struct CacheCounters {
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

impl CacheCounters {
    /// Counts a read of `keys` keys, of which so many had a value.
    fn count(&self, keys: usize, found: Result<usize, &CacheError>) {
        match found {
            Ok(found) => {
                self.hits.fetch_add(found as u64, Ordering::Relaxed);
                self.misses.fetch_add(keys.saturating_sub(found) as u64, Ordering::Relaxed);
            }
            Err(_) => drop(self.failures.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// What the reads of a cache have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Reads that failed: a memcached is lost or late.
    pub failures: u64,
}

#[derive(Clone)]
enum Backend {
    /// Locked for one look-up, never across an await.
    Local(Arc<Mutex<Store>>),
    #[cfg(feature = "memcached")]
    Remote(MemcachedCache),
}

impl Cache {
    /// A cache in this process, which holds no more than `bytes_max` ([`BYTES_MAX`] is a good start). When
    /// it is full, what was not used for longest goes.
    pub fn in_process(bytes_max: usize) -> Self {
        Self(Backend::Local(Arc::new(Mutex::new(Store::new(bytes_max)))), Arc::default())
    }

    /// The memcached servers of the config, after each of them has answered once. Keys are spread over
    /// them; when one is added or removed only its keys move.
    ///
    /// # Errors
    /// [`CacheError::Unreachable`], [`Refused`](CacheError::Refused) or [`NoServer`](CacheError::NoServer);
    /// [`NotBuilt`](CacheError::NotBuilt) without the feature `memcached`.
    pub async fn connect(config: &ffconfig::Memcached) -> Result<Self, CacheError> {
        #[cfg(feature = "memcached")]
        return MemcachedCache::connect(config)
            .await
            .map(|remote| Self(Backend::Remote(remote), Arc::default()));
        #[cfg(not(feature = "memcached"))]
        {
            let _unused = config;
            Err(CacheError::NotBuilt)
        }
    }

    /// Whether every server answers.
    ///
    /// # Errors
    /// [`CacheError::Lost`] names the first that does not.
    pub async fn ping(&self) -> Result<(), CacheError> {
        match &self.0 {
            Backend::Local(_) => Ok(()),
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.ping().await,
        }
    }

    /// The value of a key; `None` when there is none.
    ///
    /// # Errors
    /// [`CacheError::Lost`] or [`NoAnswer`](CacheError::NoAnswer); who can do without takes them for a miss.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, CacheError> {
        Ok(self.get_versioned(key).await?.map(|(value, _)| value))
    }

    /// The value of a key and its version, for [`cas`](Self::cas).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_versioned(&self, key: impl AsRef<[u8]>) -> Result<Option<(Bytes, Version)>, CacheError> {
        let read = match &self.0 {
            Backend::Local(store) => Ok(store.lock().get(key.as_ref(), Instant::now())),
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.get(key.as_ref()).await,
        };
        self.1.count(1, read.as_ref().map(|value| value.iter().count()));
        read
    }

    /// The values of many keys in the order of the keys, in about one round trip; `None` where there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get): when a server is lost the values of the others are not given either.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let read: Result<Vec<Option<Bytes>>, CacheError> = match &self.0 {
            Backend::Local(store) => {
                let (mut store, now) = (store.lock(), Instant::now());
                Ok(keys.iter().map(|key| store.get(key.as_ref(), now).map(|(value, _)| value)).collect())
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.get_many(keys.iter().map(AsRef::as_ref)).await,
        };
        self.1.count(keys.len(), read.as_ref().map(|values| values.iter().flatten().count()));
        read
    }

    /// What the reads of this cache have come to, of all its clones together.
    pub fn stats(&self) -> CacheStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let CacheCounters { hits, misses, failures } = &*self.1;
        CacheStats { hits: of(hits), misses: of(misses), failures: of(failures) }
    }

    /// Whether its values are in memcached, where other nodes see them.
    pub fn is_shared(&self) -> bool {
        !matches!(self.0, Backend::Local(_))
    }

    /// Stores a value, whatever was there.
    ///
    /// # Errors
    /// [`CacheError::is_unsent`] tells those after which it surely was not stored. After
    /// [`TooLarge`](CacheError::TooLarge) the key holds nothing.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        life: impl Into<Life>,
    ) -> Result<(), CacheError> {
        let (key, value, life) = (key.as_ref(), value.as_ref(), life.into());
        match &self.0 {
            Backend::Local(store) => {
                let end = life.end(Instant::now());
                store.lock().set(key, value, end).map_err(|_| too_large(value))
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.set(key, value, life).await,
        }
    }

    /// Stores a value only where nothing is; whether it did. Of several callers at once exactly one gets
    /// `true`, which makes it a claim.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        life: impl Into<Life>,
    ) -> Result<bool, CacheError> {
        let (key, value, life) = (key.as_ref(), value.as_ref(), life.into());
        match &self.0 {
            Backend::Local(store) => {
                let now = Instant::now();
                store.lock().add(key, value, life.end(now), now).map_err(|_| too_large(value))
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.add(key, value, life).await,
        }
    }

    /// Stores a value only over the one that [`get_versioned`](Self::get_versioned) gave; whether it did.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn cas(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        life: impl Into<Life>,
        version: Version,
    ) -> Result<bool, CacheError> {
        let (key, value, life) = (key.as_ref(), value.as_ref(), life.into());
        match &self.0 {
            Backend::Local(store) => {
                let now = Instant::now();
                store.lock().cas(key, value, life.end(now), version, now).map_err(|_| too_large(value))
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.cas(key, value, life, version).await,
        }
    }

    /// Changes a value with a function of the old one, again when another writer came between, so that no
    /// update is lost. The function may run several times. Gives what was stored.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`CacheError::Contended`].
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        life: impl Into<Life>,
        change: impl Fn(Option<&Bytes>) -> Bytes,
    ) -> Result<Bytes, CacheError> {
        let (key, life) = (key.as_ref(), life.into());
        for _ in 0..UPDATE_TRIES {
            let (value, stored) = match self.get_versioned(key).await? {
                Some((old, version)) => {
                    let value = change(Some(&old));
                    let stored = self.cas(key, &value, life, version).await?;
                    (value, stored)
                }
                None => {
                    let value = change(None);
                    let stored = self.add(key, &value, life).await?;
                    (value, stored)
                }
            };
            if stored {
                return Ok(value);
            }
        }
        Err(CacheError::Contended { tries: UPDATE_TRIES })
    }

    /// Removes a key; whether there was anything.
    ///
    /// # Errors
    /// [`CacheError::Lost`] or [`NoAnswer`](CacheError::NoAnswer).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, CacheError> {
        match &self.0 {
            Backend::Local(store) => Ok(store.lock().delete(key.as_ref(), Instant::now())),
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.delete(key.as_ref()).await,
        }
    }

    /// Adds to a counter and gives the sum. One that is not there begins at `by` and lives for `life`; one
    /// that is there keeps its life. A counter is a decimal number to [`get`](Self::get) and
    /// [`set`](Self::set), and after 2^64 - 1 comes 0.
    ///
    /// # Errors
    /// As [`delete`](Self::delete), and [`CacheError::NotANumber`].
    pub async fn incr(
        &self,
        key: impl AsRef<[u8]>,
        by: u64,
        life: impl Into<Life>,
    ) -> Result<u64, CacheError> {
        let (key, life) = (key.as_ref(), life.into());
        match &self.0 {
            Backend::Local(store) => {
                let now = Instant::now();
                store.lock().incr(key, by, life.end(now), now).map_err(|_| CacheError::NotANumber)
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.incr(key, by, life).await,
        }
    }

    /// Gives a value a new life from now on; whether there was anything.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub async fn touch(&self, key: impl AsRef<[u8]>, life: impl Into<Life>) -> Result<bool, CacheError> {
        let (key, life) = (key.as_ref(), life.into());
        match &self.0 {
            Backend::Local(store) => {
                let now = Instant::now();
                Ok(store.lock().touch(key, life.end(now), now))
            }
            #[cfg(feature = "memcached")]
            Backend::Remote(remote) => remote.touch(key, life).await,
        }
    }
}

impl Default for Cache {
    /// In this process, with [`BYTES_MAX`].
    fn default() -> Self {
        Self::in_process(BYTES_MAX)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Backend::Local(_) => "Cache(in process)",
            #[cfg(feature = "memcached")]
            Backend::Remote(_) => "Cache(memcached)",
        })
    }
}

fn too_large(value: &[u8]) -> CacheError {
    CacheError::TooLarge { bytes: value.len() }
}

#[cfg(test)]
mod tests;

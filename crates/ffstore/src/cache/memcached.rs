//! The cache in memcached servers: the `memcache` crate behind our errors and our bound of time.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use memcache::exp::{
    AsyncMemcache, AsyncMetaClient, Error, Get, GetStatus, MemcacheBuilder, Meta, MutationStatus, Rendezvous,
    Router, Ttl,
};
use tokio::time;

use super::error::Cause;
use super::{CacheError, Life, Version, key};

/// Connections to one server at a time. The crate has no bound of its own: each of 1,000 callers that wait
/// for a slow server would open one more.
const CONNECTIONS_MAX: usize = 64;

/// Connections that are kept open to one server.
const IDLE_MAX: usize = 16;

/// Keys of one request of many: its answer stays within a few megabytes for ordinary values.
const KEYS_AT_ONCE: usize = 1000;

/// A life longer than this is for ever: memcached keeps ends as 32-bit seconds since 1970.
const LIFE_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[derive(Clone)]
pub(super) struct MemcachedCache {
    client: AsyncMemcache,
    servers: std::sync::Arc<[String]>,
    prefix: std::sync::Arc<str>,
    timeout: Duration,
}

impl MemcachedCache {
    /// The crate connects at the first operation, so every server is asked once, all at the same time.
    pub(super) async fn connect(config: &ffconfig::Memcached) -> Result<Self, CacheError> {
        if config.urls.is_empty() {
            return Err(CacheError::NoServer);
        }
        let timeout = config.timeout;
        try_join_all(config.urls.iter().map(|server| probe(server, timeout))).await?;
        let client = MemcacheBuilder::new()
            .timeout(timeout)
            .connect_timeout(timeout)
            .max_idle(IDLE_MAX)
            .max_connections(CONNECTIONS_MAX)
            .router(Rendezvous::new())
            .connect_async(config.urls.iter().map(String::as_str));
        let client = match time::timeout(timeout, client).await {
            Ok(Ok(client)) => client,
            Ok(Err(e)) => return Err(unreachable(&config.urls[0], timeout, cause(e))),
            Err(_late) => return Err(unreachable(&config.urls[0], timeout, "no answer".into())),
        };
        let servers = config.urls.iter().cloned().collect();
        Ok(Self { client, servers, prefix: config.prefix.as_str().into(), timeout })
    }

    pub(super) async fn ping(&self) -> Result<(), CacheError> {
        let all = self.servers.iter().map(|server| probe(server, self.timeout));
        try_join_all(all).await.map(drop).map_err(|e| match e {
            CacheError::Unreachable { server, source, .. } => CacheError::Lost { server, source },
            other => other,
        })
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<(Bytes, Version)>, CacheError> {
        let key = self.key(key);
        let read = self.client.meta().get(&key).meta(Meta::default().cas()).send();
        let found = self.bounded(&key, 0, read).await?;
        // Anything but a hit holds no value of ours.
        let value = found.value.filter(|_| found.status == GetStatus::Hit);
        Ok(value.map(|value| (value.into(), Version(found.item.cas.unwrap_or_default()))))
    }

    /// Each server is asked once for all of its keys, all of them at the same time.
    pub(super) async fn get_many(
        &self,
        keys: impl Iterator<Item = &[u8]>,
    ) -> Result<Vec<Option<Bytes>>, CacheError> {
        let keys: Vec<Vec<u8>> = keys.map(|key| self.key(key)).collect();
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let Some(first) = keys.first() else { continue };
            let read = self.client.meta().run_many(keys.iter().map(Get::new));
            for (key, found) in keys.iter().zip(self.bounded(first, 0, read).await?) {
                let found = found.map_err(|e| failed(e, self.server_of(key), self.timeout, 0))?;
                values.push(found.value.filter(|_| found.status == GetStatus::Hit).map(Bytes::from));
            }
        }
        Ok(values)
    }

    pub(super) async fn set(&self, key: &[u8], value: &[u8], life: Life) -> Result<(), CacheError> {
        let key = self.key(key);
        let store = self.client.meta().set(&key, value).ttl(ttl(life)).send();
        self.bounded(&key, value.len(), store).await.map(drop)
    }

    pub(super) async fn add(&self, key: &[u8], value: &[u8], life: Life) -> Result<bool, CacheError> {
        let key = self.key(key);
        let store = self.client.meta().set(&key, value).ttl(ttl(life)).add().send();
        Ok(self.bounded(&key, value.len(), store).await?.status == MutationStatus::Applied)
    }

    pub(super) async fn cas(
        &self,
        key: &[u8],
        value: &[u8],
        life: Life,
        version: Version,
    ) -> Result<bool, CacheError> {
        let key = self.key(key);
        let store = self.client.meta().set(&key, value).ttl(ttl(life)).compare_cas(version.0).send();
        Ok(self.bounded(&key, value.len(), store).await?.status == MutationStatus::Applied)
    }

    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, CacheError> {
        let key = self.key(key);
        let delete = self.client.meta().delete(&key).send();
        Ok(self.bounded(&key, 0, delete).await?.status == MutationStatus::Applied)
    }

    pub(super) async fn incr(&self, key: &[u8], by: u64, life: Life) -> Result<u64, CacheError> {
        let key = self.key(key);
        let count = self.client.incr(&key, by, ttl(life));
        self.bounded(&key, 0, count).await
    }

    pub(super) async fn touch(&self, key: &[u8], life: Life) -> Result<bool, CacheError> {
        let key = self.key(key);
        let touch = self.client.meta().get(&key).without_value().touch(ttl(life)).send();
        Ok(self.bounded(&key, 0, touch).await?.status == GetStatus::Hit)
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        key::wire(&self.prefix, key)
    }

    /// Bounds the whole operation: the crate's own bounds hold for dialing and for the exchange one by one.
    async fn bounded<T>(
        &self,
        key: &[u8],
        bytes: usize,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CacheError> {
        let waited = self.timeout;
        match time::timeout(waited, operation).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(e)) => Err(failed(e, self.server_of(key), waited, bytes)),
            Err(_late) => Err(CacheError::NoAnswer { server: self.server_of(key), waited }),
        }
    }

    fn server_of(&self, key: &[u8]) -> String {
        let place = Rendezvous::new().route(key, &self.servers);
        self.servers.get(place).cloned().unwrap_or_default()
    }
}

async fn probe(server: &str, waited: Duration) -> Result<(), CacheError> {
    let asked = async { AsyncMetaClient::connect(server).await?.noop().await };
    match time::timeout(waited, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e @ (Error::Rejected(_) | Error::Protocol(_) | Error::Server(_)))) => {
            Err(CacheError::Refused { server: server.to_owned(), source: cause(e) })
        }
        Ok(Err(e)) => Err(unreachable(server, waited, cause(e))),
        Err(_late) => Err(unreachable(server, waited, "no answer".into())),
    }
}

fn unreachable(server: &str, waited: Duration, source: Cause) -> CacheError {
    CacheError::Unreachable { server: server.to_owned(), waited, source }
}

fn ttl(life: Life) -> Ttl {
    match life {
        Life::For(life) if life <= LIFE_MAX => Ttl::from(life.max(Duration::from_secs(1))),
        Life::For(_) | Life::Forever => Ttl::NEVER,
    }
}

fn failed(error: Error, server: String, waited: Duration, bytes: usize) -> CacheError {
    match error {
        // The crate calls every failure after the writing ambiguous, though a refusal is an answer.
        Error::Ambiguous { source, .. } if matches!(*source, Error::Server(_) | Error::Rejected(_)) => {
            failed(*source, server, waited, bytes)
        }
        Error::Ambiguous { .. } => CacheError::NoAnswer { server, waited },
        Error::Server(text) if text.contains("too large") => CacheError::TooLarge { bytes },
        Error::Rejected(text) if text.contains("non-numeric") => CacheError::NotANumber,
        Error::Server(_) | Error::Rejected(_) => CacheError::Refused { server, source: cause(error) },
        other => CacheError::Lost { server, source: cause(other) },
    }
}

/// The innermost telling error: the crate repeats its source in its own text, and shows the whole key.
fn cause(error: Error) -> Cause {
    match error {
        Error::Io(e) => Box::new(e),
        Error::Ambiguous { source, .. } => cause(*source),
        Error::Timeout { .. } => "no answer".into(),
        Error::Server(text) | Error::Rejected(text) | Error::Protocol(text) => text.into(),
        other => Box::new(other),
    }
}

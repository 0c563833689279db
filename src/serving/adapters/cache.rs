//! Single-flight LRU cache with a byte budget, from adapter version to loaded value.
//!
//! - **Single-flight**: concurrent lookups of a version load it once, and all of them get the value or the error. The
//!   load runs in a task of its own, so it continues when the first caller is cancelled.
//! - **Pinning**: a value in use (an `Arc` outside the cache) is never evicted.
//! - **Budget**: the least recently used value is evicted first. A value larger than the whole budget is returned
//!   without being cached.
//! - Errors are not cached: the next lookup loads again.

#[cfg(test)]
mod tests;

use crate::serving::errors::clone_error;
use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

pub struct AdapterCache<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    entries: LruMap<V>,
    in_flight: HashMap<String, InFlightLoad<V>>,
    /// Number of loads started. Serves as id, which tells a load of a version from a later load of it.
    loads: u64,
    hits: u64,
}

struct InFlightLoad<V> {
    load_id: u64,
    result_rx: LoadReceiver<V>,
}

/// `None` until the load ends.
type LoadReceiver<V> = watch::Receiver<Option<LoadResult<V>>>;
type LoadResult<V> = Result<Arc<V>, Arc<Error>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub entries: u64,
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
}

enum Lookup<V> {
    Hit(Arc<V>),
    InFlight(LoadReceiver<V>),
}

impl<V: Send + Sync + 'static> AdapterCache<V> {
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        let state = State { entries: LruMap::new(capacity_bytes), in_flight: HashMap::new(), loads: 0, hits: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Returns the value of this version, from the cache or from `load`, which returns the value and its bytes. `load`
    /// is not polled on a hit or while another load of the version is in flight.
    ///
    /// # Errors
    /// Every caller that waited for a load gets its error.
    pub async fn get_or_load<F>(self: &Arc<Self>, version: &str, load: F) -> Result<Arc<V>>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        match self.lookup_or_start_load(version, load) {
            Lookup::Hit(value) => Ok(value),
            Lookup::InFlight(result_rx) => await_load(result_rx).await,
        }
    }

    /// Removes a version. Requests in flight keep their value; a load in flight is not cached when it ends.
    pub fn invalidate(&self, version: &str) {
        let mut state = self.lock();
        state.entries.remove(version);
        state.in_flight.remove(version);
    }

    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            entries: state.entries.entries.len() as u64,
            bytes: state.entries.bytes,
            hits: state.hits,
            misses: state.loads,
            evictions: state.entries.evictions,
        }
    }

    fn lookup_or_start_load<F>(self: &Arc<Self>, version: &str, load: F) -> Lookup<V>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        let mut state = self.lock();
        let lookup = match state.entries.get(version) {
            Some(value) => Some(Lookup::Hit(value)),
            None => state.in_flight.get(version).map(|load| Lookup::InFlight(load.result_rx.clone())),
        };
        if let Some(lookup) = lookup {
            state.hits += 1;
            return lookup;
        }
        state.loads += 1;
        let load_id = state.loads;
        let (result_tx, result_rx) = watch::channel(None);
        state.in_flight.insert(version.to_string(), InFlightLoad { load_id, result_rx: result_rx.clone() });
        tokio::spawn(Arc::clone(self).run_load(version.to_string(), load_id, load, result_tx));
        Lookup::InFlight(result_rx)
    }

    async fn run_load<F>(
        self: Arc<Self>,
        version: String,
        load_id: u64,
        load: F,
        result_tx: watch::Sender<Option<LoadResult<V>>>,
    ) where
        F: Future<Output = Result<(V, u64)>>,
    {
        let loaded = AssertUnwindSafe(load).catch_unwind().await;
        let loaded = loaded.unwrap_or_else(|payload| Err(Error::from_panic("loading an adapter", payload.as_ref())));
        // Fails when all callers were cancelled; the value is cached for the next one.
        let _ = result_tx.send(Some(self.finish_load(&version, load_id, loaded)));
    }

    fn finish_load(&self, version: &str, load_id: u64, loaded: Result<(V, u64)>) -> LoadResult<V> {
        let mut state = self.lock();
        // The version may have been invalidated, and even loaded again, since this load began.
        let is_current = state.in_flight.get(version).is_some_and(|load| load.load_id == load_id);
        if is_current {
            state.in_flight.remove(version);
        }
        let (value, bytes) = loaded.map_err(Arc::new)?;
        let value = Arc::new(value);
        if is_current {
            state.entries.insert(version, &value, bytes);
        }
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn await_load<V>(mut result_rx: LoadReceiver<V>) -> Result<Arc<V>> {
    let completed = result_rx.wait_for(Option::is_some).await;
    let loaded = completed.ok().and_then(|result| result.clone());
    let abandoned = || Err(Arc::new(Error::internal("the load of an adapter was given up: the server is going down")));
    loaded.unwrap_or_else(abandoned).map_err(|error| clone_error(&error))
}

/// LRU map with a byte budget that never evicts a value in use.
struct LruMap<V> {
    entries: HashMap<String, Entry<V>>,
    capacity_bytes: u64,
    bytes: u64,
    /// Number of uses so far; `Entry::last_used` is a value of it.
    clock: u64,
    evictions: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    last_used: u64,
}

impl<V> LruMap<V> {
    fn new(capacity_bytes: u64) -> Self {
        Self { entries: HashMap::new(), capacity_bytes, bytes: 0, clock: 0, evictions: 0 }
    }

    fn get(&mut self, version: &str) -> Option<Arc<V>> {
        self.clock += 1;
        let entry = self.entries.get_mut(version)?;
        entry.last_used = self.clock;
        let value = Arc::clone(&entry.value);
        // Values that were in use at the last eviction may be free now.
        self.evict();
        Some(value)
    }

    fn insert(&mut self, version: &str, value: &Arc<V>, bytes: u64) {
        if bytes > self.capacity_bytes {
            let capacity_bytes = self.capacity_bytes;
            tracing::warn!(
                version,
                bytes,
                capacity_bytes,
                "adapter is larger than the cache and is loaded for each use"
            );
            return;
        }
        self.clock += 1;
        self.remove(version);
        self.entries.insert(version.to_string(), Entry { value: Arc::clone(value), bytes, last_used: self.clock });
        self.bytes += bytes;
        self.evict();
    }

    fn remove(&mut self, version: &str) {
        if let Some(entry) = self.entries.remove(version) {
            self.bytes -= entry.bytes;
        }
    }

    /// Evicts unused values until the budget holds. A strong count of 1 proves that a value is unused: only this map
    /// makes new references to it, and it is borrowed mutably here.
    fn evict(&mut self) {
        while self.bytes > self.capacity_bytes {
            let evictable = self.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.value) == 1);
            let Some((version, _)) = evictable.min_by_key(|(_, entry)| entry.last_used) else { return };
            let version = version.clone();
            self.remove(&version);
            self.evictions += 1;
        }
    }
}

//! Single-flight LRU cache with a byte budget, from adapter version to loaded value.
//!
//! - **Single-flight**: concurrent lookups of a version load it once, and all of them get the value or the error. The
//!   load runs in a task of its own, so it continues when the first caller is cancelled.
//! - **Pinning**: a value in use is never evicted. The cache is trimmed to its budget when a value is released.
//! - **Budget**: the least recently used value is evicted first. Loads wait while the values in use fill the budget, and
//!   are refused after a second, so that it is exceeded by one value at most. A value larger than the whole budget is
//!   loaded for each use, which concurrent users share.
//! - Errors are not cached: the next lookup loads again.

#[cfg(test)]
mod tests;

use crate::serving::errors::{RETRY_AFTER, clone_error};
use crate::serving::pinned_lru::{Pinned, PinnedLru};
use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// Upper bounds in seconds.
const LOAD_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub struct AdapterCache<V> {
    lru: Arc<PinnedLru<V>>,
    capacity_bytes: u64,
    state: Mutex<State<V>>,
    metrics: LoadMetrics,
}

/// Metrics of loads; clones share them.
#[derive(Clone)]
pub struct LoadMetrics {
    duration: Histogram,
    failures: Counter,
}

impl LoadMetrics {
    fn new() -> Self {
        Self { duration: Histogram::new(LOAD_BUCKETS), failures: Counter::default() }
    }

    pub fn register(&self, registry: &mut Registry) {
        let help = "Time to load and verify an adapter";
        registry.register_with_unit("adapter_load_duration", help, Unit::Seconds, self.duration.clone());
        registry.register("adapter_load_failures", "Loads that failed", self.failures.clone());
    }
}

struct State<V> {
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
type LoadResult<V> = Result<Pinned<V>, Arc<Error>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub entries: u64,
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
}

enum Lookup<V> {
    Hit(Pinned<V>),
    InFlight(LoadReceiver<V>),
}

impl<V: Send + Sync + 'static> AdapterCache<V> {
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        let state = State { in_flight: HashMap::new(), loads: 0, hits: 0 };
        let (lru, metrics) = (PinnedLru::new(capacity_bytes), LoadMetrics::new());
        Arc::new(Self { lru, capacity_bytes, state: Mutex::new(state), metrics })
    }

    /// Returns the value of this version, from the cache or from `load`, which returns the value and its bytes. `load`
    /// is not polled on a hit or while another load of the version is in flight.
    ///
    /// # Errors
    /// Every caller that waited for a load gets its error; `Busy` (`adapter_cache_full`) if the adapters in use leave no
    /// room for another one.
    pub async fn get_or_load<F>(self: &Arc<Self>, version: &str, load: F) -> Result<Pinned<V>>
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
        self.lru.remove(version);
        state.in_flight.remove(version);
    }

    pub fn stats(&self) -> Stats {
        let (state, lru) = (self.lock(), self.lru.stats());
        Stats {
            entries: lru.entries,
            bytes: lru.bytes,
            hits: state.hits,
            misses: state.loads,
            evictions: lru.evictions,
        }
    }

    pub fn metrics(&self) -> &LoadMetrics {
        &self.metrics
    }

    fn lookup_or_start_load<F>(self: &Arc<Self>, version: &str, load: F) -> Lookup<V>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        let mut state = self.lock();
        let lookup = match self.lru.get(version) {
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
        let slot = self.lru.wait_for_room().await;
        let started_at = Instant::now();
        let loaded = match &slot {
            None => Err(self.no_room()),
            Some(_) => AssertUnwindSafe(load)
                .catch_unwind()
                .await
                .unwrap_or_else(|payload| Err(Error::from_panic("loading an adapter", payload.as_ref()))),
        };
        self.metrics.duration.observe(started_at.elapsed().as_secs_f64());
        if loaded.is_err() {
            self.metrics.failures.inc();
        }
        let result = self.finish_load(&version, load_id, loaded);
        // The value is counted by now.
        drop(slot);
        // Fails when all callers were cancelled; the value is cached for the next one.
        let _ = result_tx.send(Some(result));
    }

    fn finish_load(&self, version: &str, load_id: u64, loaded: Result<(V, u64)>) -> LoadResult<V> {
        let mut state = self.lock();
        // The version may have been invalidated, and even loaded again, since this load began.
        let is_current = state.in_flight.get(version).is_some_and(|load| load.load_id == load_id);
        if is_current {
            state.in_flight.remove(version);
        }
        let (value, bytes) = loaded.map_err(Arc::new)?;
        if !is_current {
            return Ok(self.lru.pin_uncached(value, bytes));
        }
        if bytes > self.capacity_bytes {
            let capacity_bytes = self.capacity_bytes;
            tracing::warn!(
                version,
                bytes,
                capacity_bytes,
                "adapter is larger than the cache and is loaded for each use"
            );
        }
        Ok(self.lru.insert(version, value, bytes))
    }

    fn no_room(&self) -> Error {
        let detail = format!(
            "adapters in use fill the adapter cache of {} bytes: try again in a moment, or start the server with a larger \
             --adapter-cache-size",
            self.capacity_bytes
        );
        Error::busy("adapter_cache_full", detail, RETRY_AFTER)
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn await_load<V>(mut result_rx: LoadReceiver<V>) -> Result<Pinned<V>> {
    let completed = result_rx.wait_for(Option::is_some).await;
    let loaded = completed.ok().and_then(|result| result.clone());
    let abandoned =
        || Err(Arc::new(Error::internal("the load of an adapter was given up: the server is shutting down")));
    loaded.unwrap_or_else(abandoned).map_err(|error| clone_error(&error))
}

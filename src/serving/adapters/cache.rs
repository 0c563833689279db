//! What is resident: values by version, within a budget of bytes.
//!
//! - **Single-flight**: however many ask at once, a version is loaded once; all of them get the value, or the error.
//!   The load is a task of its own, so it goes on when the one that asked first goes away.
//! - **Pins**: whoever holds the `Arc` keeps the value; it is never put out while somebody does.
//! - **Budget**: the least recently used goes first. A value larger than the whole budget is answered and not kept.
//! - An error is not remembered: the next request tries again.
//!
//! Knows nothing of adapters.

mod lru;

#[cfg(test)]
mod tests;

use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use lru::LruMap;
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
    /// Loads started so far; their number tells one load of a version from a later one.
    loads: u64,
    hits: u64,
}

struct InFlightLoad<V> {
    load_id: u64,
    result_rx: LoadReceiver<V>,
}

/// `None` while the load is under way.
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

    /// The value of this version: resident, or loaded by `load`, which answers the value and its bytes. `load` is not
    /// polled where it is not needed.
    ///
    /// # Errors
    /// Whatever `load` says, to everybody who waited for it.
    pub async fn get_or_load<F>(self: &Arc<Self>, version: &str, load: F) -> Result<Arc<V>>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        match self.lookup_or_start_load(version, load) {
            Lookup::Hit(value) => Ok(value),
            Lookup::InFlight(result_rx) => await_load(result_rx).await,
        }
    }

    /// Forgets a version; whoever uses it keeps it. A load that is under way is not kept when it ends.
    pub fn invalidate(&self, version: &str) {
        let mut state = self.lock();
        state.entries.remove(version);
        state.in_flight.remove(version);
    }

    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            entries: state.entries.len(),
            bytes: state.entries.bytes(),
            hits: state.hits,
            misses: state.loads,
            evictions: state.entries.evictions(),
        }
    }

    fn lookup_or_start_load<F>(self: &Arc<Self>, version: &str, load: F) -> Lookup<V>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        let mut state = self.lock();
        let lookup = match state.entries.get(version) {
            Some(value) => Some(Lookup::Hit(value)),
            None => state.in_flight.get(version).map(|loading| Lookup::InFlight(loading.result_rx.clone())),
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
        // Nobody is listening when everybody went away; what was loaded stays for the next one.
        let _ = result_tx.send(Some(self.finish_load(&version, load_id, loaded)));
    }

    fn finish_load(&self, version: &str, load_id: u64, loaded: Result<(V, u64)>) -> LoadResult<V> {
        let mut state = self.lock();
        // Forgotten meanwhile, or even asked for again since: then this load is not the one to keep.
        let is_current = state.in_flight.get(version).is_some_and(|loading| loading.load_id == load_id);
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
    let loaded = completed.ok().and_then(|seen| seen.clone());
    let abandoned = || Err(Arc::new(Error::internal("the load of an adapter was given up: the server is going down")));
    loaded.unwrap_or_else(abandoned).map_err(|error| clone_error(&error))
}

/// The same error for another caller.
fn clone_error(error: &Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::Invalid(problem.clone()),
        Error::NotFound(problem) => Error::NotFound(problem.clone()),
        Error::Conflict(problem) => Error::Conflict(problem.clone()),
        Error::Busy { problem, retry_after } => Error::Busy { problem: problem.clone(), retry_after: *retry_after },
        Error::Internal(error) => Error::internal(format!("{error:#}")),
    }
}

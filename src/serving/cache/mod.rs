//! What is resident: values by version, within a budget of bytes.
//!
//! - **Single-flight**: however many ask at once, a version is loaded once; all of them get the value, or the error.
//!   The load is a task of its own, so it goes on when the one that asked first goes away.
//! - **Pins**: whoever holds the `Arc` keeps the value; it is never put out while somebody does.
//! - **Budget**: the least recently used goes first. A value larger than the whole budget is answered and not kept.
//! - An error is not remembered: the next request tries again.
//!
//! Knows nothing of adapters.

mod shelf;

#[cfg(test)]
mod tests;

use espalier_core::error::{Error, Result};
use futures_util::FutureExt;
use shelf::Shelf;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

pub struct Cache<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    shelf: Shelf<V>,
    loading: HashMap<String, Loading<V>>,
    /// Loads started so far; their number tells one load of a version from a later one.
    loads: u64,
    hits: u64,
}

struct Loading<V> {
    number: u64,
    done: Done<V>,
}

/// `None` while the load is under way.
type Done<V> = watch::Receiver<Option<Loaded<V>>>;
type Loaded<V> = Result<Arc<V>, Arc<Error>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub resident: u64,
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
}

enum Found<V> {
    Resident(Arc<V>),
    Loading(Done<V>),
}

impl<V: Send + Sync + 'static> Cache<V> {
    pub fn new(budget: u64) -> Arc<Self> {
        let state = State { shelf: Shelf::new(budget), loading: HashMap::new(), loads: 0, hits: 0 };
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
        match self.find(version, load) {
            Found::Resident(value) => Ok(value),
            Found::Loading(done) => loaded(done).await,
        }
    }

    /// Forgets a version; whoever uses it keeps it. A load that is under way is not kept when it ends.
    pub fn forget(&self, version: &str) {
        let mut state = self.lock();
        state.shelf.remove(version);
        state.loading.remove(version);
    }

    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            resident: state.shelf.len(),
            bytes: state.shelf.bytes(),
            hits: state.hits,
            misses: state.loads,
            evictions: state.shelf.evictions(),
        }
    }

    fn find<F>(self: &Arc<Self>, version: &str, load: F) -> Found<V>
    where
        F: Future<Output = Result<(V, u64)>> + Send + 'static,
    {
        let mut state = self.lock();
        let found = match state.shelf.get(version) {
            Some(value) => Some(Found::Resident(value)),
            None => state.loading.get(version).map(|loading| Found::Loading(loading.done.clone())),
        };
        if let Some(found) = found {
            state.hits += 1;
            return found;
        }
        state.loads += 1;
        let number = state.loads;
        let (announce, done) = watch::channel(None);
        state.loading.insert(version.to_string(), Loading { number, done: done.clone() });
        tokio::spawn(Arc::clone(self).fill(version.to_string(), number, load, announce));
        Found::Loading(done)
    }

    async fn fill<F>(self: Arc<Self>, version: String, number: u64, load: F, announce: watch::Sender<Option<Loaded<V>>>)
    where
        F: Future<Output = Result<(V, u64)>>,
    {
        let loaded = AssertUnwindSafe(load).catch_unwind().await;
        let loaded = loaded.unwrap_or_else(|payload| Err(Error::panicked("loading an adapter", payload.as_ref())));
        // Nobody is listening when everybody went away; what was loaded stays for the next one.
        let _ = announce.send(Some(self.keep(&version, number, loaded)));
    }

    fn keep(&self, version: &str, number: u64, loaded: Result<(V, u64)>) -> Loaded<V> {
        let mut state = self.lock();
        // Forgotten meanwhile, or even asked for again since: then this load is not the one to keep.
        let is_awaited = state.loading.get(version).is_some_and(|loading| loading.number == number);
        if is_awaited {
            state.loading.remove(version);
        }
        let (value, bytes) = loaded.map_err(Arc::new)?;
        let value = Arc::new(value);
        if is_awaited {
            state.shelf.put(version, &value, bytes);
        }
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn loaded<V>(mut done: Done<V>) -> Result<Arc<V>> {
    let seen = done.wait_for(Option::is_some).await;
    let loaded = seen.ok().and_then(|seen| seen.clone());
    let gone = || Err(Arc::new(Error::internal("the load of an adapter was given up: the server is going down")));
    loaded.unwrap_or_else(gone).map_err(|error| again(&error))
}

/// The same error for another caller.
fn again(error: &Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::Invalid(problem.clone()),
        Error::NotFound(problem) => Error::NotFound(problem.clone()),
        Error::Conflict(problem) => Error::Conflict(problem.clone()),
        Error::Busy { problem, retry_after } => Error::Busy { problem: problem.clone(), retry_after: *retry_after },
        Error::Internal(error) => Error::internal(format!("{error:#}")),
    }
}

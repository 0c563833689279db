//! Resolves references to adapter versions, from memory where possible.
//!
//! A resolution is used for [`FRESH_FOR`] without asking the database, unless this process knows that adapters have changed since: it has
//! changed one, or Postgres has announced a change by another process.
//! While the database is unavailable, the last resolution is used for up to the configured staleness, so that resident adapters
//! are served without it.

use crate::store::{Reference, ResolvedAdapter, Store};
use espalier_core::error::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Age up to which a resolution is used without asking the database: the longest time for which another process's new version
/// of a name is not seen, where its announcement is lost.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Time after a failed lookup during which known references are not looked up. Longer than the time limit for getting a
/// connection, so that only one request in it waits for the database.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Number of resolutions at which the expired ones are dropped.
const MAX_RESOLUTIONS: usize = 10_000;

/// Cache of resolved references in front of the store.
pub struct AdapterResolver {
    store: Arc<dyn Store>,
    max_staleness: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    resolutions: HashMap<(String, Reference), Resolution>,
    /// While the database is unavailable: the time of the next lookup of a known reference.
    next_lookup_at: Option<Instant>,
}

struct Resolution {
    adapter: Arc<ResolvedAdapter>,
    resolved_at: Instant,
    /// [`Store::adapter_changes`] before the lookup.
    adapter_changes: u64,
}

impl AdapterResolver {
    /// Resolutions of up to the age `max_staleness` are used while the database is unavailable.
    pub fn new(store: Arc<dyn Store>, max_staleness: Duration) -> Self {
        Self { store, max_staleness, state: Mutex::default() }
    }

    /// Resolves a reference.
    ///
    /// # Errors
    /// As [`Store::resolve_adapter`].
    pub async fn resolve(&self, owner: &str, reference: &Reference) -> Result<Arc<ResolvedAdapter>> {
        let key = (owner.to_string(), reference.clone());
        if let Some(adapter) = self.known(&key) {
            return Ok(adapter);
        }
        let (resolved_at, adapter_changes) = (Instant::now(), self.store.adapter_changes());
        match self.store.resolve_adapter(owner, reference).await {
            Ok(adapter) => {
                let adapter = Arc::new(adapter);
                let resolution = Resolution { adapter: Arc::clone(&adapter), resolved_at, adapter_changes };
                self.insert(key, resolution);
                Ok(adapter)
            }
            Err(error @ Error::Busy { .. }) => self.stale(&key).ok_or(error),
            Err(error) => {
                self.lock().resolutions.remove(&key);
                Err(error)
            }
        }
    }

    /// Resolution that needs no lookup now.
    fn known(&self, key: &(String, Reference)) -> Option<Arc<ResolvedAdapter>> {
        let now = Instant::now();
        let mut state = self.lock();
        let resolution = state.resolutions.get(key)?;
        let age = now.duration_since(resolution.resolved_at);
        if age < FRESH_FOR && resolution.adapter_changes == self.store.adapter_changes() {
            return Some(Arc::clone(&resolution.adapter));
        }
        // While the database is unavailable, one request at a time tries it.
        let adapter = Arc::clone(&resolution.adapter);
        if now >= state.next_lookup_at? {
            state.next_lookup_at = Some(now + RETRY_INTERVAL);
            return None;
        }
        (age < self.max_staleness).then_some(adapter)
    }

    /// Resolution for a reference whose lookup has failed.
    fn stale(&self, key: &(String, Reference)) -> Option<Arc<ResolvedAdapter>> {
        let mut state = self.lock();
        state.next_lookup_at = Some(Instant::now() + RETRY_INTERVAL);
        let resolution = state.resolutions.get(key)?;
        (resolution.resolved_at.elapsed() < self.max_staleness).then(|| Arc::clone(&resolution.adapter))
    }

    fn insert(&self, key: (String, Reference), resolution: Resolution) {
        let mut state = self.lock();
        state.next_lookup_at = None;
        if state.resolutions.len() >= MAX_RESOLUTIONS {
            state.resolutions.retain(|_, resolution| resolution.resolved_at.elapsed() < FRESH_FOR);
        }
        state.resolutions.insert(key, resolution);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! An adapter in memory, and its way there: read strictly, built on the base, its probe replayed.
//!
//! Knows nothing of the cache that keeps it.

use super::Settings;
use crate::artifact::{Adapted, probe};
use crate::compute::held::Activations;
use crate::compute::pool::{self, Priority};
use crate::error::{Error, Result};
use crate::model::Base;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// An adapter that is in memory, or the bare base. Equal when it is the same one in memory: two loads of a version are
/// kept apart, so that a group of a batch has one set of tensors.
#[derive(Clone)]
pub struct Resident(pub Option<Arc<Adapted>>);

impl PartialEq for Resident {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Resident {
    /// Rows that an adapter puts in front of a sequence.
    pub fn virtual_rows(&self) -> usize {
        self.0.as_ref().map_or(0, |adapted| adapted.card.method.virtual_tokens())
    }
}

/// Reads adapters of one folder.
pub struct Loader {
    base: Arc<Base>,
    /// Its sub-folders are versions.
    adapters: PathBuf,
    /// Whether low-rank updates will be read in bytes, too, which are kept beside their numbers.
    rounds: bool,
    /// Replaying a probe is computing: not more at once than there are threads for it.
    turns: Semaphore,
}

impl Loader {
    pub fn new(base: Arc<Base>, adapters: PathBuf, settings: &Settings) -> Arc<Self> {
        let rounds = settings.generation.activations == Activations::Int8;
        Arc::new(Self { base, adapters, rounds, turns: Semaphore::new(settings.threads.max(1)) })
    }

    /// The adapter and its bytes in memory, loaded and checked on a thread of its own.
    pub async fn load(self: Arc<Self>, version: String) -> Result<(Adapted, u64)> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let (answer, loaded) = oneshot::channel();
        let (base, folder, rounds) = (Arc::clone(&self.base), self.adapters.clone(), self.rounds);
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| open(&base, &folder, &version, rounds)));
            let panicked = |payload: Box<_>| Err(Error::panicked("loading an adapter", &*payload));
            // Nobody is there to hear it when the server goes down.
            let _ = answer.send(outcome.unwrap_or_else(panicked));
        };
        pool::spawn("load-adapter", Priority::Normal, work)?;
        loaded.await.unwrap_or_else(|_| Err(Error::internal("the thread that loads an adapter is gone")))
    }
}

fn open(base: &Base, folder: &Path, version: &str, rounds: bool) -> Result<(Adapted, u64)> {
    let (_, adapted) = probe::proven(folder, version, base)?;
    // A byte beside every number.
    let bytes = adapted.bytes() + if rounds { adapted.bytes() / 4 } else { 0 };
    tracing::info!(version, bytes, "adapter loaded");
    Ok((adapted, bytes))
}

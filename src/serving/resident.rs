//! An adapter in memory, and its way there: read strictly, built on the base, its probe replayed.
//!
//! Knows nothing of the cache that keeps it.

use super::Settings;
use espalier_core::artifact::{Adapted, probe};
use espalier_core::error::{Error, Result};
use espalier_core::model::Base;
use espalier_core::task::Reads;
use espalier_tensor::held::Activations;
use espalier_tensor::pool::{self, Priority};
use espalier_tensor::{Kernels, Param};
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
    /// What will generate, where that are not the base's own kernels.
    rounding: Option<Arc<dyn Kernels>>,
    /// Replaying a probe is computing: not more at once than there are threads for it.
    turns: Semaphore,
}

impl Loader {
    pub fn new(base: Arc<Base>, adapters: PathBuf, settings: &Settings) -> Arc<Self> {
        let rounds = settings.generation.activations == Activations::Int8;
        let rounding = rounds.then(|| base.kernels().rounding()).flatten();
        Arc::new(Self { base, adapters, rounding, turns: Semaphore::new(settings.threads.max(1)) })
    }

    /// The adapter and its bytes in memory, loaded and checked on a thread of its own.
    pub async fn load(self: Arc<Self>, version: String) -> Result<(Adapted, u64)> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let (answer, loaded) = oneshot::channel();
        let (base, folder, rounding) = (Arc::clone(&self.base), self.adapters.clone(), self.rounding.clone());
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| open(&base, &folder, &version, rounding.as_deref())));
            let panicked = |payload: Box<_>| Err(Error::panicked("loading an adapter", &*payload));
            // Nobody is there to hear it when the server goes down.
            let _ = answer.send(outcome.unwrap_or_else(panicked));
        };
        pool::spawn("load-adapter", Priority::Normal, work)?;
        loaded.await.unwrap_or_else(|_| Err(Error::internal("the thread that loads an adapter is gone")))
    }
}

fn open(base: &Base, folder: &Path, version: &str, rounding: Option<&dyn Kernels>) -> Result<(Adapted, u64)> {
    let (_, adapted) = probe::proven(folder, version, base)?;
    let generates = matches!(adapted.reader.reads, Reads::Language);
    let bytes = adapted.bytes() + rounding.filter(|_| generates).map_or(0, |kernels| prepare(kernels, &adapted));
    tracing::info!(version, bytes, "adapter loaded");
    Ok((adapted, bytes))
}

/// Makes what these kernels read of an adapter beside its own numbers, before a step of generation would wait for it: its
/// bytes.
fn prepare(kernels: &dyn Kernels, adapted: &Adapted) -> u64 {
    let of = |params: [Param; 2]| params.map(|param| &adapted.parameters[param.index()]);
    let pairs = adapted.hooks.low_ranks().into_iter().map(of);
    pairs.map(|[a, b]| kernels.prepare_low_rank(a, b)).sum()
}

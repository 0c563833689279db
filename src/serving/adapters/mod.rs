//! An adapter in memory, and its way there: read strictly, built on the base, its probe replayed.
//!
//! Knows nothing of the cache that keeps it.

pub mod cache;

use super::Settings;
use espalier_core::artifact::{LoadedAdapter, probe};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::HeadKind;
use espalier_tensor::weight_ops::ActivationQuantization;
use espalier_tensor::worker_pool::{self, Priority};
use espalier_tensor::{Backend, ParamId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// An adapter that is in memory, or the bare base. Equal when it is the same one in memory: two loads of a version are
/// kept apart, so that a group of a batch has one set of tensors.
#[derive(Clone)]
pub struct AdapterHandle(pub Option<Arc<LoadedAdapter>>);

impl PartialEq for AdapterHandle {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl AdapterHandle {
    /// Rows that an adapter puts in front of a sequence.
    pub fn virtual_token_count(&self) -> usize {
        self.0.as_ref().map_or(0, |adapter| adapter.manifest.method.num_virtual_tokens())
    }
}

/// Reads adapters of one folder.
pub struct AdapterLoader {
    base: Arc<BaseModel>,
    /// Its sub-folders are versions.
    adapters_dir: PathBuf,
    /// What will generate, where that are not the base's own kernels.
    int8_kernels: Option<Arc<dyn Backend>>,
    /// Replaying a probe is computing: not more at once than there are threads for it.
    load_permits: Semaphore,
}

impl AdapterLoader {
    pub fn new(base: Arc<BaseModel>, adapters_dir: PathBuf, settings: &Settings) -> Arc<Self> {
        let quantizes_activations = settings.generation.activation_quantization == ActivationQuantization::Int8;
        let int8_kernels = quantizes_activations.then(|| base.backend().with_int8_activations()).flatten();
        Arc::new(Self { base, adapters_dir, int8_kernels, load_permits: Semaphore::new(settings.threads.max(1)) })
    }

    /// The adapter and its bytes in memory, loaded and checked on a thread of its own.
    pub async fn load(self: Arc<Self>, version: String) -> Result<(LoadedAdapter, u64)> {
        let _permit = self.load_permits.acquire().await.expect("the semaphore is never closed");
        let (result_tx, result_rx) = oneshot::channel();
        let (base, folder, int8_kernels) =
            (Arc::clone(&self.base), self.adapters_dir.clone(), self.int8_kernels.clone());
        let load = move || {
            let outcome =
                catch_unwind(AssertUnwindSafe(|| load_verified(&base, &folder, &version, int8_kernels.as_deref())));
            let panicked = |payload: Box<_>| Err(Error::from_panic("loading an adapter", &*payload));
            // Nobody is there to hear it when the server goes down.
            let _ = result_tx.send(outcome.unwrap_or_else(panicked));
        };
        worker_pool::spawn_compute_thread("load-adapter", Priority::Normal, load)?;
        result_rx.await.unwrap_or_else(|_| Err(Error::internal("the thread that loads an adapter is gone")))
    }
}

fn load_verified(
    base: &BaseModel,
    folder: &Path,
    version: &str,
    int8_kernels: Option<&dyn Backend>,
) -> Result<(LoadedAdapter, u64)> {
    let (_, adapter) = probe::load_verified(folder, version, base)?;
    let is_language_model = matches!(adapter.output_head.kind, HeadKind::LmHead);
    let bytes = adapter.tensor_bytes()
        + int8_kernels.filter(|_| is_language_model).map_or(0, |kernels| prepack(kernels, &adapter));
    tracing::info!(version, bytes, "adapter loaded");
    Ok((adapter, bytes))
}

/// Makes what these kernels read of an adapter beside its own numbers, before a step of generation would wait for it: its
/// bytes.
fn prepack(kernels: &dyn Backend, adapter: &LoadedAdapter) -> u64 {
    let tensors = |params: [ParamId; 2]| params.map(|param| &adapter.parameters[param.index()]);
    let lora_pairs = adapter.hooks.lora_pairs().into_iter().map(tensors);
    lora_pairs.map(|[a, b]| kernels.prepack_lora(a, b)).sum()
}

//! Adapters in memory: handles, loading with verification, and the cache.

pub mod cache;
pub mod resolver;

use super::pinned_lru::Pinned;
use crate::store::BlobKind;
use crate::store::blobs::BlobStore;
use espalier_core::artifact::{LoadedAdapter, probe};
use espalier_core::error::{Error, Result};
use espalier_core::model::{BaseModel, VirtualTokens};
use espalier_core::task::HeadKind;
use espalier_tensor::worker_pool::{self, Priority};
use espalier_tensor::{Backend, ParamId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// A loaded adapter with its version, or the base model alone.
///
/// Two handles are equal when they refer to the same loaded adapter. Two loads of one version are different, so that
/// every group of a batch has one set of tensors.
#[derive(Clone)]
pub struct AdapterHandle {
    version: Arc<str>,
    /// Name or id, for metrics.
    label: Arc<str>,
    adapter: Option<Pinned<LoadedAdapter>>,
}

impl AdapterHandle {
    /// A handle whose label is the version.
    pub fn new(version: impl Into<Arc<str>>, adapter: impl Into<Pinned<LoadedAdapter>>) -> Self {
        let version = version.into();
        Self { label: Arc::clone(&version), version, adapter: Some(adapter.into()) }
    }

    pub fn with_label(self, label: impl Into<Arc<str>>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// The base model without an adapter.
    pub fn base() -> Self {
        Self { version: Arc::from(""), label: Arc::from(""), adapter: None }
    }

    /// A handle that is equal to handles with the same name, for tests that compute nothing.
    #[cfg(test)]
    pub fn named(name: &str) -> Self {
        Self { version: Arc::from(name), label: Arc::from(name), adapter: None }
    }

    /// Version of the adapter; empty for the base model.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Name or id of the adapter; empty for the base model.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// `None` for the base model.
    pub fn loaded(&self) -> Option<&LoadedAdapter> {
        self.adapter.as_deref()
    }

    pub fn virtual_tokens(&self) -> VirtualTokens {
        self.loaded().map_or(VirtualTokens::Disabled, |adapter| adapter.hooks.virtual_tokens())
    }

    /// Number of virtual tokens that the adapter puts before a sequence.
    pub fn virtual_token_count(&self) -> usize {
        self.loaded().map_or(0, |adapter| adapter.manifest.method.num_virtual_tokens())
    }
}

impl PartialEq for AdapterHandle {
    fn eq(&self, other: &Self) -> bool {
        match (&self.adapter, &other.adapter) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => self.version == other.version,
            _ => false,
        }
    }
}

/// Loads the adapters of one folder.
pub struct AdapterLoader {
    base: Arc<BaseModel>,
    blobs: Arc<BlobStore>,
    /// Backend of generation.
    generation_backend: Arc<dyn Backend>,
    /// Bounds concurrent loads: replaying a probe is a forward pass.
    load_permits: Semaphore,
}

impl AdapterLoader {
    /// `threads` is the number of concurrent loads.
    pub fn new(
        base: Arc<BaseModel>,
        blobs: Arc<BlobStore>,
        generation_backend: Arc<dyn Backend>,
        threads: usize,
    ) -> Arc<Self> {
        Arc::new(Self { base, blobs, generation_backend, load_permits: Semaphore::new(threads.max(1)) })
    }

    /// Loads and verifies a version on a thread of its own, after a download if it is not in the data folder, or damaged there. Returns the
    /// adapter and its size in memory in bytes.
    pub async fn load(self: Arc<Self>, version: String) -> Result<(LoadedAdapter, u64)> {
        match self.load_from_folder(&version).await {
            Err(error) if error.code() == "adapter_damaged" => {
                match self.blobs.quarantine(BlobKind::Adapter, &version).await? {
                    true => self.load_from_folder(&version).await,
                    false => Err(error),
                }
            }
            loaded => loaded,
        }
    }

    async fn load_from_folder(&self, version: &str) -> Result<(LoadedAdapter, u64)> {
        // Before the permit: a download does not compute.
        let folder = self.blobs.adapters_dir(version).await?;
        let _permit = self.load_permits.acquire().await.expect("the semaphore is never closed");
        let (result_tx, result_rx) = oneshot::channel();
        let (base, backend, version) =
            (Arc::clone(&self.base), Arc::clone(&self.generation_backend), version.to_string());
        let load = move || {
            let load = || load_verified(&base, &folder, &version, backend.as_ref());
            let loaded = catch_unwind(AssertUnwindSafe(load))
                .unwrap_or_else(|payload| Err(Error::from_panic("loading an adapter", payload.as_ref())));
            // The receiver is gone when the runtime shuts down.
            let _ = result_tx.send(loaded);
        };
        worker_pool::spawn_compute_thread("load-adapter", Priority::Normal, load)?;
        result_rx.await.unwrap_or_else(|_| Err(Error::internal("the thread that loads an adapter is gone")))
    }
}

fn load_verified(
    base: &BaseModel,
    folder: &Path,
    version: &str,
    generation_backend: &dyn Backend,
) -> Result<(LoadedAdapter, u64)> {
    let (_, adapter) = probe::load_verified(folder, version, base)?;
    let is_language_model = matches!(adapter.output_head.kind, HeadKind::LmHead);
    let prepacked_bytes = if is_language_model { prepack_lora(generation_backend, &adapter) } else { 0 };
    let bytes = adapter.tensor_bytes() + prepacked_bytes;
    tracing::info!(version, bytes, "adapter loaded");
    Ok((adapter, bytes))
}

/// Packs the LoRA matrices for this backend now, so that no generation step has to. Returns their size in bytes.
fn prepack_lora(backend: &dyn Backend, adapter: &LoadedAdapter) -> u64 {
    let tensors = |params: [ParamId; 2]| params.map(|param| &adapter.parameters[param.index()]);
    let lora_pairs = adapter.hooks.lora_pairs().into_iter().map(tensors);
    lora_pairs.map(|[a, b]| backend.prepack_lora(a, b)).sum()
}

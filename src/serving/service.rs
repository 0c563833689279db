//! The order of a request: admit, resolve, load, tokenise, wait, compute, decode.
//!
//! Nothing here computes on an async thread: tokenising and, unless it is a few microseconds' work, decoding run on
//! blocking threads, everything else on computing threads of our own.

use super::adapters::cache::AdapterCache;
use super::adapters::{AdapterHandle, AdapterLoader};
use super::generation::GenerationEngine;
use super::generation::constraint::ConstraintFactory;
use super::generation::generation_request::GenerationLimits;
use super::generation::token_encoding::TokenByteEncoding;
use super::multi_adapter;
use super::predict::batch::{self, AdapterGroup, ForwardFn};
use super::predict::queue::{Limits, PredictionQueue};
use super::predict::{postprocess, preprocess};
use super::{GenerationRequest, PredictOptions, PredictResponse, RunningGeneration, Settings, Stats};
use crate::store::{Adapter, Reference, Store};
use espalier_core::artifact::LoadedAdapter;
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::Input;
use espalier_tensor::worker_pool::{self, Priority};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

/// So many logits are labels sooner than a thread is awake for it.
const INLINE_POSTPROCESS_MAX: usize = 4096;

/// The handle that requests use; cloned freely.
#[derive(Clone)]
pub struct InferenceService {
    inner: Arc<Inner>,
}

struct Inner {
    base: Arc<BaseModel>,
    store: Arc<dyn Store>,
    loader: Arc<AdapterLoader>,
    cache: Arc<AdapterCache<LoadedAdapter>>,
    queue: Arc<PredictionQueue<AdapterHandle>>,
    counters: Arc<BatchCounters>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Set once: no new requests.
    is_draining: AtomicBool,
    active_requests: TaskTracker,
    max_inputs_per_request: usize,
    /// Where the base says what comes next.
    generation_engine: Option<GenerationEngine>,
    default_max_tokens: u32,
    token_encoding: TokenByteEncoding,
    constraint_factory: Arc<ConstraintFactory>,
}

#[derive(Default)]
struct BatchCounters {
    batches: AtomicU64,
    inputs: AtomicU64,
}

impl InferenceService {
    /// Starts the computing threads. `adapters` is the folder whose sub-folders are versions.
    pub fn start(
        base: Arc<BaseModel>,
        store: Arc<dyn Store>,
        adapters_dir: PathBuf,
        settings: Settings,
    ) -> Result<Self> {
        let Settings {
            max_queued_inputs: max_waiting,
            max_batch_tokens: batch_tokens,
            max_batch_delay: batch_window,
            ..
        } = settings;
        let thread_count = settings.threads.max(1);
        let queue = PredictionQueue::new(Limits {
            max_queued_inputs: max_waiting,
            max_batch_tokens: batch_tokens,
            max_batch_delay: batch_window,
        });
        let counters = Arc::new(BatchCounters::default());
        let token_encoding = TokenByteEncoding::detect(|token| base.tokenizer().token_to_id(token).is_some());
        let inner = Inner {
            loader: AdapterLoader::new(Arc::clone(&base), adapters_dir, &settings),
            cache: AdapterCache::new(settings.adapter_cache_bytes),
            threads: Mutex::new(Vec::new()),
            is_draining: AtomicBool::new(false),
            active_requests: TaskTracker::new(),
            max_inputs_per_request: settings.max_inputs_per_request,
            default_max_tokens: settings.generation.default_max_tokens,
            token_encoding,
            constraint_factory: Arc::new(ConstraintFactory::new(Arc::clone(&base), token_encoding)),
            generation_engine: GenerationEngine::start(&base, settings.generation)?,
            queue: Arc::clone(&queue),
            counters: Arc::clone(&counters),
            base: Arc::clone(&base),
            store,
        };
        for index in 0..thread_count {
            let (queue, base, counters) = (Arc::clone(&queue), Arc::clone(&base), Arc::clone(&counters));
            let work = move || worker_loop(&queue, &forward_fn(base), &counters);
            inner.lock_threads().push(worker_pool::spawn_compute_thread(
                &format!("serve-{index}"),
                Priority::Normal,
                work,
            )?);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// # Errors
    /// `NotFound` for the adapter; `Invalid` for inputs that are empty or too many; `Busy` when the queue is full or the
    /// server goes down; `Conflict` (`adapter_damaged`, `other_base`, `probe_failed`) where the adapter fails its checks.
    pub async fn predict(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        inputs: Vec<Input>,
        options: PredictOptions,
    ) -> Result<PredictResponse> {
        // Counted first, so that `drain` either sees this request or is seen by it.
        let _request_guard = self.inner.active_requests.token();
        self.inner.validate_inputs(&inputs)?;
        let permit = self.inner.queue.admit(inputs.len())?;
        let (adapter, handle) = match reference {
            None => (None, AdapterHandle(None)),
            Some(reference) => self.inner.resolve_adapter(owner, reference).await?,
        };
        let tokenizing_permit = permit.start_tokenizing();
        let (base, handle_for_tokenizer) = (Arc::clone(&self.inner.base), handle.clone());
        let tokenized = spawn_blocking(move || -> Result<_> {
            Ok((preprocess::tokenize(&base, &handle_for_tokenizer, &inputs)?, inputs))
        })
        .await;
        let (tokens, inputs) = tokenized.context("making tokens of the inputs")??;
        // The request holds the adapter until it is answered: a hot swap or a deletion cannot touch it.
        let response = tokenizing_permit.push(handle.clone(), tokens).await;
        let rows = response.unwrap_or_else(|_| Err(Error::internal("a batch was lost before it was computed")))?;
        let predictions = match rows.iter().map(Vec::len).sum::<usize>() <= INLINE_POSTPROCESS_MAX {
            true => postprocess::postprocess_rows(&self.inner.base, &handle, rows, &inputs, options)?,
            false => {
                let base = Arc::clone(&self.inner.base);
                let postprocess = move || postprocess::postprocess_rows(&base, &handle, rows, &inputs, options);
                let postprocessed = spawn_blocking(postprocess).await;
                postprocessed.context("decoding predictions")??
            }
        };
        Ok(PredictResponse { adapter, predictions })
    }

    /// Starts to go on from a prompt.
    ///
    /// # Errors
    /// `Invalid` where the base or the adapter does not say what comes next, or for the prompt; `NotFound`, `Conflict` and
    /// `Busy` as [`Self::predict`].
    pub async fn generate(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        request: GenerationRequest,
    ) -> Result<RunningGeneration> {
        let request_guard = self.inner.active_requests.token();
        self.inner.ensure_accepting()?;
        let Some(generation_engine) = &self.inner.generation_engine else {
            let detail = "this base model does not say what comes next: it is an encoder, or its checkpoint has no language model's head";
            return Err(Error::invalid("no_generation", detail));
        };
        let (adapter, handle) = match reference {
            None => (None, AdapterHandle(None)),
            Some(reference) => self.inner.resolve_adapter(owner, reference).await?,
        };
        let (base, constraint_factory) = (Arc::clone(&self.inner.base), Arc::clone(&self.inner.constraint_factory));
        let limits = GenerationLimits {
            default_max_tokens: self.inner.default_max_tokens,
            max_sequence_length: generation_engine.max_sequence_length(),
            max_sequences: self.inner.max_inputs_per_request,
        };
        let version = adapter.as_ref().map(|adapter| adapter.description.version.clone()).unwrap_or_default();
        let sequence_requests = spawn_blocking(move || {
            request.into_sequence_requests(&base, &constraint_factory, &handle, &version, limits)
        })
        .await;
        let streams = generation_engine.submit(sequence_requests.context("making tokens of a prompt")??)?;
        Ok(RunningGeneration { adapter, streams, _request_guard: request_guard })
    }

    /// How a token is written, in bytes: perhaps only a part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let token = self.inner.base.tokenizer().id_to_token(id).unwrap_or_default();
        self.inner.token_encoding.decode_token(&token)
    }

    /// Forgets a deleted adapter; requests that are under way keep it.
    pub fn invalidate_adapter(&self, version: &str) {
        self.inner.cache.invalidate(version);
    }

    /// Takes no new requests, answers those that are under way, and ends the computing threads.
    pub async fn drain(&self) {
        self.inner.is_draining.store(true, Ordering::SeqCst);
        self.inner.active_requests.close();
        self.inner.active_requests.wait().await;
        self.inner.queue.close();
        let threads = std::mem::take(&mut *self.inner.lock_threads());
        let inner = Arc::clone(&self.inner);
        let joined = spawn_blocking(move || {
            if let Some(generation_engine) = &inner.generation_engine {
                generation_engine.close();
                generation_engine.join();
            }
            threads.into_iter().try_for_each(JoinHandle::join)
        });
        let joined = joined.await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a computing thread had panicked");
        }
    }

    pub fn stats(&self) -> Stats {
        let cache = self.inner.cache.stats();
        Stats {
            resident_adapters: cache.entries,
            resident_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            evictions: cache.evictions,
            queued_inputs: self.inner.queue.input_count() as u64,
            batches: self.inner.counters.batches.load(Ordering::Relaxed),
            batched_inputs: self.inner.counters.inputs.load(Ordering::Relaxed),
            generation: self.inner.generation_engine.as_ref().map(GenerationEngine::stats).unwrap_or_default(),
        }
    }
}

impl Inner {
    fn validate_inputs(&self, inputs: &[Input]) -> Result<()> {
        self.ensure_accepting()?;
        preprocess::validate(inputs, self.max_inputs_per_request)
    }

    fn ensure_accepting(&self) -> Result<()> {
        if self.is_draining.load(Ordering::SeqCst) {
            let detail = "the server is going down: send the request again in a moment";
            return Err(Error::busy("shutting_down", detail, Duration::from_secs(1)));
        }
        Ok(())
    }

    /// The row that the reference names now, and its adapter in memory. The request keeps both to its end.
    async fn resolve_adapter(
        &self,
        owner: &str,
        reference: &Reference,
    ) -> Result<(Option<Arc<Adapter>>, AdapterHandle)> {
        loop {
            let adapter = self.store.adapter(owner, reference).await?;
            let version = adapter.description.version.clone();
            let load = Arc::clone(&self.loader).load(version.clone());
            let error = match self.cache.get_or_load(&version, load).await {
                Ok(loaded) => return Ok((Some(Arc::new(adapter)), AdapterHandle(Some(loaded)))),
                Err(error) => error,
            };
            match self.store.adapter(owner, &Reference::Id(adapter.id)).await {
                Ok(_) => return Err(error),
                // Deleted between the look-up and the load: a name may point to another one by now.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads know only the queue, so the last handle can send them home.
impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Takes batches until the queue is closed and empty.
fn worker_loop(queue: &PredictionQueue<AdapterHandle>, forward: &ForwardFn<AdapterHandle>, counters: &BatchCounters) {
    while let Some(slices) = queue.next_batch() {
        let inputs: usize = slices.iter().map(|slice| slice.inputs.len()).sum();
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.inputs.fetch_add(inputs as u64, Ordering::Relaxed);
        batch::run_batch(&slices, forward);
    }
}

fn forward_fn(base: Arc<BaseModel>) -> Box<ForwardFn<AdapterHandle>> {
    Box::new(move |groups| {
        let group = |group: AdapterGroup<AdapterHandle>| multi_adapter::AdapterGroup {
            adapter: group.adapter.0,
            inputs: group.inputs,
        };
        multi_adapter::forward(&base, &groups.into_iter().map(group).collect::<Vec<_>>())
    })
}

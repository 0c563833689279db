//! Entry point of inference: admits a request, resolves its adapter, tokenizes, computes and postprocesses.
//!
//! Async threads only wait. Tokenizing and the postprocessing of large outputs run on blocking threads; forward passes
//! run on worker threads.

use super::adapter_activity::AdapterActivity;
use super::adapters::cache::AdapterCache;
use super::adapters::resolver::AdapterResolver;
use super::adapters::{AdapterHandle, AdapterLoader};
use super::backends::ServingBackends;
use super::forward_speed::ForwardSpeed;
use super::generation::{GenerationEngine, GenerationRequest, GenerationStream};
use super::multi_adapter::{self, AdapterGroup};
use super::owners::Owner;
use super::predict::batch;
use super::predict::lane::Lane;
use super::predict::metrics::PredictMetrics;
use super::predict::preprocess;
use super::predict::queue::{PredictionQueue, collect_rows};
use super::predict::state::{Limits, RequestSize};
use super::settings::{PredictOptions, PredictResponse, Settings, Stats};
use super::shutdown::{RequestKind, Shutdown};
use super::tokenize_lanes::TokenizeLanes;
use crate::store::blobs::BlobStore;
use crate::store::{Reference, ResolvedAdapter, Store};
use crate::telemetry;
use espalier_core::artifact::LoadedAdapter;
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::{BaseModel, TextLimits};
use espalier_core::task::Input;
use espalier_tensor::worker_pool::{self, Priority};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::task::spawn_blocking;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

/// Up to this many output values, and bytes of text, are postprocessed inline: handing them to a blocking thread would take
/// longer.
const INLINE_POSTPROCESS_MAX: usize = 4096;
const INLINE_POSTPROCESS_MAX_TEXT_BYTES: usize = 64 << 10;

/// Typical for English; the size of a request is estimated with it before its texts are tokenized.
const BYTES_PER_TOKEN: usize = 4;

/// Handle of the inference service; clones share it.
#[derive(Clone)]
pub struct InferenceService {
    inner: Arc<Inner>,
}

struct Inner {
    base: Arc<BaseModel>,
    store: Arc<dyn Store>,
    resolver: AdapterResolver,
    loader: Arc<AdapterLoader>,
    cache: Arc<AdapterCache<LoadedAdapter>>,
    queue: Arc<PredictionQueue>,
    metrics: PredictMetrics,
    worker_threads: Mutex<Vec<JoinHandle<()>>>,
    shutdown: Shutdown,
    tokenize_lanes: TokenizeLanes,
    max_inputs_per_request: usize,
    max_text_bytes: usize,
    max_running_sequences: usize,
    forward_speed: Arc<ForwardSpeed>,
    /// `None` if the base model is not a causal language model.
    generation_engine: Option<Arc<GenerationEngine>>,
}

/// Generation in progress: one stream per choice, prompt by prompt, and the adapter version that generates.
pub struct RunningGeneration {
    pub adapter: Option<Arc<ResolvedAdapter>>,
    pub streams: Vec<GenerationStream>,
    /// Keeps [`InferenceService::drain`] waiting.
    _request_guard: TaskTrackerToken,
}

impl InferenceService {
    /// Starts the worker threads.
    pub fn start(
        base: Arc<BaseModel>,
        store: Arc<dyn Store>,
        blobs: Arc<BlobStore>,
        settings: Settings,
    ) -> Result<Self> {
        let limits = Limits {
            max_queued_inputs: settings.max_queued_inputs,
            max_queue_wait: settings.max_queue_wait,
            max_batch_tokens: settings.max_batch_tokens,
            max_batch_delay: settings.max_batch_delay,
        };
        let thread_count = settings.threads.max(1);
        let backends = ServingBackends::new(&base, settings.activation_quantization)?;
        let inner = Inner {
            loader: AdapterLoader::new(Arc::clone(&base), blobs, Arc::clone(&backends.generation), thread_count),
            cache: AdapterCache::new(settings.adapter_cache_bytes),
            queue: PredictionQueue::new(limits),
            metrics: PredictMetrics::default(),
            worker_threads: Mutex::default(),
            shutdown: Shutdown::default(),
            tokenize_lanes: TokenizeLanes::start(thread_count)?,
            max_inputs_per_request: settings.max_inputs_per_request,
            max_text_bytes: settings.max_text_bytes,
            max_running_sequences: settings.generation.max_running_sequences,
            forward_speed: Arc::default(),
            generation_engine: GenerationEngine::start(&base, backends.generation, settings.generation)?.map(Arc::new),
            resolver: AdapterResolver::new(Arc::clone(&store), settings.max_name_staleness),
            base,
            store,
        };
        for (lane, index) in Lane::ALL.into_iter().flat_map(|lane| (0..thread_count).map(move |index| (lane, index))) {
            let (queue, metrics) = (Arc::clone(&inner.queue), inner.metrics.clone());
            let (base, backend) = (Arc::clone(&inner.base), Arc::clone(&backends.prediction));
            let forward = move |groups: &[AdapterGroup]| multi_adapter::forward_with_backend(&base, &backend, groups);
            let work = move || batch::worker_loop(&queue, lane, &forward, &metrics);
            let (name, priority) = match lane {
                Lane::Short => (format!("serve-{index}"), Priority::Normal),
                Lane::Heavy => (format!("serve-heavy-{index}"), Priority::Low),
                Lane::Long => (format!("serve-long-{index}"), Priority::Low),
            };
            let thread = worker_pool::spawn_compute_thread(&name, priority, work)?;
            inner.lock_worker_threads().push(thread);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Predicts every input with an adapter, or embeds it with the base model.
    ///
    /// # Errors
    /// `Invalid` for inputs that are empty or too many; `Busy` when the queue is full or the server shuts down;
    /// `NotFound` for the adapter; `Conflict` (`adapter_damaged`, `other_base`, `probe_failed`) when the adapter fails
    /// verification.
    pub async fn predict(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        inputs: Vec<Input>,
        options: PredictOptions,
    ) -> Result<PredictResponse> {
        let inner = &self.inner;
        let _request_guard = inner.shutdown.track_request(RequestKind::Prediction)?;
        inner.shutdown.run_until_aborted(inner.predict(owner, reference, inputs, options)).await
    }

    /// Tokens per second that one thread computes with the frozen base; `None` if it cannot be measured. The first call measures it.
    pub async fn forward_tokens_per_second(&self) -> Option<f64> {
        self.inner.forward_speed.tokens_per_second(&self.inner.base).await
    }

    /// Most inputs of one prediction request.
    pub fn max_inputs(&self) -> usize {
        self.inner.max_inputs_per_request.max(1)
    }

    /// Whether a long prediction request of an owner would be admitted now.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn check_long_capacity(&self, owner: &str) -> Result<()> {
        self.inner.queue.check_long_capacity(&Owner::from(owner))
    }

    /// Starts to generate text from prompts.
    ///
    /// # Errors
    /// `Invalid` (`no_generation`) if the base model or the adapter is not a causal language model, and for invalid
    /// parameters or prompts; `NotFound`, `Conflict` and `Busy` as for [`Self::predict`].
    pub async fn generate(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        request: GenerationRequest,
    ) -> Result<RunningGeneration> {
        let inner = &self.inner;
        let request_guard = inner.shutdown.track_request(RequestKind::Generation)?;
        let start = inner.start_generation(owner, reference, request);
        let (adapter, streams) = inner.shutdown.run_until_aborted(start).await?;
        Ok(RunningGeneration { adapter, streams, _request_guard: request_guard })
    }

    /// Runs the work of an owner's request with `text_bytes` of text, which gets `--max-text`, on a thread that tokenizes.
    ///
    /// # Errors
    /// The error of the work; `Busy` (`shutting_down`).
    pub(super) async fn run_tokenizing<T: Send + 'static>(
        &self,
        owner: &str,
        text_bytes: usize,
        work: impl FnOnce(&BaseModel, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = &self.inner;
        let _request_guard = inner.shutdown.track_request(RequestKind::Prediction)?;
        let (base, max_text_bytes) = (Arc::clone(&inner.base), inner.max_text_bytes);
        let work = move |_: &AtomicBool| work(&base, max_text_bytes);
        let owner = Owner::from(owner);
        inner.shutdown.run_until_aborted(inner.tokenize_lanes.run(&owner, text_bytes, work)).await
    }

    /// Bytes of a token's text, which may be only a part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.inner.generation_engine.as_ref().map(|engine| engine.token_bytes(id)).unwrap_or_default()
    }

    /// Removes a deleted adapter from the cache; requests in flight keep it.
    pub fn invalidate_adapter(&self, version: &str) {
        self.inner.cache.invalidate(version);
    }

    /// Refuses new generation requests; predictions, which are short, are still accepted.
    pub fn refuse_generation(&self) {
        self.inner.shutdown.refuse_generation();
    }

    /// Ends all requests in flight with `Busy` (`shutting_down`), and refuses new ones.
    pub fn abort_requests(&self) {
        self.inner.shutdown.abort();
        if let Some(engine) = &self.inner.generation_engine {
            engine.abort();
        }
    }

    /// Refuses new requests, waits for those in flight, and ends the worker threads.
    pub async fn drain(&self) {
        let inner = &self.inner;
        inner.shutdown.refuse_new_requests();
        inner.shutdown.wait().await;
        inner.queue.close();
        let threads = std::mem::take(&mut *inner.lock_worker_threads());
        let engine = inner.generation_engine.clone();
        let joined = spawn_blocking(move || {
            if let Some(engine) = engine {
                engine.close();
                engine.join();
            }
            threads.into_iter().try_for_each(JoinHandle::join)
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a worker thread had panicked");
        }
    }

    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let cache = inner.cache.stats();
        Stats {
            resident_adapters: cache.entries,
            resident_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            evictions: cache.evictions,
            queued_inputs: inner.queue.input_count() as u64,
            running_inputs: inner.queue.running_input_count() as u64,
            batches: inner.metrics.batches(),
            batched_inputs: inner.metrics.inputs(),
            generation: inner.generation_engine.as_ref().map(|engine| engine.stats()).unwrap_or_default(),
        }
    }
}

impl InferenceService {
    /// Registers counters and histograms.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
        self.inner.cache.metrics().register(registry);
        if let Some(engine) = &self.inner.generation_engine {
            engine.metrics().register(registry);
        }
    }

    /// Adapters of the requests that wait and of those that are computed.
    pub fn adapter_activity(&self) -> AdapterActivity {
        let inner = &self.inner;
        let mut activity = AdapterActivity { max_running: inner.max_running_sequences, ..AdapterActivity::default() };
        inner.queue.add_adapters_to(&mut activity);
        if let Some(engine) = &inner.generation_engine {
            engine.add_adapters_to(&mut activity);
        }
        activity
    }
}

impl Inner {
    async fn predict(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        inputs: Vec<Input>,
        options: PredictOptions,
    ) -> Result<PredictResponse> {
        preprocess::validate(&inputs, self.max_inputs_per_request)?;
        let text_bytes = inputs.iter().map(Input::text_bytes).sum();
        let tokens = inputs.iter().map(|input| self.estimate_tokens(input)).sum();
        let owner = Owner::from(owner);
        let mut permit = self.queue.admit(&owner, RequestSize { inputs: inputs.len(), tokens })?;
        let (adapter, handle) = self.resolve_adapter(&owner, reference).await?;
        let thresholds = preprocess::resolve_thresholds(&handle, options.threshold.as_ref())?;
        // A batch waits for short requests alone.
        if TokenizeLanes::is_short(text_bytes) {
            permit.start_tokenizing();
        }
        let (base, tokenizing_handle) = (Arc::clone(&self.base), handle.clone());
        let (max_text_bytes, long_inputs) = (self.max_text_bytes, options.long_inputs);
        let tokenize = move |is_cancelled: &AtomicBool| {
            let limits = TextLimits { max_length: base.info().max_tokens, max_text_bytes, is_cancelled };
            Ok((preprocess::tokenize(&base, &tokenizing_handle, &inputs, limits, long_inputs)?, inputs))
        };
        let tokenize = self.tokenize_lanes.run(&owner, text_bytes, tokenize);
        let (tokens, inputs) = tokenize.instrument(tracing::debug_span!("tokenize")).await?;
        let truncated = tokens.iter().map(|tokens| tokens.truncated).collect();
        let token_counts = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        // `handle` pins the adapter until the response is complete.
        let rows = collect_rows(permit.push(&handle, tokens)).await?;
        let is_small = rows.iter().map(Vec::len).sum::<usize>() <= INLINE_POSTPROCESS_MAX
            && text_bytes <= INLINE_POSTPROCESS_MAX_TEXT_BYTES;
        let options = preprocess::PostprocessOptions { top_k: options.top_k, logits: options.logits, thresholds };
        let predictions = match is_small {
            true => preprocess::postprocess_rows(&self.base, &handle, rows, &inputs, &options)?,
            false => {
                let base = Arc::clone(&self.base);
                let postprocess = move || preprocess::postprocess_rows(&base, &handle, rows, &inputs, &options);
                spawn_blocking(postprocess).await.context("postprocessing predictions")??
            }
        };
        Ok(PredictResponse { adapter, predictions, truncated, token_counts })
    }

    fn estimate_tokens(&self, input: &Input) -> usize {
        (input.text_bytes() / BYTES_PER_TOKEN).min(self.base.info().max_tokens)
    }

    /// Returns the adapter version and one stream per sequence.
    async fn start_generation(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        mut request: GenerationRequest,
    ) -> Result<(Option<Arc<ResolvedAdapter>>, Vec<GenerationStream>)> {
        let Some(engine) = self.generation_engine.clone() else {
            let detail = "this base model does not generate text: it is an encoder, or its checkpoint has no language model head";
            return Err(Error::invalid("no_generation", detail));
        };
        request.validate(&self.base, self.max_inputs_per_request)?;
        let owner = Owner::from(owner);
        let permit = engine.admit(&owner, request.sequence_count())?;
        let (adapter, handle) = self.resolve_adapter(&owner, reference).await?;
        GenerationRequest::check_adapter(&handle)?;
        let constraint = match request.constraint.take() {
            None => None,
            Some(spec) => {
                let compiled = engine.compile_constraint(&owner, spec).await;
                Some(compiled.map_err(|error| error.about_field(request.fields.format))?)
            }
        };
        let text_bytes = request.text_bytes();
        let submit = move |is_cancelled: &AtomicBool| {
            engine.submit(permit, &handle, &request, constraint.as_ref(), is_cancelled)
        };
        Ok((adapter, self.tokenize_lanes.run(&owner, text_bytes, submit).await?))
    }

    /// Returns the adapter that the reference names at this moment, loaded; the base model for `None`.
    async fn resolve_adapter(
        &self,
        owner: &str,
        reference: Option<&Reference>,
    ) -> Result<(Option<Arc<ResolvedAdapter>>, AdapterHandle)> {
        let Some(reference) = reference else { return Ok((None, AdapterHandle::base())) };
        loop {
            let adapter = self.resolver.resolve(owner, reference).await?;
            let version = adapter.version.clone();
            telemetry::set_attribute(&Span::current(), "espalier.adapter", version.as_str());
            let load = Arc::clone(&self.loader).load(version.clone()).instrument(tracing::debug_span!("load adapter"));
            let error = match self.cache.get_or_load(&version, load).await {
                Ok(loaded) => {
                    let label = adapter.name.clone().unwrap_or_else(|| adapter.id.to_string());
                    let handle = AdapterHandle::new(version, loaded).with_label(label);
                    return Ok((Some(adapter), handle));
                }
                Err(error) => error,
            };
            match self.store.resolve_adapter(owner, &Reference::Id(adapter.id)).await {
                Ok(_) => return Err(error),
                // The adapter was deleted between lookup and load; a name may refer to another version now.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lock_worker_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.worker_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the worker threads with the last handle: they hold a reference to the queue only.
impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

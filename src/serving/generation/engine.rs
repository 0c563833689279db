//! The generation loop: one scheduler thread forms the batches of each step, and a worker pool computes them.

use super::batch_planner::{self, Parallelism, SequenceDemand};
use super::constraint::{ConstraintFactory, TokenConstraint};
use super::constraint_cache::ConstraintCache;
use super::constraint_spec::ConstraintSpec;
use super::metrics::GenerationMetrics;
use super::model_runner::{self, ScheduledBatch};
use super::output::GenerationStream;
use super::request::{GenerationRequest, SequenceContext};
use super::reservation::Reservation;
use super::scheduler::{InStep, Scheduler};
use super::sequence::SequenceState;
use super::settings::{Settings, Stats};
use super::token_encoding::TokenByteEncoding;
use crate::serving::adapter_activity::AdapterActivity;
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::{RETRY_AFTER, shutting_down};
use crate::serving::pinned_lru::Pinned;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::kv_cache::{BLOCK_SIZE, KvCacheShape};
use espalier_tensor::worker_pool::{self, Priority, WorkerPool};
use espalier_tensor::{ActivationQuantization, Backend};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Accepts generation requests. Dropping it closes the queue.
pub struct GenerationEngine {
    inner: Arc<Inner>,
    constraints: ConstraintCache,
    token_encoding: TokenByteEncoding,
    scheduler_thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    base: Arc<BaseModel>,
    backend: Arc<dyn Backend>,
    parallelism: Parallelism,
    kv_cache_shape: KvCacheShape,
    settings: Settings,
    scheduler: Mutex<Scheduler>,
    scheduler_changed: Condvar,
}

/// Admission of a request: the right to queue `sequence_count` sequences. Dropping it gives the capacity back.
pub struct AdmissionPermit {
    inner: Arc<Inner>,
    sequence_count: usize,
}

impl GenerationEngine {
    /// Starts the threads; `None` if the base model is not a causal language model.
    pub fn start(base: &Arc<BaseModel>, settings: Settings) -> Result<Option<Self>> {
        let Some(kv_cache_shape) = base.kv_cache_shape().filter(|_| base.info().is_causal_lm) else { return Ok(None) };
        let backend = select_backend(base, settings.activation_quantization)?;
        let parallelism = if base.is_quantized() { Parallelism::IntraOp } else { Parallelism::InterOp };
        let scheduler = Mutex::new(Scheduler::new(&settings, kv_cache_shape.block_bytes()));
        let worker_pool = WorkerPool::new("generate", Priority::Normal, settings.threads)?;
        let inner = Arc::new(Inner {
            base: Arc::clone(base),
            backend,
            parallelism,
            kv_cache_shape,
            settings,
            scheduler,
            scheduler_changed: Condvar::new(),
        });
        let scheduler = Arc::clone(&inner);
        let scheduler_thread = worker_pool::spawn_compute_thread("generate", Priority::Normal, move || {
            scheduler.scheduler_loop(&worker_pool);
        })?;
        let token_encoding = TokenByteEncoding::detect(|token| base.tokenizer().token_to_id(token).is_some());
        let factory = ConstraintFactory::new(Arc::clone(base), token_encoding);
        let Settings { constraint_bytes, threads, .. } = inner.settings;
        Ok(Some(Self {
            constraints: ConstraintCache::new(factory, constraint_bytes, threads),
            inner,
            token_encoding,
            scheduler_thread: Mutex::new(Some(scheduler_thread)),
        }))
    }

    /// Admits a request before its prompts are tokenized. A request larger than the whole queue is admitted when no
    /// other sequence waits.
    ///
    /// # Errors
    /// `Busy`: `generation_queue_full`, or `shutting_down`.
    pub fn admit(&self, sequence_count: usize) -> Result<AdmissionPermit> {
        let mut scheduler = self.inner.lock();
        if scheduler.is_closed {
            return Err(shutting_down());
        }
        let waiting = scheduler.waiting_sequences();
        if waiting > 0 && waiting + sequence_count > self.inner.settings.max_queued_sequences {
            let detail = format!("{waiting} sequences are waiting to be generated: try again in a moment");
            return Err(Error::busy("generation_queue_full", detail, RETRY_AFTER));
        }
        scheduler.admitted += sequence_count;
        Ok(AdmissionPermit { inner: Arc::clone(&self.inner), sequence_count })
    }

    /// Compiles the constraint of an admitted request.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`); `Busy` (`constraint_memory_full`).
    pub async fn compile_constraint(&self, spec: ConstraintSpec) -> Result<Pinned<TokenConstraint>> {
        self.constraints.compile(spec).await
    }

    /// Tokenizes the prompts and queues the sequences of a request: all of them, or none. Blocks while it computes.
    ///
    /// # Errors
    /// `Invalid` for a prompt that is refused, or a sequence that exceeds the context length or the KV cache; `Busy`
    /// (`shutting_down`).
    pub fn submit(
        &self,
        permit: AdmissionPermit,
        adapter: &AdapterHandle,
        request: &GenerationRequest,
        constraint: Option<&Pinned<TokenConstraint>>,
        is_cancelled: &AtomicBool,
    ) -> Result<Vec<GenerationStream>> {
        let inner = &self.inner;
        let context = SequenceContext {
            base: &inner.base,
            kv_cache_shape: inner.kv_cache_shape,
            default_max_tokens: inner.settings.default_max_tokens,
            max_sequence_length: inner.lock().max_blocks() * BLOCK_SIZE,
            max_text_bytes: inner.settings.max_text_bytes,
            is_cancelled,
        };
        let (sequences, streams): (Vec<_>, Vec<_>) =
            request.to_sequences(&context, adapter, constraint)?.into_iter().unzip();
        let mut scheduler = inner.lock();
        if scheduler.is_closed {
            return Err(shutting_down());
        }
        let is_too_long = |sequence: &&SequenceState| sequence.max_blocks() > scheduler.max_blocks();
        if let Some(sequence) = sequences.iter().find(is_too_long) {
            let max_tokens = sequence.max_blocks() * BLOCK_SIZE;
            let detail = format!(
                "prompt and answer may take {max_tokens} tokens, more than this server has memory for: lower max_tokens, \
                 or start the server with a larger --kv-cache-memory"
            );
            return Err(Error::invalid("too_long", detail));
        }
        sequences.into_iter().for_each(|sequence| scheduler.push(sequence));
        drop(scheduler);
        drop(permit);
        inner.scheduler_changed.notify_all();
        Ok(streams)
    }

    /// Bytes of a token's text, which may be only a part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.token_encoding.decode_token(&self.inner.base.tokenizer().id_to_token(id).unwrap_or_default())
    }

    pub fn stats(&self) -> Stats {
        self.inner.lock().stats()
    }

    pub fn metrics(&self) -> GenerationMetrics {
        self.inner.lock().metrics.clone()
    }

    /// Adds the adapters of running and queued sequences.
    pub fn add_adapters_to(&self, activity: &mut AdapterActivity) {
        let scheduler = self.inner.lock();
        activity.running.extend(AdapterActivity::labels(scheduler.running_adapters()));
        activity.waiting.extend(AdapterActivity::labels(scheduler.queued_adapters()));
    }

    /// Accepts no more requests; queued and running sequences are finished.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.inner.scheduler_changed.notify_all();
    }

    /// Accepts no more requests and ends all sequences: their streams fail with `Busy` (`shutting_down`) at once, and the
    /// scheduler thread ends after its step.
    pub fn abort(&self) {
        self.inner.lock().abort();
        self.inner.scheduler_changed.notify_all();
    }

    /// Waits for the scheduler thread to end, after [`Self::close`] or [`Self::abort`].
    pub fn join(&self) {
        let scheduler_thread = self.scheduler_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if scheduler_thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scheduler thread had panicked");
        }
    }
}

impl Drop for GenerationEngine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.inner.lock().admitted -= self.sequence_count;
    }
}

fn select_backend(base: &BaseModel, activations: ActivationQuantization) -> Result<Arc<dyn Backend>> {
    let int8_backend = match activations {
        ActivationQuantization::F32 => return Ok(Arc::clone(base.backend())),
        ActivationQuantization::Int8 => base.backend().with_int8_activations(),
    };
    int8_backend.ok_or_else(|| {
        let detail = "on a GPU activations are not rounded: leave --activation-quantization int8 out";
        Error::invalid("conflicting_settings", detail)
    })
}

/// A batch after its step, and the number of tokens it generated.
type FinishedBatch = (ScheduledBatch, usize);

/// Computes the step of one batch. A panic removes the sequences of this batch, which closes their streams.
fn run_batch(base: &BaseModel, backend: &Arc<dyn Backend>, mut batch: ScheduledBatch) -> FinishedBatch {
    let run_step = || model_runner::run_step(base, backend, &mut batch);
    let generated_tokens = catch_unwind(AssertUnwindSafe(run_step)).unwrap_or_else(|payload| {
        let error = Error::from_panic("a step of generation", payload.as_ref());
        tracing::error!(error = format!("{error:#}"), "generation step panicked");
        batch.sequences.clear();
        0
    });
    (batch, generated_tokens)
}

/// Closes the streams of all sequences when the scheduler thread ends, also by a panic.
struct ClearOnDrop<'a>(&'a Inner);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        let mut scheduler = self.0.lock();
        scheduler.is_closed = true;
        scheduler.clear();
    }
}

impl Inner {
    fn scheduler_loop(self: Arc<Self>, worker_pool: &WorkerPool) {
        let (base, backend) = (Arc::clone(&self.base), Arc::clone(&self.backend));
        let compute = Arc::new(move |batch: ScheduledBatch| -> Result<_> { Ok(run_batch(&base, &backend, batch)) });
        let _clear_on_drop = ClearOnDrop(&self);
        while let Some(mut batches) = self.next_step() {
            let started_at = Instant::now();
            let sequences = batches.iter().flat_map(|batch| &batch.sequences);
            let reserved = sequences.map(SequenceState::reservation).sum();
            let single_batch = if batches.len() == 1 { batches.pop() } else { None };
            let finished = match single_batch {
                // On this thread, which owns the intra-op thread pool.
                Some(batch) => {
                    self.backend.with_intra_op_threads(batch.threads, || compute(batch)).map(|finished| vec![finished])
                }
                None => worker_pool.map(batches, &compute),
            };
            let finished = finished.unwrap_or_else(|error| {
                tracing::error!(error = format!("{error:#}"), "generation step was lost");
                Vec::new()
            });
            self.finish_step(finished, reserved);
            self.yield_to_training(started_at.elapsed());
        }
    }

    /// Pauses after `busy` time of computation, so that training jobs get their share of CPU time.
    fn yield_to_training(&self, busy: Duration) {
        let training_share = self.settings.training_cpu_share;
        if training_share > 0.0 && worker_pool::background_work_pending() {
            std::thread::park_timeout(busy.mul_f64(training_share / (1.0 - training_share)));
        }
    }

    /// Waits for sequences and returns the batches of the next step, at most one per thread; `None` once the engine is
    /// aborted, or closed and without sequences.
    fn next_step(&self) -> Option<Vec<ScheduledBatch>> {
        let mut scheduler = self.lock();
        loop {
            if scheduler.is_aborted {
                return None;
            }
            scheduler.start_queued();
            if !scheduler.running.is_empty() {
                let running = std::mem::take(&mut scheduler.running);
                scheduler.counters.steps += 1;
                let (batches, unscheduled) = self.plan_batches(running);
                scheduler.running = unscheduled;
                let in_step = batches.iter().flat_map(|batch| &batch.sequences);
                scheduler.in_step = in_step.map(InStep::new).collect();
                return Some(batches);
            }
            if scheduler.is_closed && scheduler.is_empty() {
                return None;
            }
            scheduler = self.scheduler_changed.wait(scheduler).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Splits the running sequences into the batches of this step and those that wait for the next.
    fn plan_batches(&self, running: Vec<SequenceState>) -> (Vec<ScheduledBatch>, Vec<SequenceState>) {
        let Settings { threads, prefill_chunk_tokens, .. } = self.settings;
        let demands: Vec<SequenceDemand> = running.iter().map(SequenceState::demand).collect();
        let chunk_lengths = batch_planner::prefill_chunks(&demands, threads, prefill_chunk_tokens);
        let partitions = batch_planner::partition_batch(&demands, &chunk_lengths, threads, self.parallelism);
        let threads = if partitions.len() == 1 { threads } else { 1 };
        let mut running: Vec<Option<SequenceState>> = running.into_iter().map(Some).collect();
        let scheduled_batch = |indices: Vec<usize>| ScheduledBatch {
            sequences: indices.iter().filter_map(|index| running[*index].take()).collect(),
            chunk_lengths: indices.iter().map(|index| chunk_lengths[*index]).collect(),
            threads,
        };
        let batches = partitions.into_iter().map(scheduled_batch).collect();
        (batches, running.into_iter().flatten().collect())
    }

    /// Returns unfinished sequences to the scheduler and releases the memory of the others. `reserved` is the reservation of
    /// all sequences of the step before it.
    fn finish_step(&self, finished: Vec<FinishedBatch>, reserved: Reservation) {
        let mut scheduler = self.lock();
        scheduler.counters.generated_tokens += finished.iter().map(|(_, tokens)| *tokens as u64).sum::<u64>();
        scheduler.return_from_step(finished.into_iter().flat_map(|(batch, _)| batch.sequences), reserved);
    }

    fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

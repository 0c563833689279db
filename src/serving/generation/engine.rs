//! The loop: who joins, what is computed, who leaves. One thread leads, and a crew computes the parts of a step.

use super::batch_planner::{self, Parallelism, SequenceDemand};
use super::model_runner::{self, ScheduledBatch, StepOutput};
use super::request::{GenerationStream, SequenceRequest};
use super::scheduler::Scheduler;
use super::sequence::{SequenceState, check_context_length};
use super::{Settings, Stats};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::Backend;
use espalier_tensor::cpu::with_intra_op_threads;
use espalier_tensor::kv_cache::{BLOCK_SIZE, KvCacheShape};
use espalier_tensor::weight_ops::ActivationQuantization;
use espalier_tensor::worker_pool::{self, Priority, WorkerPool};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;

/// What a client is told to wait before it asks again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The handle that requests use.
pub struct GenerationEngine {
    inner: Arc<Inner>,
    scheduler_thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    base: Arc<BaseModel>,
    kernels: Arc<dyn Backend>,
    parallelism: Parallelism,
    kv_cache_shape: KvCacheShape,
    settings: Settings,
    scheduler: Mutex<Scheduler>,
    scheduler_changed: Condvar,
}

impl GenerationEngine {
    /// Starts the threads; `None` where the base does not say what comes next.
    pub fn start(base: &Arc<BaseModel>, settings: Settings) -> Result<Option<Self>> {
        let Some(kv_cache_shape) = base.kv_cache_shape().filter(|_| base.info().is_causal_lm) else { return Ok(None) };
        let kernels = select_kernels(base, settings.activation_quantization)?;
        let parallelism = if base.is_quantized() { Parallelism::IntraOp } else { Parallelism::InterOp };
        let scheduler = Mutex::new(Scheduler::new(&settings, kv_cache_shape.block_bytes()));
        let worker_pool = WorkerPool::new("generate", Priority::Normal, settings.threads)?;
        let inner = Arc::new(Inner {
            base: Arc::clone(base),
            kernels,
            parallelism,
            kv_cache_shape,
            settings,
            scheduler,
            scheduler_changed: Condvar::new(),
        });
        let engine = Arc::clone(&inner);
        let scheduler_thread = worker_pool::spawn_compute_thread("generate", Priority::Normal, move || {
            engine.scheduler_loop(&worker_pool);
        })?;
        Ok(Some(Self { inner, scheduler_thread: Mutex::new(Some(scheduler_thread)) }))
    }

    /// Queues sequences that belong to one request: all of them, or none.
    ///
    /// # Errors
    /// `Invalid` where one is too long, `Busy` where too many wait or the server goes down.
    pub fn submit(&self, requests: Vec<SequenceRequest>) -> Result<Vec<GenerationStream>> {
        let inner = &self.inner;
        for request in &requests {
            check_context_length(
                &inner.base,
                &request.adapter,
                &request.prompt_ids,
                request.stop_conditions.max_tokens as usize,
            )?;
        }
        let new_sequence = |request: SequenceRequest| {
            let (sender, events) = unbounded_channel();
            let stream = GenerationStream { events, prompt_tokens: request.prompt_ids.len(), finish_reason: None };
            (SequenceState::new(&inner.base, inner.kv_cache_shape, request, sender), stream)
        };
        let (sequences, streams): (Vec<SequenceState>, Vec<GenerationStream>) =
            requests.into_iter().map(new_sequence).unzip();
        let mut scheduler = inner.lock();
        if scheduler.is_closed {
            let detail = "the server is going down: send the request again in a moment";
            return Err(Error::busy("shutting_down", detail, RETRY_AFTER));
        }
        if let Some(sequence) = sequences.iter().find(|sequence| sequence.reserved_blocks > scheduler.max_blocks()) {
            let max_tokens = sequence.reserved_blocks * BLOCK_SIZE;
            let detail = format!(
                "prompt and answer may take {max_tokens} tokens, more than this server has memory for: lower max_tokens, \
                 or start the server with a larger --kv-cache-memory"
            );
            return Err(Error::invalid("too_long", detail));
        }
        if !scheduler.queued.is_empty()
            && scheduler.queued.len() + sequences.len() > inner.settings.max_queued_sequences
        {
            let detail =
                format!("{} sequences are waiting to be generated: try again in a moment", scheduler.queued.len());
            return Err(Error::busy("generation_queue_full", detail, RETRY_AFTER));
        }
        for mut sequence in sequences {
            scheduler.next_arrival += 1;
            sequence.arrival_order = scheduler.next_arrival;
            scheduler.queued.push_back(sequence);
        }
        inner.scheduler_changed.notify_all();
        Ok(streams)
    }

    /// Rows that a sequence may have at most.
    pub fn max_sequence_length(&self) -> usize {
        self.inner.lock().max_blocks() * BLOCK_SIZE
    }

    pub fn stats(&self) -> Stats {
        self.inner.lock().stats()
    }

    /// Takes no more requests; those that wait or run are finished.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.inner.scheduler_changed.notify_all();
    }

    /// Waits for the end of the threads, after [`Self::close`].
    pub fn join(&self) {
        let scheduler_thread = self.scheduler_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if scheduler_thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that generates had panicked");
        }
    }
}

impl Drop for GenerationEngine {
    fn drop(&mut self) {
        self.close();
    }
}

/// What multiplies.
fn select_kernels(base: &BaseModel, activations: ActivationQuantization) -> Result<Arc<dyn Backend>> {
    let int8_kernels = match activations {
        ActivationQuantization::F32 => return Ok(Arc::clone(base.backend())),
        ActivationQuantization::Int8 => base.backend().with_int8_activations(),
    };
    int8_kernels.ok_or_else(|| {
        let detail = "on a GPU activations are not rounded: leave --activation-quantization int8 out";
        Error::invalid("conflicting_settings", detail)
    })
}

/// A part's step; a panic is its own sequences' affair alone.
fn run_batch(base: &BaseModel, kernels: &Arc<dyn Backend>, batch: ScheduledBatch) -> StepOutput {
    catch_unwind(AssertUnwindSafe(|| model_runner::run_step(base, kernels, batch))).unwrap_or_else(|payload| {
        let error = Error::from_panic("a step of generation", payload.as_ref());
        tracing::error!(error = format!("{error:#}"), "a step of generation was lost");
        StepOutput::default()
    })
}

/// Whoever waits learns that nothing will come, however the leader ends.
struct FailPendingOnDrop<'a>(&'a Inner);

impl Drop for FailPendingOnDrop<'_> {
    fn drop(&mut self) {
        let mut scheduler = self.0.lock();
        scheduler.is_closed = true;
        scheduler.queued.clear();
        scheduler.running.clear();
    }
}

impl Inner {
    fn scheduler_loop(self: Arc<Self>, worker_pool: &WorkerPool) {
        let (base, kernels) = (Arc::clone(&self.base), Arc::clone(&self.kernels));
        let compute = Arc::new(move |batch: ScheduledBatch| -> Result<_> { Ok(run_batch(&base, &kernels, batch)) });
        let _fail_pending = FailPendingOnDrop(&self);
        while let Some(mut batches) = self.next_step() {
            let started_at = Instant::now();
            let reserved_blocks: usize =
                batches.iter().flat_map(|batch| &batch.sequences).map(|sequence| sequence.reserved_blocks).sum();
            let single_batch = if batches.len() == 1 { batches.pop() } else { None };
            let done = match single_batch {
                // Always on this thread, which has helpers.
                Some(batch) => with_intra_op_threads(batch.threads, || compute(batch)).map(|output| vec![output]),
                None => worker_pool.map(batches, &compute),
            };
            let outputs = done.unwrap_or_else(|error| {
                tracing::error!(error = format!("{error:#}"), "a step of generation was lost");
                Vec::new()
            });
            self.finish_step(outputs, reserved_blocks);
            self.yield_to_training(started_at.elapsed());
        }
    }

    /// Leaves the cores alone for a moment after so much work, where a job would use them.
    fn yield_to_training(&self, busy: Duration) {
        let training_share = self.settings.training_cpu_share;
        if training_share > 0.0 && worker_pool::background_work_pending() {
            std::thread::park_timeout(busy.mul_f64(training_share / (1.0 - training_share)));
        }
    }

    /// Waits for sequences and takes all that run, in at most as many parts as there are threads; `None` once nothing is left and
    /// the line is closed.
    fn next_step(&self) -> Option<Vec<ScheduledBatch>> {
        let mut scheduler = self.lock();
        loop {
            scheduler.admit();
            if !scheduler.running.is_empty() {
                let running = std::mem::take(&mut scheduler.running);
                scheduler.counters.steps += 1;
                let (batches, unscheduled) = self.plan_batches(running);
                // Their turn comes with the next step.
                scheduler.running = unscheduled;
                scheduler.in_step = batches.iter().map(|batch| batch.sequences.len()).sum();
                return Some(batches);
            }
            if scheduler.is_closed && scheduler.queued.is_empty() {
                return None;
            }
            scheduler = self.scheduler_changed.wait(scheduler).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is computed now, and what is not.
    fn plan_batches(&self, running: Vec<SequenceState>) -> (Vec<ScheduledBatch>, Vec<SequenceState>) {
        let Settings { threads, prefill_chunk_tokens, .. } = self.settings;
        let demands: Vec<SequenceDemand> = running.iter().map(SequenceState::demand).collect();
        let chunk_lengths = batch_planner::prefill_chunks(&demands, threads, prefill_chunk_tokens);
        let partitions = batch_planner::partition_batch(&demands, &chunk_lengths, threads, self.parallelism);
        let threads = if partitions.len() == 1 { threads } else { 1 };
        let mut running: Vec<Option<SequenceState>> = running.into_iter().map(Some).collect();
        let scheduled_batch = |indices: Vec<usize>| {
            let sequences = indices.iter().filter_map(|index| running[*index].take()).collect();
            ScheduledBatch {
                sequences,
                max_tokens_per_sequence: indices.iter().map(|index| chunk_lengths[*index]).collect(),
                threads,
            }
        };
        let batches = partitions.into_iter().map(scheduled_batch).collect();
        (batches, running.into_iter().flatten().collect())
    }

    fn finish_step(&self, outputs: Vec<StepOutput>, reserved_blocks: usize) {
        let mut scheduler = self.lock();
        let still_reserved: usize =
            outputs.iter().flat_map(|done| &done.running).map(|sequence| sequence.reserved_blocks).sum();
        scheduler.release_blocks(reserved_blocks - still_reserved);
        scheduler.in_step = 0;
        for output in outputs {
            scheduler.counters.generated_tokens += output.generated_tokens as u64;
            for mut sequence in output.finished {
                scheduler.cache_prefix(&mut sequence);
            }
            for mut sequence in output.running {
                scheduler.cache_prefix(&mut sequence);
                let position = scheduler.running.partition_point(|other| other.version <= sequence.version);
                scheduler.running.insert(position, sequence);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

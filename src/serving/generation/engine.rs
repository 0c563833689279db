//! Entry point of generation: admits requests, and queues their sequences for the threads that compute them.

use super::batch_planner::Parallelism;
use super::constraint::{ConstraintFactory, TokenConstraint};
use super::constraint_cache::ConstraintCache;
use super::constraint_spec::ConstraintSpec;
use super::metrics::GenerationMetrics;
use super::output::GenerationStream;
use super::request::{GenerationRequest, SequenceContext};
use super::scheduler::Scheduler;
use super::sequence::SequenceState;
use super::sequence_lane::Lane;
use super::settings::{Settings, Stats};
use super::step_loop::StepLoop;
use super::token_encoding::TokenByteEncoding;
use crate::serving::adapter_activity::AdapterActivity;
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::shutting_down;
use crate::serving::owners::Owner;
use crate::serving::pinned_lru::Pinned;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::Backend;
use espalier_tensor::kv_cache::{BLOCK_SIZE, KvCacheShape};
use espalier_tensor::worker_pool::{self, Priority, WorkerPool};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Accepts generation requests. Dropping it closes the queue.
pub struct GenerationEngine {
    base: Arc<BaseModel>,
    kv_cache_shape: KvCacheShape,
    step_loop: Arc<StepLoop>,
    constraints: ConstraintCache,
    token_encoding: TokenByteEncoding,
    /// One for each lane.
    scheduler_threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Admission of a request: the right to queue `sequence_count` sequences. Dropping it gives the capacity back.
pub struct AdmissionPermit {
    step_loop: Arc<StepLoop>,
    owner: Owner,
    sequence_count: usize,
}

impl GenerationEngine {
    /// Starts the threads with the base's backend or its variant with int8 activations; `None` if the base model is not a causal language model.
    pub fn start(base: &Arc<BaseModel>, backend: Arc<dyn Backend>, settings: Settings) -> Result<Option<Self>> {
        let Some(kv_cache_shape) = base.kv_cache_shape().filter(|_| base.info().is_causal_lm) else { return Ok(None) };
        let is_quantized = base.is_quantized() || !Arc::ptr_eq(&backend, base.backend());
        let parallelism = if is_quantized { Parallelism::IntraOp } else { Parallelism::InterOp };
        let scheduler = Scheduler::new(&settings, kv_cache_shape.block_bytes());
        let (constraint_bytes, threads) = (settings.constraint_bytes, settings.threads);
        let step_loop = Arc::new(StepLoop::new(base, backend, parallelism, settings, scheduler));
        let mut scheduler_threads = Vec::new();
        for (lane, name, priority) in
            [(Lane::Normal, "generate", Priority::Normal), (Lane::Heavy, "generate-heavy", Priority::Low)]
        {
            let (worker_pool, step_loop) = (WorkerPool::new(name, priority, threads)?, Arc::clone(&step_loop));
            let run = move || step_loop.run(lane, &worker_pool);
            scheduler_threads.push(worker_pool::spawn_compute_thread(name, priority, run)?);
        }
        let token_encoding = TokenByteEncoding::detect(|token| base.tokenizer().token_to_id(token).is_some());
        let factory = ConstraintFactory::new(Arc::clone(base), token_encoding);
        Ok(Some(Self {
            base: Arc::clone(base),
            kv_cache_shape,
            constraints: ConstraintCache::new(factory, constraint_bytes, threads),
            step_loop,
            token_encoding,
            scheduler_threads: Mutex::new(scheduler_threads),
        }))
    }

    /// Admits an owner's request before its prompts are tokenized.
    ///
    /// # Errors
    /// `Busy`: `generation_queue_full`, or `shutting_down`.
    pub fn admit(&self, owner: &Owner, sequence_count: usize) -> Result<AdmissionPermit> {
        self.step_loop.lock().admit(owner, sequence_count)?;
        Ok(AdmissionPermit { step_loop: Arc::clone(&self.step_loop), owner: Owner::clone(owner), sequence_count })
    }

    /// Compiles the constraint of an owner's admitted request.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`); `Busy` (`constraint_memory_full`).
    pub async fn compile_constraint(&self, owner: &Owner, spec: ConstraintSpec) -> Result<Pinned<TokenConstraint>> {
        self.constraints.compile(owner, spec).await
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
        let settings = &self.step_loop.settings;
        let context = SequenceContext {
            base: &self.base,
            kv_cache_shape: self.kv_cache_shape,
            default_max_tokens: settings.default_max_tokens,
            max_sequence_length: self.step_loop.lock().max_blocks() * BLOCK_SIZE,
            max_text_bytes: settings.max_text_bytes,
            is_cancelled,
        };
        let (sequences, streams): (Vec<_>, Vec<_>) =
            request.to_sequences(&context, adapter, constraint)?.into_iter().unzip();
        let mut scheduler = self.step_loop.lock();
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
        sequences.into_iter().for_each(|sequence| scheduler.push(&permit.owner, sequence));
        drop(scheduler);
        drop(permit);
        self.step_loop.notify();
        Ok(streams)
    }

    /// Bytes of a token's text, which may be only a part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.token_encoding.decode_token(&self.base.tokenizer().id_to_token(id).unwrap_or_default())
    }

    pub fn stats(&self) -> Stats {
        self.step_loop.lock().stats()
    }

    pub fn metrics(&self) -> GenerationMetrics {
        self.step_loop.lock().metrics.clone()
    }

    /// Adds the adapters of running and queued sequences.
    pub fn add_adapters_to(&self, activity: &mut AdapterActivity) {
        let scheduler = self.step_loop.lock();
        activity.running.extend(AdapterActivity::labels(scheduler.running_adapters()));
        activity.waiting.extend(AdapterActivity::labels(scheduler.queued_adapters()));
    }

    /// Accepts no more requests; queued and running sequences are finished.
    pub fn close(&self) {
        self.step_loop.lock().is_closed = true;
        self.step_loop.notify();
    }

    /// Accepts no more requests and ends all sequences: their streams fail with `Busy` (`shutting_down`) at once, and the
    /// scheduler threads end after their steps.
    pub fn abort(&self) {
        self.step_loop.lock().abort();
        self.step_loop.notify();
    }

    /// Waits for the scheduler threads to end, after [`Self::close`] or [`Self::abort`].
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.scheduler_threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a scheduler thread had panicked");
            }
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
        self.step_loop.lock().end_admission(&self.owner, self.sequence_count);
    }
}

//! The generation loop: a scheduler thread of each lane forms the batches of its steps, and a worker pool computes them.

use super::batch_planner::{self, Parallelism, SequenceDemand};
use super::model_runner::{self, ScheduledBatch};
use super::reservation::Reservation;
use super::scheduler::Scheduler;
use super::sequence::{SampledTokens, SequenceState};
use super::sequence_lane::Lane;
use super::settings::Settings;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::Backend;
use espalier_tensor::worker_pool::{self, WorkerPool};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A thread without running sequences looks at the queued ones this often.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What the scheduler threads share.
pub struct StepLoop {
    base: Arc<BaseModel>,
    backend: Arc<dyn Backend>,
    parallelism: Parallelism,
    pub settings: Settings,
    scheduler: Mutex<Scheduler>,
    changed: Condvar,
}

/// A batch after its step, and its tokens.
type FinishedBatch = (ScheduledBatch, SampledTokens);

/// Computes the step of one batch. A panic removes the sequences of this batch, which closes their streams.
fn run_batch(base: &BaseModel, backend: &Arc<dyn Backend>, mut batch: ScheduledBatch) -> FinishedBatch {
    let run_step = || model_runner::run_step(base, backend, &mut batch);
    let sampled = catch_unwind(AssertUnwindSafe(run_step)).unwrap_or_else(|payload| {
        let error = Error::from_panic("a step of generation", payload.as_ref());
        tracing::error!(error = format!("{error:#}"), "generation step panicked");
        batch.sequences.clear();
        SampledTokens::default()
    });
    (batch, sampled)
}

/// Closes the streams of all sequences when a scheduler thread ends, also by a panic.
struct ClearOnDrop<'a>(&'a StepLoop);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        let mut scheduler = self.0.lock();
        scheduler.is_closed = true;
        scheduler.clear();
        drop(scheduler);
        self.0.notify();
    }
}

impl StepLoop {
    pub fn new(
        base: &Arc<BaseModel>,
        backend: Arc<dyn Backend>,
        parallelism: Parallelism,
        settings: Settings,
        scheduler: Scheduler,
    ) -> Self {
        let (base, scheduler) = (Arc::clone(base), Mutex::new(scheduler));
        Self { base, backend, parallelism, settings, scheduler, changed: Condvar::new() }
    }

    /// Computes the sequences of a lane until the scheduler is aborted, or closed and empty.
    pub fn run(&self, lane: Lane, worker_pool: &WorkerPool) {
        let (base, backend) = (Arc::clone(&self.base), Arc::clone(&self.backend));
        let compute = Arc::new(move |batch: ScheduledBatch| -> Result<_> { Ok(run_batch(&base, &backend, batch)) });
        let _clear_on_drop = ClearOnDrop(self);
        while let Some(mut batches) = self.next_step(lane) {
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
            self.finish_step(lane, finished, reserved);
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

    /// Waits for sequences of a lane and returns the batches of its next step, at most one per thread; `None` once the scheduler is
    /// aborted, or closed and without sequences.
    fn next_step(&self, lane: Lane) -> Option<Vec<ScheduledBatch>> {
        let mut scheduler = self.lock();
        loop {
            if scheduler.is_aborted {
                return None;
            }
            scheduler.start_queued(lane);
            if scheduler.lane(lane.other()).has_work() {
                self.notify();
            }
            if scheduler.lane(lane).running.is_empty() {
                if scheduler.is_closed && scheduler.is_empty() {
                    return None;
                }
                scheduler = self.wait(scheduler);
                continue;
            }
            let running = scheduler.take_running(lane);
            let (batches, unscheduled) = self.plan_batches(running);
            scheduler.start_step(lane, batches.iter().flat_map(|batch| &batch.sequences), unscheduled);
            return Some(batches);
        }
    }

    /// Waits for a change of the scheduler. What belongs to which lane changes with time too, so that queued sequences are looked at
    /// again and again.
    fn wait<'a>(&self, scheduler: MutexGuard<'a, Scheduler>) -> MutexGuard<'a, Scheduler> {
        match scheduler.has_queued() {
            false => self.changed.wait(scheduler).unwrap_or_else(PoisonError::into_inner),
            true => self.changed.wait_timeout(scheduler, RECHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Splits the running sequences into the batches of this step and those that wait for the next.
    fn plan_batches(&self, mut running: Vec<SequenceState>) -> (Vec<ScheduledBatch>, Vec<SequenceState>) {
        let Settings { threads, prefill_chunk_tokens, prompt_lookup_tokens, .. } = self.settings;
        let draft_limit = batch_planner::draft_limit(running.len(), prompt_lookup_tokens);
        running.iter_mut().for_each(|sequence| sequence.draft_tokens(draft_limit));
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
    fn finish_step(&self, lane: Lane, finished: Vec<FinishedBatch>, reserved: Reservation) {
        let mut scheduler = self.lock();
        let mut step = SampledTokens::default();
        finished.iter().for_each(|(_, sampled)| step.add(*sampled));
        scheduler.counters.generated_tokens += step.generated as u64;
        scheduler.counters.draft_tokens += step.drafted as u64;
        scheduler.counters.accepted_draft_tokens += step.accepted as u64;
        scheduler.return_from_step(lane, finished.into_iter().flat_map(|(batch, _)| batch.sequences), reserved);
    }

    /// Wakes the threads that wait for sequences.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    pub fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

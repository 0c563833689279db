//! Bounded queue between predict requests and the worker threads.
//!
//! Short and long requests have a lane each with workers of its own; those of the long lane have a low priority, so that long requests
//! use what short ones leave. While short requests wait in the queue nevertheless (congestion), long ones are computed in small batches
//! and seldom: a scheduling priority alone does not keep them from delaying the threads that receive and answer short requests.
//!
//! A request is counted from its admission on, before its adapter is loaded and its texts are tokenized, so
//! that the limits bound all the work that a burst of requests can pile up.

#[cfg(test)]
mod tests;

pub use super::request_queue::{EntrySpans, OutputRow, QueueEntry};

use super::request_queue::{RequestQueue, token_count};
use super::throughput::Throughput;
use crate::serving::adapter_activity::AdapterActivity;
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::RETRY_AFTER;
use espalier_core::error::{Error, Result};
use espalier_core::model::Tokens;
use futures_util::future::try_join_all;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Requests with more tokens are long.
const MAX_SHORT_REQUEST_TOKENS: usize = 512;

/// The lane of short requests is congested when one waits for longer than this, and for some time after it.
const CONGESTION_WAIT: Duration = Duration::from_millis(10);
const CONGESTION_TIME: Duration = Duration::from_millis(200);

/// Maximum number of tokens in a batch of long requests during congestion.
const CONGESTION_BATCH_TOKENS: usize = 512;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_queued_inputs: usize,
    pub max_queue_wait: Duration,
    pub max_batch_tokens: usize,
    pub max_batch_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Short,
    Long,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Short, Self::Long];

    fn of(tokens: usize) -> Self {
        if tokens > MAX_SHORT_REQUEST_TOKENS { Self::Long } else { Self::Short }
    }
}

/// Size of a request that is to be admitted.
#[derive(Debug, Clone, Copy)]
pub struct RequestSize {
    pub inputs: usize,
    /// Estimated before the texts are tokenized.
    pub tokens: usize,
}

pub struct PredictionQueue {
    state: Mutex<State>,
    /// Wakes the workers of each lane.
    changed: [Condvar; 2],
    limits: Limits,
}

#[derive(Default)]
struct State {
    lanes: [LaneState; 2],
    /// Inputs of requests that are admitted and not queued yet.
    admitted_inputs: usize,
    /// End of the congestion of short requests.
    congested_until: Option<Instant>,
    /// Short requests whose texts are being tokenized: they are queued in a moment.
    tokenizing: usize,
    next_request: u64,
    next_batch: u64,
    running: Vec<RunningBatch>,
    is_closed: bool,
}

/// A batch that is being computed.
struct RunningBatch {
    number: u64,
    inputs: usize,
    /// Those of neighbouring inputs once.
    adapters: Vec<AdapterHandle>,
}

#[derive(Default)]
struct LaneState {
    requests: RequestQueue,
    /// Estimated tokens of requests that are admitted and not queued yet.
    admitted_tokens: usize,
    /// Batches that are being computed.
    running_batches: usize,
    idle_workers: usize,
    throughput: Throughput,
}

/// Inputs of a request that are queued or being computed. Dropping it removes those that are still queued.
pub struct QueuedRequest {
    /// One per input.
    receivers: Vec<oneshot::Receiver<Result<OutputRow>>>,
    _cancel_on_drop: CancelOnDrop,
}

struct CancelOnDrop {
    queue: Arc<PredictionQueue>,
    lane: Lane,
    request: u64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let cancelled = self.queue.lock().lane(self.lane).requests.cancel(self.request);
        // Freed after the lock is released.
        drop(cancelled);
    }
}

/// Admission of a request: the right to queue `input_count` inputs. Dropping it gives the capacity back.
pub struct QueuePermit {
    queue: Arc<PredictionQueue>,
    size: RequestSize,
    is_tokenizing: bool,
}

/// Batch taken from a lane. Dropping it tells the queue that it is computed.
pub struct LaneBatch {
    queue: Arc<PredictionQueue>,
    lane: Lane,
    number: u64,
    tokens: usize,
}

impl PredictionQueue {
    pub fn new(limits: Limits) -> Arc<Self> {
        let mut state = State::default();
        state.lanes.iter_mut().for_each(|lane| lane.requests = RequestQueue::new(limits.max_batch_tokens));
        Arc::new(Self { state: Mutex::new(state), changed: Default::default(), limits })
    }

    /// Admits a request. A request larger than the whole queue is admitted when nothing else waits; otherwise it never
    /// would be.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`) if the queue is full, or if the request would probably wait for longer than allowed.
    pub fn admit(self: &Arc<Self>, size: RequestSize) -> Result<QueuePermit> {
        let mut state = self.lock();
        state.check_capacity(size, &self.limits)?;
        state.admitted_inputs += size.inputs;
        state.lane(Lane::of(size.tokens)).admitted_tokens += size.tokens;
        drop(state);
        Ok(QueuePermit { queue: Arc::clone(self), size, is_tokenizing: false })
    }

    /// Whether a long request would be admitted now.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn check_long_capacity(&self) -> Result<()> {
        let smallest_long = RequestSize { inputs: 1, tokens: MAX_SHORT_REQUEST_TOKENS + 1 };
        self.lock().check_capacity(smallest_long, &self.limits)
    }

    /// Waits for inputs of a lane and takes a batch of them; `None` once the queue is closed and the lane empty. During congestion
    /// long requests wait until `not_before`.
    pub fn next_batch(self: &Arc<Self>, lane: Lane, not_before: Instant) -> Option<(Vec<QueueEntry>, LaneBatch)> {
        let mut state = self.lock();
        loop {
            let Some(oldest_enqueued_at) = state.lane(lane).requests.oldest_enqueued_at() else {
                if state.is_closed {
                    return None;
                }
                state = self.wait(state, lane, None);
                continue;
            };
            let now = Instant::now();
            if let Some(delay) = state.batch_delay(lane, oldest_enqueued_at, not_before, now, &self.limits) {
                state = self.wait(state, lane, Some(delay));
                continue;
            }
            let max_tokens = state.max_batch_tokens(lane, now, &self.limits);
            let lane_state = state.lane(lane);
            // Each idle worker gets an equal share of the lane.
            let entries = lane_state.requests.next_batch(max_tokens, lane_state.idle_workers + 1);
            if !lane_state.requests.is_empty() {
                self.changed[lane as usize].notify_one();
            }
            if !entries.is_empty() {
                lane_state.running_batches += 1;
                let (tokens, number) = (token_count(&entries), state.start_batch(&entries));
                return Some((entries, LaneBatch { queue: Arc::clone(self), lane, number, tokens }));
            }
        }
    }

    /// Accepts no more requests. Workers compute what is queued and then end.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.iter().for_each(Condvar::notify_all);
    }

    /// Number of inputs admitted or queued.
    pub fn input_count(&self) -> usize {
        self.lock().input_count()
    }

    /// Number of inputs that are being computed.
    pub fn running_input_count(&self) -> usize {
        self.lock().running.iter().map(|batch| batch.inputs).sum()
    }

    /// Adds the adapters of queued inputs and of those that are being computed.
    pub fn add_adapters_to(&self, activity: &mut AdapterActivity) {
        let state = self.lock();
        let running = state.running.iter().flat_map(|batch| &batch.adapters);
        activity.running.extend(AdapterActivity::labels(running));
        let queued = state.lanes.iter().flat_map(|lane| lane.requests.adapters());
        activity.waiting.extend(AdapterActivity::labels(queued));
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        lane: Lane,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let changed = &self.changed[lane as usize];
        state.lane(lane).idle_workers += 1;
        let mut state = match timeout {
            None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.lane(lane).idle_workers -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    /// Records a batch and returns its number.
    fn start_batch(&mut self, entries: &[QueueEntry]) -> u64 {
        self.next_batch += 1;
        let runs = entries.chunk_by(|one, other| one.adapter == other.adapter);
        let adapters = runs.map(|run| run[0].adapter.clone()).collect();
        self.running.push(RunningBatch { number: self.next_batch, inputs: entries.len(), adapters });
        self.next_batch
    }

    fn input_count(&self) -> usize {
        self.admitted_inputs + self.lanes.iter().map(|lane| lane.requests.input_count()).sum::<usize>()
    }

    fn check_capacity(&self, size: RequestSize, limits: &Limits) -> Result<()> {
        let queued = self.input_count();
        if queued > 0 && queued + size.inputs > limits.max_queued_inputs {
            let detail = format!("{queued} inputs are waiting for predictions already: try again in a moment");
            return Err(Error::busy("predictions_queue_full", detail, RETRY_AFTER));
        }
        let expected_wait = self.lanes[Lane::of(size.tokens) as usize].expected_wait();
        if expected_wait > limits.max_queue_wait {
            let detail = format!(
                "requests of this size wait for about {} seconds now: try again later",
                expected_wait.as_secs_f64().ceil()
            );
            return Err(Error::busy("predictions_queue_full", detail, expected_wait - limits.max_queue_wait));
        }
        Ok(())
    }

    /// Time for which the next batch of a lane waits. Notes whether short requests are congested.
    fn batch_delay(
        &mut self,
        lane: Lane,
        oldest_enqueued_at: Instant,
        not_before: Instant,
        now: Instant,
        limits: &Limits,
    ) -> Option<Duration> {
        if self.is_closed {
            return None;
        }
        let until = match lane {
            Lane::Short => {
                if now - oldest_enqueued_at > CONGESTION_WAIT {
                    self.congested_until = Some(now + CONGESTION_TIME);
                }
                // A batch waits only if it has room and another request is about to be queued: a lone request is never delayed.
                let has_room = self.lane(lane).requests.token_count() < limits.max_batch_tokens;
                (self.tokenizing > 0 && has_room).then_some(oldest_enqueued_at + limits.max_batch_delay)
            }
            Lane::Long => self.congested_until.map(|congested_until| congested_until.min(not_before)),
        };
        until.and_then(|until| until.checked_duration_since(now)).filter(|delay| !delay.is_zero())
    }

    fn max_batch_tokens(&self, lane: Lane, now: Instant, limits: &Limits) -> usize {
        match lane == Lane::Long && self.congested_until.is_some_and(|until| now < until) {
            true => limits.max_batch_tokens.min(CONGESTION_BATCH_TOKENS),
            false => limits.max_batch_tokens,
        }
    }
}

impl LaneState {
    fn push(&mut self, entries: Vec<QueueEntry>, now: Instant) {
        if self.requests.is_empty() && self.running_batches == 0 {
            self.throughput.start(now);
        }
        self.requests.push(entries);
    }

    /// Time until the requests that are admitted or queued now are computed.
    fn expected_wait(&self) -> Duration {
        self.throughput.time_for(self.admitted_tokens + self.requests.token_count())
    }
}

impl Drop for LaneBatch {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let finished = state.running.extract_if(.., |batch| batch.number == self.number).collect::<Vec<_>>();
        let lane = state.lane(self.lane);
        lane.running_batches -= 1;
        lane.throughput.record(self.tokens, Instant::now());
        drop(state);
        // Adapters that are no longer cached are freed after the lock is released.
        drop(finished);
    }
}

impl QueuePermit {
    /// Announces that the request is queued soon, so that a batch with room waits for it.
    pub fn start_tokenizing(&mut self) {
        if !self.is_tokenizing {
            self.is_tokenizing = true;
            self.queue.lock().tokenizing += 1;
        }
    }

    /// Queues the inputs of the request. Their channels close when the queue is closed.
    pub fn push(mut self, adapter: &AdapterHandle, inputs: Vec<Tokens>) -> QueuedRequest {
        let queue = Arc::clone(&self.queue);
        let spans = EntrySpans::start();
        let mut state = queue.lock();
        let (request, enqueued_at) = (state.next_request, Instant::now());
        state.next_request += 1;
        let entry = |tokens| {
            let (response, response_rx) = oneshot::channel();
            let (adapter, spans) = (adapter.clone(), spans.clone());
            (QueueEntry { adapter, tokens, request, enqueued_at, response, spans }, response_rx)
        };
        let (entries, receivers): (Vec<_>, _) = inputs.into_iter().map(entry).unzip();
        let lane = Lane::of(token_count(&entries));
        if !state.is_closed {
            state.lane(lane).push(entries, enqueued_at);
        }
        // The queue counts the request from here on.
        self.release(&mut state);
        drop(state);
        // Otherwise dropping the permit wakes a worker, which may have waited for this request.
        if !self.is_tokenizing || lane == Lane::Long {
            queue.changed[lane as usize].notify_one();
        }
        QueuedRequest { receivers, _cancel_on_drop: CancelOnDrop { queue, lane, request } }
    }

    /// Gives the capacity back.
    fn release(&mut self, state: &mut State) {
        state.lane(Lane::of(self.size.tokens)).admitted_tokens -= self.size.tokens;
        state.admitted_inputs -= self.size.inputs;
        self.size = RequestSize { inputs: 0, tokens: 0 };
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let queue = Arc::clone(&self.queue);
        let mut state = queue.lock();
        self.release(&mut state);
        if !self.is_tokenizing {
            return;
        }
        state.tokenizing -= 1;
        let is_last = state.tokenizing == 0;
        drop(state);
        let changed = &queue.changed[Lane::Short as usize];
        match is_last {
            // No batch has a request to wait for any more.
            true => changed.notify_all(),
            false => changed.notify_one(),
        }
    }
}

/// Waits for the outputs of a request and returns them in input order. The first failure cancels the inputs that are
/// still queued.
///
/// # Errors
/// The error of an input, or `Internal` if its channel closed without a response.
pub async fn collect_rows(queued: QueuedRequest) -> Result<Vec<OutputRow>> {
    let QueuedRequest { receivers, _cancel_on_drop } = queued;
    let receive = |receiver: oneshot::Receiver<Result<OutputRow>>| async {
        receiver.await.unwrap_or_else(|_| Err(Error::internal("a batch was lost before it was computed")))
    };
    try_join_all(receivers.into_iter().map(receive)).await
}

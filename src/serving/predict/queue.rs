//! Bounded queue between predict requests and the worker threads.
//!
//! Short and long requests have a lane each with workers of its own; those of the long lane have a low priority, so that long requests
//! use what short ones leave. While short requests wait in the queue nevertheless (congestion), long ones are computed in small batches
//! and seldom: a scheduling priority alone does not keep them from delaying the threads that receive and answer short requests.
//!
//! The owners of a lane take turns. The short requests of an owner that floods have a lane of their own, with workers of low priority:
//! a batch that is being computed is not interrupted, but the operating system gives its processor to the batches of other owners.
//!
//! A request is counted from its admission on, before its adapter is loaded and its texts are tokenized, so
//! that the limits bound all the work that a burst of requests can pile up.

#[cfg(test)]
mod tests;

use super::lane::{Lane, MAX_SHORT_REQUEST_TOKENS};
use super::owner_queue::{EntrySpans, OutputRow, QueueEntry, token_count};
use super::state::{Limits, RequestSize, State};
use crate::serving::adapter_activity::AdapterActivity;
use crate::serving::adapters::AdapterHandle;
use crate::serving::owners::Owner;
use espalier_core::error::{Error, Result};
use espalier_core::model::Tokens;
use futures_util::future::try_join_all;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub struct PredictionQueue {
    state: Mutex<State>,
    /// Wakes the workers of each lane.
    changed: [Condvar; 3],
    limits: Limits,
}

/// Inputs of a request that are queued or being computed. Dropping it removes those that are still queued.
pub struct QueuedRequest {
    /// One per input.
    receivers: Vec<oneshot::Receiver<Result<OutputRow>>>,
    _cancel_on_drop: CancelOnDrop,
}

struct CancelOnDrop {
    queue: Arc<PredictionQueue>,
    owner: Owner,
    lane: Lane,
    request: u64,
    inputs: usize,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.loads.finish(&self.owner, self.inputs);
        let cancelled = state.lane(self.lane).requests.cancel(&self.owner, self.request);
        drop(state);
        // Freed after the lock is released.
        drop(cancelled);
    }
}

/// Admission of a request: the right to queue `input_count` inputs. Dropping it gives the capacity back.
pub struct QueuePermit {
    queue: Arc<PredictionQueue>,
    owner: Owner,
    size: RequestSize,
    /// Lane of the owner's short requests.
    short_lane: Lane,
    is_tokenizing: bool,
    /// Inputs in flight that end with the permit.
    in_flight: usize,
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
        Arc::new(Self { state: Mutex::new(State::new(&limits)), changed: Default::default(), limits })
    }

    /// Admits a request. A request larger than the whole queue is admitted when nothing else of its owner waits; otherwise it
    /// never would be.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`) if the queue is full, or if the request would probably wait for longer than allowed,
    /// unless other owners than this one fill the queue.
    pub fn admit(self: &Arc<Self>, owner: &Owner, size: RequestSize) -> Result<QueuePermit> {
        let mut state = self.lock();
        let now = Instant::now();
        let short_lane = state.short_lane(owner, now);
        let lane = Lane::of(size.tokens, short_lane);
        state.check_capacity(owner, lane, size, &self.limits)?;
        state.loads.start(owner, size.inputs, now);
        state.admitted_inputs += size.inputs;
        state.lane(lane).admitted_tokens += size.tokens;
        drop(state);
        let (queue, owner) = (Arc::clone(self), Owner::clone(owner));
        Ok(QueuePermit { queue, owner, size, short_lane, is_tokenizing: false, in_flight: size.inputs })
    }

    /// Whether a long request of an owner would be admitted now.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn check_long_capacity(&self, owner: &Owner) -> Result<()> {
        let smallest_long = RequestSize { inputs: 1, tokens: MAX_SHORT_REQUEST_TOKENS + 1 };
        self.lock().check_capacity(owner, Lane::Long, smallest_long, &self.limits)
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
        let queued = state.lanes().iter().flat_map(|lane| lane.requests.adapters());
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
            self.queue.lock().lane(self.short_lane).tokenizing += 1;
        }
    }

    /// Queues the inputs of the request. Their channels close when the queue is closed.
    pub fn push(mut self, adapter: &AdapterHandle, inputs: Vec<Tokens>) -> QueuedRequest {
        let queue = Arc::clone(&self.queue);
        let spans = EntrySpans::start();
        let mut state = queue.lock();
        let (request, enqueued_at) = (state.number_request(), Instant::now());
        let entry = |tokens| {
            let (response, response_rx) = oneshot::channel();
            let (adapter, spans) = (adapter.clone(), spans.clone());
            (QueueEntry { adapter, tokens, request, enqueued_at, response, spans }, response_rx)
        };
        let (entries, receivers): (Vec<_>, _) = inputs.into_iter().map(entry).unzip();
        let tokens = token_count(&entries);
        let lane = Lane::of(tokens, self.short_lane);
        state.loads.record(&self.owner, tokens, enqueued_at);
        if !state.is_closed {
            state.lane(lane).push(&self.owner, entries, enqueued_at);
        }
        // The queue counts the request from here on.
        self.release(&mut state);
        drop(state);
        // Otherwise dropping the permit wakes a worker, which may have waited for this request.
        if !self.is_tokenizing || lane == Lane::Long {
            queue.changed[lane as usize].notify_one();
        }
        let (owner, inputs) = (Owner::clone(&self.owner), std::mem::take(&mut self.in_flight));
        QueuedRequest { receivers, _cancel_on_drop: CancelOnDrop { queue, owner, lane, request, inputs } }
    }

    /// Gives the capacity back.
    fn release(&mut self, state: &mut State) {
        state.lane(Lane::of(self.size.tokens, self.short_lane)).admitted_tokens -= self.size.tokens;
        state.admitted_inputs -= self.size.inputs;
        self.size = RequestSize { inputs: 0, tokens: 0 };
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let queue = Arc::clone(&self.queue);
        let mut state = queue.lock();
        self.release(&mut state);
        state.loads.finish(&self.owner, self.in_flight);
        if !self.is_tokenizing {
            return;
        }
        let lane = state.lane(self.short_lane);
        lane.tokenizing -= 1;
        let is_last = lane.tokenizing == 0;
        drop(state);
        let changed = &queue.changed[self.short_lane as usize];
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

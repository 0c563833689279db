//! Bounded queue between predict requests and the worker threads.
//!
//! A request is counted from its admission on, before its adapter is loaded and its texts are tokenized, so that
//! `max_queued_inputs` bounds all the work that a burst of requests can pile up.

#[cfg(test)]
mod tests;

pub use super::request_queue::{OutputRow, QueueEntry};

use super::request_queue::RequestQueue;
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::RETRY_AFTER;
use espalier_core::error::{Error, Result};
use espalier_core::model::Tokens;
use futures_util::future::try_join_all;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_queued_inputs: usize,
    pub max_batch_tokens: usize,
    pub max_batch_delay: Duration,
}

pub struct PredictionQueue {
    state: Mutex<State>,
    changed: Condvar,
    limits: Limits,
}

#[derive(Default)]
struct State {
    requests: RequestQueue,
    /// Inputs of requests that are admitted and not queued yet.
    admitted_inputs: usize,
    /// Requests whose texts are being tokenized: they are queued in a moment.
    tokenizing: usize,
    idle_workers: usize,
    next_request: u64,
    is_closed: bool,
}

/// Inputs of a request that are queued or being computed. Dropping it removes those that are still queued.
pub struct QueuedRequest {
    /// One per input.
    receivers: Vec<oneshot::Receiver<Result<OutputRow>>>,
    _cancel_on_drop: CancelOnDrop,
}

struct CancelOnDrop {
    queue: Arc<PredictionQueue>,
    request: u64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let cancelled = self.queue.lock().requests.cancel(self.request);
        // Freed after the lock is released.
        drop(cancelled);
    }
}

/// Admission of a request: the right to queue `input_count` inputs. Dropping it gives the capacity back.
pub struct QueuePermit {
    queue: Arc<PredictionQueue>,
    input_count: usize,
    is_tokenizing: bool,
}

impl PredictionQueue {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), limits })
    }

    /// Admits a request. A request larger than the whole queue is admitted when nothing else waits; otherwise it never
    /// would be.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn admit(self: &Arc<Self>, input_count: usize) -> Result<QueuePermit> {
        let mut state = self.lock();
        if state.is_full(input_count, &self.limits) {
            let detail =
                format!("{} inputs are waiting for predictions already: try again in a moment", state.input_count());
            return Err(Error::busy("predictions_queue_full", detail, RETRY_AFTER));
        }
        state.admitted_inputs += input_count;
        drop(state);
        Ok(QueuePermit { queue: Arc::clone(self), input_count, is_tokenizing: false })
    }

    /// Waits for inputs and takes a batch of them; `None` once the queue is closed and empty.
    pub fn next_batch(&self) -> Option<Vec<QueueEntry>> {
        let mut state = self.lock();
        loop {
            let Some(oldest_enqueued_at) = state.requests.oldest_enqueued_at() else {
                if state.is_closed {
                    return None;
                }
                state = self.wait(state, None);
                continue;
            };
            let remaining_delay = self.limits.max_batch_delay.saturating_sub(oldest_enqueued_at.elapsed());
            if !remaining_delay.is_zero() && state.should_wait_for_batch(&self.limits) {
                state = self.wait(state, Some(remaining_delay));
                continue;
            }
            // Each idle worker gets an equal share of the queue.
            let workers = state.idle_workers + 1;
            let batch = state.requests.next_batch(self.limits.max_batch_tokens, workers);
            if !state.requests.is_empty() {
                self.changed.notify_one();
            }
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Accepts no more requests. Workers compute what is queued and then end.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Number of inputs admitted or queued.
    pub fn input_count(&self) -> usize {
        self.lock().input_count()
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, timeout: Option<Duration>) -> MutexGuard<'a, State> {
        state.idle_workers += 1;
        let mut state = match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.idle_workers -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn input_count(&self) -> usize {
        self.admitted_inputs + self.requests.input_count()
    }

    fn is_full(&self, input_count: usize, limits: &Limits) -> bool {
        let queued = self.input_count();
        queued > 0 && queued + input_count > limits.max_queued_inputs
    }

    /// A batch waits only if it has room and another request is about to be queued: a lone request is never delayed.
    fn should_wait_for_batch(&self, limits: &Limits) -> bool {
        self.tokenizing > 0 && !self.is_closed && self.requests.token_count() < limits.max_batch_tokens
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
        let mut state = queue.lock();
        let (request, enqueued_at) = (state.next_request, Instant::now());
        state.next_request += 1;
        let entry = |tokens| {
            let (response, response_rx) = oneshot::channel();
            (QueueEntry { adapter: adapter.clone(), tokens, request, enqueued_at, response }, response_rx)
        };
        let (entries, receivers) = inputs.into_iter().map(entry).unzip();
        if !state.is_closed {
            state.requests.push(entries);
        }
        // The queue counts the inputs from here on.
        state.admitted_inputs -= std::mem::take(&mut self.input_count);
        drop(state);
        // Otherwise dropping the permit wakes a worker, which may have waited for this request.
        if !self.is_tokenizing {
            queue.changed.notify_one();
        }
        QueuedRequest { receivers, _cancel_on_drop: CancelOnDrop { queue, request } }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.admitted_inputs -= self.input_count;
        if !self.is_tokenizing {
            return;
        }
        state.tokenizing -= 1;
        let is_last = state.tokenizing == 0;
        drop(state);
        match is_last {
            // No batch has a request to wait for any more.
            true => self.queue.changed.notify_all(),
            false => self.queue.changed.notify_one(),
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

//! What waits to be computed: a bounded queue from which threads take batches.
//!
//! A request is counted from the moment it is admitted, before its adapter is loaded or its texts are tokens, so that
//! `max_waiting` bounds everything that a burst can pile up. Knows an adapter only as a value of type `A`, and nothing
//! of what is computed.

mod permit;
mod request_queue;

#[cfg(test)]
mod tests;

pub use permit::QueuePermit;
pub use request_queue::BatchSlice;

use espalier_core::error::{Error, Result};
use request_queue::RequestQueue;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request that finds the queue full is asked to come back: a batch takes less than this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Inputs.
    pub max_queued_inputs: usize,
    pub max_batch_tokens: usize,
    pub max_batch_delay: Duration,
}

pub struct PredictionQueue<A> {
    state: Mutex<State<A>>,
    changed: Condvar,
    limits: Limits,
}

struct State<A> {
    requests: RequestQueue<A>,
    /// Inputs of requests that are admitted and not in the line yet.
    admitted_inputs: usize,
    /// Requests that will be in the line in a moment: their texts are being made tokens.
    tokenizing: usize,
    /// Threads with nothing to do.
    idle_workers: usize,
    is_closed: bool,
}

impl<A: Clone> PredictionQueue<A> {
    pub fn new(limits: Limits) -> Arc<Self> {
        let state = State {
            requests: RequestQueue::default(),
            admitted_inputs: 0,
            tokenizing: 0,
            idle_workers: 0,
            is_closed: false,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), limits })
    }

    /// A request larger than the whole queue is admitted when nothing else waits; otherwise it never would be.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn admit(self: &Arc<Self>, input_count: usize) -> Result<QueuePermit<A>> {
        let mut state = self.lock();
        if state.is_full(input_count, &self.limits) {
            // Those who went away need no room.
            state.requests.drop_cancelled();
        }
        if state.is_full(input_count, &self.limits) {
            let detail =
                format!("{} inputs are waiting for predictions already: try again in a moment", state.input_count());
            return Err(Error::busy("predictions_queue_full", detail, RETRY_AFTER));
        }
        state.admitted_inputs += input_count;
        Ok(QueuePermit::new(Arc::clone(self), input_count))
    }

    /// Waits for work and takes a batch of it; `None` once the queue is closed and empty.
    pub fn next_batch(&self) -> Option<Vec<BatchSlice<A>>> {
        let mut state = self.lock();
        loop {
            // Callers that went away are not computed for.
            state.requests.drop_cancelled();
            let Some(oldest_enqueued_at) = state.requests.oldest_enqueued_at() else {
                if state.is_closed {
                    return None;
                }
                state = self.wait(state, None);
                continue;
            };
            let remaining_delay = self.limits.max_batch_delay.saturating_sub(oldest_enqueued_at.elapsed());
            if remaining_delay.is_zero() || !state.should_wait_for_batch(&self.limits) {
                // Threads with nothing to do get their share of what waits.
                let workers = state.idle_workers + 1;
                let slices = state.requests.next_batch(self.limits.max_batch_tokens, workers);
                if !state.requests.is_empty() {
                    self.changed.notify_one();
                }
                return Some(slices);
            }
            state = self.wait(state, Some(remaining_delay));
        }
    }

    /// What is in the line is still computed; then the threads are sent home.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Inputs admitted or in the line.
    pub fn input_count(&self) -> usize {
        self.lock().input_count()
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State<A>>, timeout: Option<Duration>) -> MutexGuard<'a, State<A>> {
        state.idle_workers += 1;
        let mut state = match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.idle_workers -= 1;
        state
    }
}

impl<A> PredictionQueue<A> {
    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> State<A> {
    fn input_count(&self) -> usize {
        self.admitted_inputs + self.requests.input_count()
    }

    fn is_full(&self, input_count: usize, limits: &Limits) -> bool {
        let queued = self.input_count();
        queued > 0 && queued + input_count > limits.max_queued_inputs
    }

    /// A batch waits only when it has room and somebody is on the way: a lone request is never held up.
    fn should_wait_for_batch(&self, limits: &Limits) -> bool {
        self.tokenizing > 0 && !self.is_closed && self.requests.token_count() < limits.max_batch_tokens
    }
}

//! What waits to be computed: a bounded queue from which threads take batches.
//!
//! A request is counted from the moment it is admitted, before its adapter is loaded or its texts are tokens, so that
//! `max_waiting` bounds everything that a burst can pile up. Knows an adapter only as a value of type `A`, and nothing
//! of what is computed.

mod line;
mod place;

#[cfg(test)]
mod tests;

pub use line::Part;
pub use place::Place;

use espalier_core::error::{Error, Result};
use line::Line;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request that finds the queue full is asked to come back: a batch takes less than this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Inputs.
    pub max_waiting: usize,
    pub batch_tokens: usize,
    pub batch_window: Duration,
}

pub struct Queue<A> {
    state: Mutex<State<A>>,
    changed: Condvar,
    limits: Limits,
}

struct State<A> {
    line: Line<A>,
    /// Inputs of requests that are admitted and not in the line yet.
    admitted: usize,
    /// Requests that will be in the line in a moment: their texts are being made tokens.
    coming: usize,
    /// Threads with nothing to do.
    idle: usize,
    closed: bool,
}

impl<A: Clone> Queue<A> {
    pub fn new(limits: Limits) -> Arc<Self> {
        let state = State { line: Line::default(), admitted: 0, coming: 0, idle: 0, closed: false };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), limits })
    }

    /// A request larger than the whole queue is admitted when nothing else waits; otherwise it never would be.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn admit(self: &Arc<Self>, inputs: usize) -> Result<Place<A>> {
        let mut state = self.lock();
        if state.is_full(inputs, &self.limits) {
            // Those who went away need no room.
            state.line.forget_unwanted();
        }
        if state.is_full(inputs, &self.limits) {
            let detail = format!("{} inputs are waiting for predictions already: try again in a moment", state.count());
            return Err(Error::busy("predictions_queue_full", detail, RETRY_AFTER));
        }
        state.admitted += inputs;
        Ok(Place::new(Arc::clone(self), inputs))
    }

    /// Waits for work and takes a batch of it; `None` once the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<Part<A>>> {
        let mut state = self.lock();
        loop {
            // Callers that went away are not computed for.
            state.line.forget_unwanted();
            let Some(oldest) = state.line.oldest() else {
                if state.closed {
                    return None;
                }
                state = self.rest(state, None);
                continue;
            };
            let patience = self.limits.batch_window.saturating_sub(oldest.elapsed());
            if patience.is_zero() || !state.company_helps(&self.limits) {
                // Threads with nothing to do get their share of what waits.
                let sharers = state.idle + 1;
                let parts = state.line.cut(self.limits.batch_tokens, sharers);
                if !state.line.is_empty() {
                    self.changed.notify_one();
                }
                return Some(parts);
            }
            state = self.rest(state, Some(patience));
        }
    }

    /// What is in the line is still computed; then the threads are sent home.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Inputs admitted or in the line.
    pub fn count(&self) -> usize {
        self.lock().count()
    }

    fn rest<'a>(&self, mut state: MutexGuard<'a, State<A>>, limit: Option<Duration>) -> MutexGuard<'a, State<A>> {
        state.idle += 1;
        let mut state = match limit {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.idle -= 1;
        state
    }
}

impl<A> Queue<A> {
    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> State<A> {
    fn count(&self) -> usize {
        self.admitted + self.line.inputs()
    }

    fn is_full(&self, inputs: usize, limits: &Limits) -> bool {
        let count = self.count();
        count > 0 && count + inputs > limits.max_waiting
    }

    /// A batch waits only when it has room and somebody is on the way: a lone request is never held up.
    fn company_helps(&self, limits: &Limits) -> bool {
        self.coming > 0 && !self.closed && self.line.tokens() < limits.batch_tokens
    }
}

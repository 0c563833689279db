//! A request's way into the line: admitted, announced, pushed. Each step gives back what it holds when it is dropped.

use super::PredictionQueue;
use super::request_queue::QueuedRequest;
use crate::serving::predict::pending_response::{OutputRows, PendingResponse};
use espalier_core::error::Result;
use espalier_core::model::Tokens;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// The right to wait with so many inputs.
pub struct QueuePermit<A> {
    queue: Arc<PredictionQueue<A>>,
    input_count: usize,
}

/// A request that is about to be in the line: worth a moment's patience of a batch that has room.
pub struct TokenizingPermit<A> {
    permit: QueuePermit<A>,
}

impl<A> QueuePermit<A> {
    pub(super) fn new(queue: Arc<PredictionQueue<A>>, input_count: usize) -> Self {
        Self { queue, input_count }
    }

    pub fn start_tokenizing(self) -> TokenizingPermit<A> {
        self.queue.lock().tokenizing += 1;
        TokenizingPermit { permit: self }
    }
}

impl<A> TokenizingPermit<A> {
    /// Joins the line; the receiver gets one row per input. Its channel closes where there is nothing to compute, or
    /// nobody to do it any more.
    pub fn push(mut self, adapter: A, inputs: Vec<Tokens>) -> oneshot::Receiver<Result<OutputRows>> {
        let (response, response_rx) = PendingResponse::new(inputs.len());
        let request = QueuedRequest { adapter, inputs: inputs.into(), start: 0, response, enqueued_at: Instant::now() };
        let mut state = self.permit.queue.lock();
        if !state.is_closed && !request.inputs.is_empty() {
            state.requests.push(request);
        }
        // From here on the inputs are counted in the line.
        state.admitted_inputs -= self.permit.input_count;
        drop(state);
        self.permit.input_count = 0;
        response_rx
    }
}

impl<A> Drop for TokenizingPermit<A> {
    fn drop(&mut self) {
        let queue = &self.permit.queue;
        let mut state = queue.lock();
        state.tokenizing -= 1;
        let is_last = state.tokenizing == 0;
        drop(state);
        match is_last {
            // Every batch that waited for company has waited long enough.
            true => queue.changed.notify_all(),
            false => queue.changed.notify_one(),
        }
    }
}

impl<A> Drop for QueuePermit<A> {
    fn drop(&mut self) {
        self.queue.lock().admitted_inputs -= self.input_count;
    }
}

//! A request's way into the line: admitted, announced, pushed. Each step gives back what it holds when it is dropped.

use super::Queue;
use super::line::Waiting;
use crate::serving::ticket::{Rows, Ticket};
use espalier_core::error::Result;
use espalier_core::model::Tokens;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// The right to wait with so many inputs.
pub struct Place<A> {
    queue: Arc<Queue<A>>,
    inputs: usize,
}

/// A request that is about to be in the line: worth a moment's patience of a batch that has room.
pub struct Coming<A> {
    place: Place<A>,
}

impl<A> Place<A> {
    pub(super) fn new(queue: Arc<Queue<A>>, inputs: usize) -> Self {
        Self { queue, inputs }
    }

    pub fn announce(self) -> Coming<A> {
        self.queue.lock().coming += 1;
        Coming { place: self }
    }
}

impl<A> Coming<A> {
    /// Joins the line; the receiver gets one row per input. Its channel closes where there is nothing to compute, or
    /// nobody to do it any more.
    pub fn push(mut self, adapter: A, inputs: Vec<Tokens>) -> oneshot::Receiver<Result<Rows>> {
        let (ticket, answer) = Ticket::new(inputs.len());
        let request = Waiting { adapter, inputs: inputs.into(), first: 0, ticket, since: Instant::now() };
        let mut state = self.place.queue.lock();
        if !state.closed && !request.inputs.is_empty() {
            state.line.join(request);
        }
        // From here on the inputs are counted in the line.
        state.admitted -= self.place.inputs;
        drop(state);
        self.place.inputs = 0;
        answer
    }
}

impl<A> Drop for Coming<A> {
    fn drop(&mut self) {
        let queue = &self.place.queue;
        let mut state = queue.lock();
        state.coming -= 1;
        let nobody_else = state.coming == 0;
        drop(state);
        match nobody_else {
            // Every batch that waited for company has waited long enough.
            true => queue.changed.notify_all(),
            false => queue.changed.notify_one(),
        }
    }
}

impl<A> Drop for Place<A> {
    fn drop(&mut self) {
        self.queue.lock().admitted -= self.inputs;
    }
}

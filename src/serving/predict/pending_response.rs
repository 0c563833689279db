//! The answer to one request, collected from the batches that its inputs went into.
//!
//! Does not know what the rows mean, nor who computed them.

use espalier_core::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// One row of numbers per input.
pub type OutputRows = Vec<Vec<f32>>;

pub struct PendingResponse {
    state: Mutex<State>,
}

struct State {
    /// In the order of the request's inputs; empty rows are still missing.
    rows: OutputRows,
    missing_rows: usize,
    /// Gone once the request is answered. If the last holder of the ticket drops it unanswered, the caller sees that
    /// the channel is closed, so nobody waits for ever.
    response_tx: Option<oneshot::Sender<Result<OutputRows>>>,
}

impl PendingResponse {
    pub fn new(input_count: usize) -> (Arc<Self>, oneshot::Receiver<Result<OutputRows>>) {
        let (response_tx, response_rx) = oneshot::channel();
        let state =
            State { rows: vec![Vec::new(); input_count], missing_rows: input_count, response_tx: Some(response_tx) };
        (Arc::new(Self { state: Mutex::new(state) }), response_rx)
    }

    /// Whether anybody still waits: not when the caller went away, nor when a part of the request has failed.
    pub fn is_pending(&self) -> bool {
        self.lock().response_tx.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    /// The rows of the inputs from `first` on; the last ones to come answer the request.
    pub fn set_rows(&self, start: usize, rows: OutputRows) {
        let mut state = self.lock();
        state.missing_rows -= rows.len();
        for (slot, row) in state.rows[start..].iter_mut().zip(rows) {
            *slot = row;
        }
        if state.missing_rows == 0 {
            let rows = std::mem::take(&mut state.rows);
            state.respond(Ok(rows));
        }
    }

    pub fn fail(&self, error: Error) {
        self.lock().respond(Err(error));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn respond(&mut self, response: Result<OutputRows>) {
        if let Some(sender) = self.response_tx.take() {
            // A caller that went away meanwhile needs no answer.
            let _ = sender.send(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_returned_in_input_order_whatever_finished_first() {
        let (pending, mut response_rx) = PendingResponse::new(3);
        pending.set_rows(2, vec![vec![2.0]]);
        assert!(response_rx.try_recv().is_err(), "two rows are missing");
        pending.set_rows(0, vec![vec![0.0], vec![1.0]]);
        assert_eq!(response_rx.try_recv().unwrap().unwrap(), [[0.0], [1.0], [2.0]]);
        assert!(!pending.is_pending(), "it is answered");
    }

    #[test]
    fn a_failed_slice_fails_the_request_once() {
        let (pending, mut response_rx) = PendingResponse::new(2);
        pending.fail(Error::internal("first"));
        pending.fail(Error::internal("second"));
        assert_eq!(response_rx.try_recv().unwrap().unwrap_err().to_string(), "first");
        assert!(!pending.is_pending());
    }

    #[test]
    fn a_request_whose_receiver_was_dropped_is_not_pending() {
        let (pending, response_rx) = PendingResponse::new(1);
        assert!(pending.is_pending());
        drop(response_rx);
        assert!(!pending.is_pending());
    }
}

//! The answer to one request, collected from the batches that its inputs went into.
//!
//! Does not know what the rows mean, nor who computed them.

use espalier_core::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// One row of numbers per input.
pub type Rows = Vec<Vec<f32>>;

pub struct Ticket {
    state: Mutex<State>,
}

struct State {
    /// In the order of the request's inputs; empty rows are still missing.
    rows: Rows,
    missing: usize,
    /// Gone once the request is answered. If the last holder of the ticket drops it unanswered, the caller sees that
    /// the channel is closed, so nobody waits for ever.
    answer: Option<oneshot::Sender<Result<Rows>>>,
}

impl Ticket {
    pub fn new(inputs: usize) -> (Arc<Self>, oneshot::Receiver<Result<Rows>>) {
        let (answer, receiver) = oneshot::channel();
        let state = State { rows: vec![Vec::new(); inputs], missing: inputs, answer: Some(answer) };
        (Arc::new(Self { state: Mutex::new(state) }), receiver)
    }

    /// Whether anybody still waits: not when the caller went away, nor when a part of the request has failed.
    pub fn is_wanted(&self) -> bool {
        self.lock().answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    /// The rows of the inputs from `first` on; the last ones to come answer the request.
    pub fn fill(&self, first: usize, rows: Rows) {
        let mut state = self.lock();
        state.missing -= rows.len();
        for (place, row) in state.rows[first..].iter_mut().zip(rows) {
            *place = row;
        }
        if state.missing == 0 {
            let rows = std::mem::take(&mut state.rows);
            state.answer(Ok(rows));
        }
    }

    pub fn fail(&self, error: Error) {
        self.lock().answer(Err(error));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer(&mut self, answer: Result<Rows>) {
        if let Some(sender) = self.answer.take() {
            // A caller that went away meanwhile needs no answer.
            let _ = sender.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_answered_in_the_order_of_the_inputs_whatever_came_first() {
        let (ticket, mut answer) = Ticket::new(3);
        ticket.fill(2, vec![vec![2.0]]);
        assert!(answer.try_recv().is_err(), "two rows are missing");
        ticket.fill(0, vec![vec![0.0], vec![1.0]]);
        assert_eq!(answer.try_recv().unwrap().unwrap(), [[0.0], [1.0], [2.0]]);
        assert!(!ticket.is_wanted(), "it is answered");
    }

    #[test]
    fn one_failed_part_fails_the_request_once() {
        let (ticket, mut answer) = Ticket::new(2);
        ticket.fail(Error::internal("first"));
        ticket.fail(Error::internal("second"));
        assert_eq!(answer.try_recv().unwrap().unwrap_err().to_string(), "first");
        assert!(!ticket.is_wanted());
    }

    #[test]
    fn a_request_whose_caller_went_away_is_not_wanted() {
        let (ticket, answer) = Ticket::new(1);
        assert!(ticket.is_wanted());
        drop(answer);
        assert!(!ticket.is_wanted());
    }
}

//! The line of requests, and how a batch is cut from it.
//!
//! A large request gives up its turn after each batch, so that small ones do not wait behind all of it. Knows nothing of
//! threads or time limits.

use crate::serving::predict::pending_response::PendingResponse;
use espalier_core::model::Tokens;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Work is not shared among idle threads in smaller pieces than this many tokens: they would only pay overhead.
const MIN_WORKER_SHARE_TOKENS: usize = 256;

pub struct RequestQueue<A> {
    requests: VecDeque<QueuedRequest<A>>,
}

/// The inputs of a request that no batch has taken yet.
pub struct QueuedRequest<A> {
    pub adapter: A,
    pub inputs: VecDeque<Tokens>,
    /// The place of the first of them in the request.
    pub start: usize,
    pub response: Arc<PendingResponse>,
    pub enqueued_at: Instant,
}

/// What a batch took of one request.
pub struct BatchSlice<A> {
    pub adapter: A,
    pub inputs: Vec<Tokens>,
    /// The place of the first of them in the request.
    pub start: usize,
    pub response: Arc<PendingResponse>,
}

impl<A> Default for RequestQueue<A> {
    fn default() -> Self {
        Self { requests: VecDeque::new() }
    }
}

impl<A> RequestQueue<A> {
    pub fn push(&mut self, request: QueuedRequest<A>) {
        self.requests.push_back(request);
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn input_count(&self) -> usize {
        self.requests.iter().map(|request| request.inputs.len()).sum()
    }

    pub fn token_count(&self) -> usize {
        self.requests.iter().flat_map(|request| &request.inputs).map(|tokens| tokens.ids.len()).sum()
    }

    pub fn oldest_enqueued_at(&self) -> Option<Instant> {
        self.requests.iter().map(|request| request.enqueued_at).min()
    }

    pub fn drop_cancelled(&mut self) {
        self.requests.retain(|request| request.response.is_pending());
    }
}

impl<A: Clone> RequestQueue<A> {
    /// Fills a batch from the front: at least one input, and beyond it no more than `most` tokens, nor more than one
    /// sharer's part of the whole line.
    pub fn next_batch(&mut self, max_tokens: usize, workers: usize) -> Vec<BatchSlice<A>> {
        let mut token_budget = max_tokens.min((self.token_count() / workers).max(MIN_WORKER_SHARE_TOKENS));
        let mut slices: Vec<BatchSlice<A>> = Vec::new();
        while let Some(mut request) = self.requests.pop_front() {
            let start = request.start;
            let inputs = request.take_inputs(&mut token_budget, usize::from(slices.is_empty()));
            if inputs.is_empty() {
                self.requests.push_front(request);
                break;
            }
            slices.push(BatchSlice {
                adapter: request.adapter.clone(),
                inputs,
                start,
                response: Arc::clone(&request.response),
            });
            if !request.inputs.is_empty() {
                self.requests.push_back(request);
                break;
            }
        }
        slices
    }
}

impl<A> QueuedRequest<A> {
    /// Takes the inputs that fit into the room, and `least` of them even if they do not.
    fn take_inputs(&mut self, token_budget: &mut usize, min_inputs: usize) -> Vec<Tokens> {
        let mut taken = Vec::new();
        while let Some(next) = self.inputs.front() {
            if next.ids.len() > *token_budget && taken.len() >= min_inputs {
                break;
            }
            *token_budget = token_budget.saturating_sub(next.ids.len());
            taken.extend(self.inputs.pop_front());
        }
        self.start += taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::predict::pending_response::OutputRows;
    use tokio::sync::oneshot::Receiver;

    fn push(
        queue: &mut RequestQueue<&'static str>,
        adapter: &'static str,
        lengths: &[usize],
    ) -> Receiver<espalier_core::error::Result<OutputRows>> {
        let (response, response_rx) = PendingResponse::new(lengths.len());
        let tokens = |length: &usize| Tokens::from_ids(vec![1; *length]);
        let inputs = lengths.iter().map(tokens).collect();
        queue.push(QueuedRequest { adapter, inputs, start: 0, response: response, enqueued_at: Instant::now() });
        response_rx
    }

    /// Adapter, place of the first input and number of inputs of every part.
    fn slice_summary(slices: &[BatchSlice<&'static str>]) -> Vec<(&'static str, usize, usize)> {
        slices.iter().map(|slice| (slice.adapter, slice.start, slice.inputs.len())).collect()
    }

    #[test]
    fn a_batch_takes_several_requests_up_to_its_token_budget() {
        let mut queue = RequestQueue::default();
        let _receivers =
            [push(&mut queue, "a", &[400, 100]), push(&mut queue, "b", &[300]), push(&mut queue, "c", &[300])];
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("a", 0, 2), ("b", 0, 1)]);
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("c", 0, 1)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_large_request_is_requeued_at_the_back_after_each_batch() {
        let mut queue = RequestQueue::default();
        let _receivers = [push(&mut queue, "large", &[500; 5]), push(&mut queue, "small", &[10])];
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("large", 0, 2)]);
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("small", 0, 1), ("large", 2, 1)]);
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("large", 3, 2)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_input_larger_than_a_batch_is_computed_alone() {
        let mut queue = RequestQueue::default();
        let _receiver = push(&mut queue, "a", &[5000, 10]);
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("a", 0, 1)]);
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("a", 1, 1)]);
    }

    #[test]
    fn idle_workers_share_the_queue_down_to_a_minimum_share() {
        let mut queue = RequestQueue::default();
        let _receiver = push(&mut queue, "a", &[100; 10]);
        assert_eq!(slice_summary(&queue.next_batch(8000, 2)), [("a", 0, 5)]);
        assert_eq!(
            slice_summary(&queue.next_batch(8000, 5)),
            [("a", 5, 2)],
            "a fifth would be less than the smallest share"
        );
    }

    #[test]
    fn cancelled_requests_are_dropped() {
        let mut queue = RequestQueue::default();
        drop(push(&mut queue, "gone", &[10]));
        let _receiver = push(&mut queue, "here", &[10]);
        queue.drop_cancelled();
        assert_eq!(slice_summary(&queue.next_batch(1000, 1)), [("here", 0, 1)]);
    }
}

//! Queued inputs of requests, and how a batch is taken from them: first come, first served, but a large request moves to the back
//! each time so many of its tokens were taken as fit into a whole batch.

use crate::serving::adapters::AdapterHandle;
use espalier_core::error::Result;
use espalier_core::model::Tokens;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::Span;

/// Least token budget of a batch when idle workers share the queue: smaller batches cost more overhead than they save.
const MIN_WORKER_SHARE_TOKENS: usize = 256;

/// Output of one input: logits or an embedding.
pub type OutputRow = Vec<f32>;

/// One input waiting for its forward pass.
pub struct QueueEntry {
    pub adapter: AdapterHandle,
    pub tokens: Tokens,
    /// Number of the request that the input belongs to.
    pub request: u64,
    pub enqueued_at: Instant,
    pub response: oneshot::Sender<Result<OutputRow>>,
    pub spans: EntrySpans,
}

/// Spans of an input: that of its request, and that of the request's wait, which ends with the last input that waits.
#[derive(Clone)]
pub struct EntrySpans {
    /// None if the wait is not recorded.
    pub request: Span,
    pub queue: Span,
}

impl EntrySpans {
    /// Begins the wait of the current request.
    pub fn start() -> Self {
        let queue = tracing::debug_span!("queue");
        let request = if queue.is_disabled() { Span::none() } else { Span::current() };
        Self { request, queue }
    }
}

impl QueueEntry {
    /// Whether nobody waits for the output: the request was cancelled, or another of its inputs failed.
    pub fn is_cancelled(&self) -> bool {
        self.response.is_closed()
    }
}

/// Queue of requests, from which batches are filled. No operation walks the requests that it does not take or remove.
#[derive(Default)]
pub struct RequestQueue {
    /// Numbers of the requests in the order of service. Cancelled requests are skipped when they are reached.
    order: VecDeque<u64>,
    /// The entries of each request, none of them empty.
    requests: HashMap<u64, VecDeque<QueueEntry>>,
    /// When each request was queued. Requests that are served in several batches move in `order` and not here.
    enqueued: BTreeSet<(Instant, u64)>,
    input_count: usize,
    token_count: usize,
    /// Tokens after which a request moves to the back.
    quantum: usize,
    /// Request that was served last, and its tokens taken since it came to the front.
    served: (u64, usize),
}

impl RequestQueue {
    pub fn new(quantum: usize) -> Self {
        Self { quantum, ..Self::default() }
    }

    /// Appends the inputs of one request, whose number is new.
    pub fn push(&mut self, entries: Vec<QueueEntry>) {
        let Some(first) = entries.first() else { return };
        let request = first.request;
        self.enqueued.insert((first.enqueued_at, request));
        self.input_count += entries.len();
        self.token_count += token_count(&entries);
        self.order.push_back(request);
        self.requests.insert(request, entries.into());
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn input_count(&self) -> usize {
        self.input_count
    }

    pub fn token_count(&self) -> usize {
        self.token_count
    }

    /// The adapter of each request.
    pub fn adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.requests.values().map(|entries| &entries[0].adapter)
    }

    pub fn oldest_enqueued_at(&self) -> Option<Instant> {
        self.enqueued.first().map(|(enqueued_at, _)| *enqueued_at)
    }

    /// Removes what is left of a request, and returns it, so that it can be freed elsewhere.
    pub fn cancel(&mut self, request: u64) -> Option<VecDeque<QueueEntry>> {
        let entries = self.requests.remove(&request)?;
        self.input_count -= entries.len();
        self.token_count -= token_count(&entries);
        self.enqueued.remove(&(entries[0].enqueued_at, request));
        // The order keeps numbers of cancelled requests, but no more of them than of others.
        if self.order.len() > 2 * self.requests.len() {
            self.order.retain(|request| self.requests.contains_key(request));
        }
        Some(entries)
    }

    /// Takes a batch from the front: at least one input, and beyond it at most `max_tokens` tokens and at most one of `workers` equal
    /// shares of the queue. Cancelled inputs are dropped on the way, so the batch is empty if all are cancelled.
    pub fn next_batch(&mut self, max_tokens: usize, workers: usize) -> Vec<QueueEntry> {
        let mut token_budget = max_tokens.min((self.token_count / workers).max(MIN_WORKER_SHARE_TOKENS));
        let mut batch = Vec::new();
        while let Some(request) = self.order.pop_front() {
            let Some(mut entries) = self.requests.remove(&request) else { continue };
            let (length_before, queued) = (batch.len(), (entries[0].enqueued_at, request));
            self.take_entries(&mut entries, &mut token_budget, &mut batch);
            if entries.is_empty() {
                self.enqueued.remove(&queued);
                continue;
            }
            self.requests.insert(request, entries);
            match self.record_taken(request, token_count(&batch[length_before..])) {
                true => self.order.push_back(request),
                false => self.order.push_front(request),
            }
            break;
        }
        batch
    }

    /// Counts the tokens that were taken of the request at the front. Returns whether the request has used its quantum.
    fn record_taken(&mut self, request: u64, taken: usize) -> bool {
        let before = if self.served.0 == request { self.served.1 } else { 0 };
        let is_used = taken > 0 && before + taken >= self.quantum;
        self.served = (request, if is_used { 0 } else { before + taken });
        is_used
    }

    /// Moves the entries that fit into the budget to `batch`; the first entry of a batch always fits.
    fn take_entries(
        &mut self,
        entries: &mut VecDeque<QueueEntry>,
        token_budget: &mut usize,
        batch: &mut Vec<QueueEntry>,
    ) {
        while let Some(next) = entries.front() {
            let (tokens, is_cancelled) = (next.tokens.ids.len(), next.is_cancelled());
            if !is_cancelled && tokens > *token_budget && !batch.is_empty() {
                return;
            }
            self.input_count -= 1;
            self.token_count -= tokens;
            let entry = entries.pop_front().filter(|_| !is_cancelled);
            if entry.is_some() {
                *token_budget = token_budget.saturating_sub(tokens);
            }
            batch.extend(entry);
        }
    }
}

/// Tokens of all entries.
pub fn token_count<'a>(entries: impl IntoIterator<Item = &'a QueueEntry>) -> usize {
    entries.into_iter().map(|entry| entry.tokens.ids.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::Receiver;

    fn push(queue: &mut RequestQueue, adapter: &str, lengths: &[usize]) -> Vec<Receiver<Result<OutputRow>>> {
        let (adapter, enqueued_at) = (AdapterHandle::named(adapter), Instant::now());
        let request = queue.requests.keys().max().map_or(0, |last| last + 1);
        let entry = |length: &usize| {
            let (response, response_rx) = oneshot::channel();
            let tokens = Tokens::from_ids(vec![1; *length]);
            (
                QueueEntry {
                    adapter: adapter.clone(),
                    tokens,
                    request,
                    enqueued_at,
                    response,
                    spans: EntrySpans::start(),
                },
                response_rx,
            )
        };
        let (entries, receivers) = lengths.iter().map(entry).unzip();
        queue.push(entries);
        receivers
    }

    /// Adapter and lengths of each run of inputs.
    fn batch_summary(batch: &[QueueEntry]) -> Vec<(&str, Vec<usize>)> {
        let runs = batch.chunk_by(|one, other| one.adapter == other.adapter);
        let lengths = |run: &[QueueEntry]| run.iter().map(|entry| entry.tokens.ids.len()).collect();
        runs.map(|run| (run[0].adapter.version(), lengths(run))).collect()
    }

    #[test]
    fn a_batch_takes_several_requests_up_to_its_token_budget() {
        let mut queue = RequestQueue::default();
        let _receivers =
            [push(&mut queue, "a", &[400, 100]), push(&mut queue, "b", &[300]), push(&mut queue, "c", &[300])];
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![400, 100]), ("b", vec![300])]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("c", vec![300])]);
        assert!(queue.is_empty());
        assert_eq!((queue.input_count(), queue.token_count()), (0, 0));
    }

    #[test]
    fn a_large_request_is_requeued_at_the_back_after_each_batch() {
        let mut queue = RequestQueue::default();
        let _receivers = [push(&mut queue, "large", &[500, 499, 498, 497, 496]), push(&mut queue, "small", &[10])];
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![500, 499])]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("small", vec![10]), ("large", vec![498])]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![497, 496])]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_request_keeps_its_place_until_it_has_used_its_quantum() {
        let mut queue = RequestQueue::new(1000);
        let _receivers = [push(&mut queue, "large", &[300; 6]), push(&mut queue, "other", &[300; 2])];
        let mut adapters = Vec::new();
        while !queue.is_empty() {
            adapters.push(queue.next_batch(300, 1)[0].adapter.version().to_string());
        }
        assert_eq!(adapters, ["large", "large", "large", "large", "other", "other", "large", "large"]);
    }

    #[test]
    fn an_input_larger_than_a_batch_is_computed_alone() {
        let mut queue = RequestQueue::default();
        let _receivers = push(&mut queue, "a", &[5000, 10]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![5000])]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![10])]);
    }

    #[test]
    fn idle_workers_share_the_queue_down_to_a_minimum_share() {
        let mut queue = RequestQueue::default();
        let _receivers = push(&mut queue, "a", &[100; 10]);
        assert_eq!(batch_summary(&queue.next_batch(8000, 2)), [("a", vec![100; 5])]);
        let batch = queue.next_batch(8000, 5);
        assert_eq!(batch_summary(&batch), [("a", vec![100; 2])], "a fifth is less than the smallest share");
    }

    #[test]
    fn cancelled_requests_are_removed() {
        let mut queue = RequestQueue::default();
        let _cancelled = push(&mut queue, "cancelled", &[10, 20]);
        let oldest = queue.oldest_enqueued_at();
        let _receivers = push(&mut queue, "active", &[10]);
        assert_eq!(queue.cancel(0).map(|entries| entries.len()), Some(2));
        assert_eq!((queue.input_count(), queue.token_count()), (1, 10));
        assert!(queue.oldest_enqueued_at() > oldest);
        assert!(queue.cancel(0).is_none());
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("active", vec![10])]);
        assert_eq!((queue.is_empty(), queue.oldest_enqueued_at()), (true, None));
    }

    #[test]
    fn the_oldest_request_is_known_after_it_moved_to_the_back() {
        let mut queue = RequestQueue::default();
        let _large = push(&mut queue, "large", &[500, 500, 500]);
        let oldest = queue.oldest_enqueued_at();
        let _small = push(&mut queue, "small", &[10]);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![500, 500])]);
        assert_eq!(queue.oldest_enqueued_at(), oldest);
        assert_eq!(batch_summary(&queue.next_batch(400, 1)), [("small", vec![10])]);
        assert_eq!(queue.oldest_enqueued_at(), oldest);
    }

    #[test]
    fn numbers_of_cancelled_requests_do_not_pile_up() {
        let mut queue = RequestQueue::default();
        let _active = push(&mut queue, "active", &[10]);
        for _ in 0..1000 {
            drop(push(&mut queue, "cancelled", &[10]));
            queue.cancel(1);
            assert!(queue.order.len() <= 3, "{}", queue.order.len());
        }
    }

    #[test]
    fn cancelled_inputs_are_not_taken_into_a_batch() {
        let mut queue = RequestQueue::default();
        let mut receivers = push(&mut queue, "a", &[900, 10, 900]);
        receivers.remove(0);
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![10, 900])]);
        drop(push(&mut queue, "a", &[10]));
        assert_eq!(batch_summary(&queue.next_batch(1000, 1)), []);
        assert!(queue.is_empty());
    }
}

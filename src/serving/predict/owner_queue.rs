//! Queued requests of one owner, and how a batch takes from them: first come, first served, but a large request moves to the back each
//! time so many of its tokens were taken as fit into a whole batch.

use crate::serving::adapters::AdapterHandle;
use espalier_core::error::Result;
use espalier_core::model::Tokens;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::Span;

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

/// A batch that is being filled.
#[derive(Default)]
pub struct BatchInProgress {
    pub entries: Vec<QueueEntry>,
    /// Tokens that still fit; the first entry always fits.
    pub token_budget: usize,
    /// When each request was queued of which nothing is left, and its number.
    pub emptied: Vec<(Instant, u64)>,
}

/// Why an owner's queue gives no more entries to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    QueueEmpty,
    BatchFull,
    /// The owner has used its tokens.
    TurnOver,
}

/// Requests of one owner.
#[derive(Default)]
pub struct OwnerQueue {
    /// Numbers of the requests in the order of service. Cancelled requests are skipped when they are reached.
    order: VecDeque<u64>,
    /// The entries of each request, none of them empty.
    requests: HashMap<u64, VecDeque<QueueEntry>>,
    pub input_count: usize,
    pub token_count: usize,
    /// Request that was served last, and its tokens taken since it came to the front.
    served: (u64, usize),
}

impl OwnerQueue {
    /// Appends the inputs of one request, whose number is new.
    pub fn push(&mut self, request: u64, entries: Vec<QueueEntry>) {
        self.input_count += entries.len();
        self.token_count += token_count(&entries);
        self.order.push_back(request);
        self.requests.insert(request, entries.into());
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The adapter of each request.
    pub fn adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.requests.values().map(|entries| &entries[0].adapter)
    }

    /// Removes what is left of a request, and returns it, so that it can be freed elsewhere.
    pub fn cancel(&mut self, request: u64) -> Option<VecDeque<QueueEntry>> {
        let entries = self.requests.remove(&request)?;
        self.input_count -= entries.len();
        self.token_count -= token_count(&entries);
        // The order keeps numbers of cancelled requests, but no more of them than of others.
        if self.order.len() > 2 * self.requests.len() {
            self.order.retain(|request| self.requests.contains_key(request));
        }
        Some(entries)
    }

    /// Moves entries to the batch while it has room and `turn_tokens`, from which their tokens are subtracted, is positive. A request moves
    /// to the back after `request_quantum` tokens. Cancelled inputs are dropped on the way.
    pub fn take(&mut self, batch: &mut BatchInProgress, turn_tokens: &mut i64, request_quantum: usize) -> Stop {
        while let Some(request) = self.order.pop_front() {
            let Some(mut entries) = self.requests.remove(&request) else { continue };
            let (length_before, queued) = (batch.entries.len(), (entries[0].enqueued_at, request));
            let stop = self.take_entries(&mut entries, batch, turn_tokens);
            if stop == Stop::QueueEmpty {
                batch.emptied.push(queued);
                continue;
            }
            self.requests.insert(request, entries);
            match self.record_taken(request, token_count(&batch.entries[length_before..]), request_quantum) {
                true => self.order.push_back(request),
                false => self.order.push_front(request),
            }
            return stop;
        }
        Stop::QueueEmpty
    }

    /// Counts the tokens that were taken of the request at the front. Returns whether the request has used its quantum.
    fn record_taken(&mut self, request: u64, taken: usize, quantum: usize) -> bool {
        let before = if self.served.0 == request { self.served.1 } else { 0 };
        let is_used = taken > 0 && before + taken >= quantum;
        self.served = (request, if is_used { 0 } else { before + taken });
        is_used
    }

    /// Moves entries of one request to the batch.
    fn take_entries(
        &mut self,
        entries: &mut VecDeque<QueueEntry>,
        batch: &mut BatchInProgress,
        turn_tokens: &mut i64,
    ) -> Stop {
        while let Some(next) = entries.front() {
            let (tokens, is_cancelled) = (next.tokens.ids.len(), next.is_cancelled());
            if !is_cancelled && *turn_tokens <= 0 {
                return Stop::TurnOver;
            }
            if !is_cancelled && tokens > batch.token_budget && !batch.entries.is_empty() {
                return Stop::BatchFull;
            }
            self.input_count -= 1;
            self.token_count -= tokens;
            let entry = entries.pop_front().filter(|_| !is_cancelled);
            if entry.is_some() {
                batch.token_budget = batch.token_budget.saturating_sub(tokens);
                *turn_tokens = turn_tokens.saturating_sub_unsigned(tokens as u64);
            }
            batch.entries.extend(entry);
        }
        Stop::QueueEmpty
    }

    /// Length of the order, with the numbers of cancelled requests.
    #[cfg(test)]
    pub fn order_length(&self) -> usize {
        self.order.len()
    }
}

/// Tokens of all entries.
pub fn token_count<'a>(entries: impl IntoIterator<Item = &'a QueueEntry>) -> usize {
    entries.into_iter().map(|entry| entry.tokens.ids.len()).sum()
}

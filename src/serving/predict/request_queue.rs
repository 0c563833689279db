//! Queued inputs of the requests of all owners, from which batches are filled by deficit round robin (Shreedhar and Varghese 1995): the
//! owners take turns, and a turn gives an owner a number of tokens. An owner may overdraw its deficit by a part of one input, which its
//! next turn lacks.

#[cfg(test)]
mod tests;

use super::owner_queue::{BatchInProgress, OwnerQueue, QueueEntry, Stop};
use crate::serving::adapters::AdapterHandle;
use crate::serving::owners::Owner;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// Least token budget of a batch when idle workers share the queue: smaller batches cost more overhead than they save.
const MIN_WORKER_SHARE_TOKENS: usize = 256;

/// Tokens of an owner's turn. A batch has room for several turns, so that a request of an owner with few of them is in the next batch.
const TURN_TOKENS: i64 = 512;

/// Queue of requests, from which batches are filled. No operation walks the requests that it does not take or remove.
#[derive(Default)]
pub struct RequestQueue {
    /// The owners with queued requests, the next one first.
    turns: VecDeque<OwnerTurn>,
    /// None of them is empty.
    owners: HashMap<Owner, OwnerQueue>,
    /// When each request was queued. Requests that are served in several batches move in the order of their owner and not here.
    enqueued: BTreeSet<(Instant, u64)>,
    input_count: usize,
    token_count: usize,
    /// Tokens after which a request moves to the back.
    request_quantum: usize,
}

struct OwnerTurn {
    owner: Owner,
    /// Tokens that the owner may still take in its turn.
    deficit: i64,
}

impl RequestQueue {
    pub fn new(request_quantum: usize) -> Self {
        Self { request_quantum, ..Self::default() }
    }

    /// Appends the inputs of one request, whose number is new.
    pub fn push(&mut self, owner: &Owner, entries: Vec<QueueEntry>) {
        let Some(first) = entries.first() else { return };
        let request = first.request;
        self.enqueued.insert((first.enqueued_at, request));
        let queue = self.owners.entry(Owner::clone(owner)).or_default();
        if queue.is_empty() {
            self.turns.push_back(OwnerTurn { owner: Owner::clone(owner), deficit: 0 });
        }
        let before = (queue.input_count, queue.token_count);
        queue.push(request, entries);
        self.input_count += queue.input_count - before.0;
        self.token_count += queue.token_count - before.1;
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub fn input_count(&self) -> usize {
        self.input_count
    }

    pub fn token_count(&self) -> usize {
        self.token_count
    }

    /// Tokens of an owner's queued inputs.
    pub fn owner_token_count(&self, owner: &Owner) -> usize {
        self.owners.get(owner).map_or(0, |queue| queue.token_count)
    }

    /// The adapter of each request.
    pub fn adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.owners.values().flat_map(OwnerQueue::adapters)
    }

    pub fn oldest_enqueued_at(&self) -> Option<Instant> {
        self.enqueued.first().map(|(enqueued_at, _)| *enqueued_at)
    }

    /// Removes what is left of a request, and returns it, so that it can be freed elsewhere.
    pub fn cancel(&mut self, owner: &Owner, request: u64) -> Option<VecDeque<QueueEntry>> {
        let queue = self.owners.get_mut(owner)?;
        let before = (queue.input_count, queue.token_count);
        let entries = queue.cancel(request)?;
        self.input_count -= before.0 - queue.input_count;
        self.token_count -= before.1 - queue.token_count;
        if queue.is_empty() {
            self.owners.remove(owner);
            self.turns.retain(|turn| turn.owner != *owner);
        }
        self.enqueued.remove(&(entries[0].enqueued_at, request));
        Some(entries)
    }

    /// Takes a batch from the front: at least one input, and beyond it at most `max_tokens` tokens and at most one of `workers` equal
    /// shares of the queue. Cancelled inputs are dropped on the way, so the batch is empty if all are cancelled.
    pub fn next_batch(&mut self, max_tokens: usize, workers: usize) -> Vec<QueueEntry> {
        let token_budget = max_tokens.min((self.token_count / workers).max(MIN_WORKER_SHARE_TOKENS));
        let mut batch = BatchInProgress { token_budget, ..BatchInProgress::default() };
        while let Some(stop) = self.take_turn(&mut batch) {
            match stop {
                Stop::QueueEmpty => {
                    let turn = self.turns.pop_front();
                    turn.and_then(|turn| self.owners.remove(&turn.owner));
                }
                Stop::TurnOver => self.turns.rotate_left(1),
                Stop::BatchFull => break,
            }
        }
        for queued in &batch.emptied {
            self.enqueued.remove(queued);
        }
        batch.entries
    }

    /// Lets the owner at the front add its entries to the batch; `None` if nobody is left.
    fn take_turn(&mut self, batch: &mut BatchInProgress) -> Option<Stop> {
        let is_alone = self.turns.len() == 1;
        let turn = self.turns.front_mut()?;
        if turn.deficit <= 0 && !is_alone {
            turn.deficit += TURN_TOKENS;
        }
        let mut unlimited = i64::MAX;
        let turn_tokens = if is_alone { &mut unlimited } else { &mut turn.deficit };
        let Some(queue) = self.owners.get_mut(&turn.owner) else { return Some(Stop::QueueEmpty) };
        let before = (queue.input_count, queue.token_count);
        let stop = queue.take(batch, turn_tokens, self.request_quantum);
        self.input_count -= before.0 - queue.input_count;
        self.token_count -= before.1 - queue.token_count;
        Some(stop)
    }
}

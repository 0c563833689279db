//! Lanes of the prediction queue. Each has workers of its own.

use super::owner_queue::QueueEntry;
use super::request_queue::RequestQueue;
use super::throughput::Throughput;
use crate::serving::owners::Owner;
use std::time::{Duration, Instant};

/// Requests with more tokens are long.
pub const MAX_SHORT_REQUEST_TOKENS: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Short requests, computed at normal priority.
    Short,
    /// Short requests of owners that flood, computed at low priority: the requests of the other owners come first.
    Heavy,
    /// Long requests, computed at low priority.
    Long,
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Short, Self::Heavy, Self::Long];

    /// Lane of a request with so many tokens, if short requests of its owner are in the lane `short`.
    pub fn of(tokens: usize, short: Self) -> Self {
        if tokens > MAX_SHORT_REQUEST_TOKENS { Self::Long } else { short }
    }
}

/// Requests and workers of a lane.
#[derive(Default)]
pub struct LaneState {
    pub requests: RequestQueue,
    /// Estimated tokens of requests that are admitted and not queued yet.
    pub admitted_tokens: usize,
    /// Requests whose texts are being tokenized: they are queued in a moment.
    pub tokenizing: usize,
    /// Batches that are being computed.
    pub running_batches: usize,
    pub idle_workers: usize,
    pub throughput: Throughput,
}

impl LaneState {
    pub fn push(&mut self, owner: &Owner, entries: Vec<QueueEntry>, now: Instant) {
        if self.requests.is_empty() && self.running_batches == 0 {
            self.throughput.start(now);
        }
        self.requests.push(owner, entries);
    }

    /// Time until the requests that are admitted or queued now are computed.
    pub fn expected_wait(&self) -> Duration {
        self.throughput.time_for(self.waiting_tokens())
    }

    /// Time until those of one of `owners` owners are computed, who take turns.
    pub fn expected_wait_of(&self, owner: &Owner, owners: usize) -> Duration {
        let tokens = self.requests.owner_token_count(owner).saturating_mul(owners);
        self.throughput.time_for(tokens.min(self.waiting_tokens()))
    }

    fn waiting_tokens(&self) -> usize {
        self.admitted_tokens + self.requests.token_count()
    }
}

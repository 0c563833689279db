//! State of the prediction queue: its lanes, who may add to them, and when their next batch starts.

use super::lane::{Lane, LaneState};
use super::owner_queue::QueueEntry;
use super::request_queue::RequestQueue;
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::RETRY_AFTER;
use crate::serving::owners::{Owner, OwnerLoads};
use espalier_core::error::{Error, Result};
use std::time::{Duration, Instant};

/// The lane of short requests is congested when one waits for longer than this, and for some time after it.
pub const CONGESTION_WAIT: Duration = Duration::from_millis(10);
pub const CONGESTION_TIME: Duration = Duration::from_millis(200);

/// Maximum number of tokens in a batch of long requests during congestion.
pub const CONGESTION_BATCH_TOKENS: usize = 512;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_queued_inputs: usize,
    pub max_queue_wait: Duration,
    pub max_batch_tokens: usize,
    pub max_batch_delay: Duration,
}

/// Size of a request that is to be admitted.
#[derive(Debug, Clone, Copy)]
pub struct RequestSize {
    pub inputs: usize,
    /// Estimated before the texts are tokenized.
    pub tokens: usize,
}

pub struct State {
    lanes: [LaneState; 3],
    /// Inputs of requests that are admitted and not queued yet.
    pub admitted_inputs: usize,
    pub loads: OwnerLoads,
    /// End of the congestion of short requests.
    congested_until: Option<Instant>,
    next_request: u64,
    next_batch: u64,
    pub running: Vec<RunningBatch>,
    pub is_closed: bool,
}

/// A batch that is being computed.
pub struct RunningBatch {
    pub number: u64,
    pub inputs: usize,
    /// Those of neighbouring inputs once.
    pub adapters: Vec<AdapterHandle>,
}

impl State {
    pub fn new(limits: &Limits) -> Self {
        let lane = || LaneState { requests: RequestQueue::new(limits.max_batch_tokens), ..LaneState::default() };
        Self {
            lanes: [lane(), lane(), lane()],
            admitted_inputs: 0,
            loads: OwnerLoads::default(),
            congested_until: None,
            next_request: 0,
            next_batch: 0,
            running: Vec::new(),
            is_closed: false,
        }
    }

    pub fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    pub fn lanes(&self) -> &[LaneState] {
        &self.lanes
    }

    /// Lane of an owner's short requests: of several owners, one with several requests that uses most of the computation is heavy.
    pub fn short_lane(&self, owner: &Owner, now: Instant) -> Lane {
        let is_heavy = self.loads.uses_most(owner, now) && self.loads.in_flight(owner) > 0;
        if is_heavy { Lane::Heavy } else { Lane::Short }
    }

    /// Number of a new request.
    pub fn number_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// Records a batch and returns its number.
    pub fn start_batch(&mut self, entries: &[QueueEntry]) -> u64 {
        self.next_batch += 1;
        let runs = entries.chunk_by(|one, other| one.adapter == other.adapter);
        let adapters = runs.map(|run| run[0].adapter.clone()).collect();
        self.running.push(RunningBatch { number: self.next_batch, inputs: entries.len(), adapters });
        self.next_batch
    }

    /// Number of inputs admitted or queued.
    pub fn input_count(&self) -> usize {
        self.admitted_inputs + self.lanes.iter().map(|lane| lane.requests.input_count()).sum::<usize>()
    }

    /// Whether an owner may add a request to a lane. An owner without inputs may add any request, and an owner with less than an equal
    /// share of the queue, and of the work of the lane, may add to its share even if others fill the rest.
    ///
    /// # Errors
    /// `Busy` (`predictions_queue_full`).
    pub fn check_capacity(&self, owner: &Owner, lane: Lane, size: RequestSize, limits: &Limits) -> Result<()> {
        let queued = self.input_count();
        let is_full = queued > 0 && queued + size.inputs > limits.max_queued_inputs;
        if is_full && !self.has_share(owner, size.inputs, limits) {
            let detail = format!("{queued} inputs are waiting for predictions already: try again in a moment");
            return Err(Error::busy("predictions_queue_full", detail, RETRY_AFTER));
        }
        let (lane, owners) = (&self.lanes[lane as usize], self.loads.active_with(owner));
        let expected_wait = match owners {
            1 => lane.expected_wait(),
            _ => lane.expected_wait_of(owner, owners),
        };
        if expected_wait > limits.max_queue_wait {
            let detail = format!(
                "requests of this size wait for about {} seconds now: try again later",
                expected_wait.as_secs_f64().ceil()
            );
            return Err(Error::busy("predictions_queue_full", detail, expected_wait - limits.max_queue_wait));
        }
        Ok(())
    }

    /// Whether an owner has room for so many inputs in its share of the queue.
    fn has_share(&self, owner: &Owner, inputs: usize, limits: &Limits) -> bool {
        let (own, owners) = (self.loads.in_flight(owner), self.loads.active_with(owner));
        owners > 1 && (own == 0 || own + inputs <= limits.max_queued_inputs / owners)
    }

    /// Time for which the next batch of a lane waits. Notes whether short requests are congested.
    pub fn batch_delay(
        &mut self,
        lane: Lane,
        oldest_enqueued_at: Instant,
        not_before: Instant,
        now: Instant,
        limits: &Limits,
    ) -> Option<Duration> {
        if self.is_closed {
            return None;
        }
        if lane == Lane::Short && now - oldest_enqueued_at > CONGESTION_WAIT {
            self.congested_until = Some(now + CONGESTION_TIME);
        }
        let until = match lane {
            Lane::Short | Lane::Heavy => {
                // A batch waits only if it has room and another request is about to be queued: a lone request is never delayed.
                let state = self.lane(lane);
                let has_room = state.requests.token_count() < limits.max_batch_tokens;
                (state.tokenizing > 0 && has_room).then_some(oldest_enqueued_at + limits.max_batch_delay)
            }
            Lane::Long => self.congested_until.map(|congested_until| congested_until.min(not_before)),
        };
        until.and_then(|until| until.checked_duration_since(now)).filter(|delay| !delay.is_zero())
    }

    pub fn max_batch_tokens(&self, lane: Lane, now: Instant, limits: &Limits) -> usize {
        match lane == Lane::Long && self.congested_until.is_some_and(|until| now < until) {
            true => limits.max_batch_tokens.min(CONGESTION_BATCH_TOKENS),
            false => limits.max_batch_tokens,
        }
    }
}

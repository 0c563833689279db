//! Queue of sequences, and the running sequences.
//!
//! Every KV block is counted once: those of the prefix cache there, however many sequences share them, and a sequence
//! reserves the others that it may need.
//!
//! A free slot goes to the owner with the fewest running sequences. The sequences of an owner that floods are in a lane of their own,
//! whose threads have a low priority, so that they delay the steps of the other owners little.

use super::memory_budget::MemoryBudget;
use super::metrics::GenerationMetrics;
use super::reservation::Reservation;
use super::sequence::SequenceState;
use super::sequence_lane::{InStep, Lane, SequenceLane};
use super::sequence_queue::SequenceQueue;
use super::settings::{Settings, Stats};
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::{RETRY_AFTER, shutting_down};
use crate::serving::owners::{Owner, OwnerLoads};
use espalier_core::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Queue of sequences and the set of running ones, within the KV cache's memory budget.
pub struct Scheduler {
    queued: SequenceQueue,
    /// Sequences of admitted requests that are being tokenized, by owner.
    admitted: HashMap<Owner, usize>,
    lanes: [SequenceLane; 2],
    loads: OwnerLoads,
    memory: MemoryBudget,
    max_queued_sequences: usize,
    max_running_sequences: usize,
    pub counters: Stats,
    pub metrics: GenerationMetrics,
    last_arrival: u64,
    pub is_closed: bool,
    pub is_aborted: bool,
}

/// Result of an attempt to start a sequence of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartOutcome {
    Started,
    /// All of the owner's sequences wait for a prefix that a running sequence computes.
    WaitsForPrefix,
    NoMemory,
}

impl Scheduler {
    pub fn new(settings: &Settings, block_bytes: usize) -> Self {
        Self {
            queued: SequenceQueue::default(),
            admitted: HashMap::new(),
            lanes: Default::default(),
            loads: OwnerLoads::default(),
            memory: MemoryBudget::new(settings, block_bytes),
            max_queued_sequences: settings.max_queued_sequences,
            max_running_sequences: settings.max_running_sequences.max(1),
            counters: Stats::default(),
            metrics: GenerationMetrics::default(),
            last_arrival: 0,
            is_closed: false,
            is_aborted: false,
        }
    }

    /// KV blocks of one sequence, at most.
    pub fn max_blocks(&self) -> usize {
        self.memory.max_blocks
    }

    pub fn lane(&mut self, lane: Lane) -> &mut SequenceLane {
        &mut self.lanes[lane as usize]
    }

    /// Whether no sequence is left to compute.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.lanes.iter().all(|lane| lane.len() == 0)
    }

    pub fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    pub fn stats(&self) -> Stats {
        self.memory.add_to(Stats {
            running_sequences: self.lanes.iter().map(SequenceLane::len).sum::<usize>() as u64,
            queued_sequences: self.queued.len() as u64,
            admitted_sequences: self.admitted.values().sum::<usize>() as u64,
            ..self.counters
        })
    }

    /// Adapters of the running sequences, including those in the current step.
    pub fn running_adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.lanes.iter().flat_map(SequenceLane::adapters)
    }

    pub fn queued_adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.queued.iter().map(|sequence| &sequence.adapter)
    }

    /// Admits sequences of an owner: as many as the queue has room for, or any number if no other sequence waits. An owner without
    /// sequences that wait may add any number, and one with less than an equal share of the queue may add to its share, even if others
    /// fill the rest.
    ///
    /// # Errors
    /// `Busy`: `generation_queue_full`, or `shutting_down`.
    pub fn admit(&mut self, owner: &Owner, sequences: usize) -> Result<()> {
        if self.is_closed {
            return Err(shutting_down());
        }
        let waiting = self.admitted.values().sum::<usize>() + self.queued.len();
        if waiting > 0 && waiting + sequences > self.max_queued_sequences && !self.has_share(owner, sequences) {
            let detail = format!("{waiting} sequences are waiting to be generated: try again in a moment");
            return Err(Error::busy("generation_queue_full", detail, RETRY_AFTER));
        }
        *self.admitted.entry(Owner::clone(owner)).or_default() += sequences;
        Ok(())
    }

    /// Whether an owner has room for so many sequences in its share of the queue.
    fn has_share(&self, owner: &Owner, sequences: usize) -> bool {
        let own = self.admitted.get(owner).copied().unwrap_or(0) + self.queued.len_of(owner);
        let running = self.lanes.iter().flat_map(SequenceLane::owners);
        let owners: HashSet<&Owner> =
            self.admitted.keys().chain(self.queued.owners()).chain(running).chain([owner]).collect();
        owners.len() > 1 && (own == 0 || own + sequences <= self.max_queued_sequences / owners.len())
    }

    /// The sequences of an admitted request are queued, or the request has failed.
    pub fn end_admission(&mut self, owner: &Owner, sequences: usize) {
        if let Some(admitted) = self.admitted.get_mut(owner) {
            *admitted -= sequences;
            if *admitted == 0 {
                self.admitted.remove(owner);
            }
        }
    }

    pub fn push(&mut self, owner: &Owner, mut sequence: SequenceState) {
        self.last_arrival += 1;
        sequence.arrival_order = self.last_arrival;
        sequence.owner = Owner::clone(owner);
        self.loads.start(owner, 0, Instant::now());
        self.queued.push(sequence);
    }

    /// Ends all streams with `Busy` (`shutting_down`), also those of the current steps, without waiting for them.
    pub fn abort(&mut self) {
        (self.is_closed, self.is_aborted) = (true, true);
        for sequence in self.lanes.iter().flat_map(|lane| &lane.in_step) {
            // Fails when the stream was dropped.
            let _ = sequence.output_tx.send(Err(shutting_down()));
        }
        let running = self.lanes.iter_mut().flat_map(|lane| &mut lane.running);
        self.queued.iter_mut().chain(running).for_each(|sequence| sequence.fail(shutting_down()));
    }

    /// Removes all sequences that are not in a step, which closes their streams.
    pub fn clear(&mut self) {
        self.queued.clear();
        Lane::ALL.into_iter().for_each(|lane| drop(self.remove_running(lane, |_| true)));
    }

    /// Removes running sequences of a lane that are not in a step, and releases their memory.
    fn remove_running(&mut self, lane: Lane, condition: impl Fn(&SequenceState) -> bool) -> Vec<SequenceState> {
        let removed = self.lane(lane).remove_if(condition);
        self.memory.release(lane, removed.iter().map(SequenceState::reservation).sum());
        removed
    }

    /// Lane of an owner: of several owners, one with several sequences that uses most of the computation is heavy.
    fn lane_of(&self, owner: &Owner, now: Instant) -> Lane {
        if !self.loads.uses_most(owner, now) {
            return Lane::Normal;
        }
        let running = self.lanes.iter().flat_map(SequenceLane::owners).filter(|other| *other == owner).count();
        if running + self.queued.len_of(owner) > 1 { Lane::Heavy } else { Lane::Normal }
    }

    /// Moves the sequences of a lane whose owner belongs to the other lane now.
    fn move_to_other_lane(&mut self, lane: Lane, now: Instant) {
        if !self.loads.has_several() {
            return;
        }
        let mut owners: HashSet<Owner> = self.lane(lane).running.iter().map(|one| Owner::clone(&one.owner)).collect();
        owners.retain(|owner| self.lane_of(owner, now) != lane);
        for owner in owners {
            let moved = self.remove_running(lane, |sequence| sequence.owner == owner);
            self.memory.add(lane.other(), moved.iter().map(SequenceState::reservation).sum());
            moved.into_iter().for_each(|sequence| self.lane(lane.other()).insert(sequence));
        }
    }

    /// Removes cancelled sequences and starts queued ones of a lane while memory is available. The next one belongs to the owner with the
    /// fewest running sequences. A sequence whose prefix is being computed by a running one waits for that prefix.
    pub fn start_queued(&mut self, lane: Lane) {
        let now = Instant::now();
        self.queued.remove_cancelled();
        drop(self.remove_running(lane, |sequence| !sequence.has_receiver()));
        self.move_to_other_lane(lane, now);
        self.lane(lane).lacks_memory = false;
        if lane == Lane::Heavy && self.lane(Lane::Normal).lacks_memory {
            return;
        }
        let mut owners: Vec<Owner> =
            self.queued.owners().filter(|owner| self.lane_of(owner, now) == lane).cloned().collect();
        while self.lane(lane).running.len() < self.max_running_sequences
            && let Some(index) = self.fewest_running(lane, &owners)
        {
            match self.start_next_of(&owners[index], lane) {
                StartOutcome::Started if self.queued.len_of(&owners[index]) > 0 => {
                    let owner = owners.remove(index);
                    owners.push(owner);
                }
                StartOutcome::Started | StartOutcome::WaitsForPrefix => drop(owners.remove(index)),
                StartOutcome::NoMemory => {
                    self.lane(lane).lacks_memory = true;
                    return;
                }
            }
        }
    }

    /// Index of the first owner with the fewest running sequences in a lane.
    fn fewest_running(&self, lane: Lane, owners: &[Owner]) -> Option<usize> {
        let running = |owner: &Owner| self.lanes[lane as usize].owners().filter(|other| *other == owner).count();
        match owners {
            [] => None,
            [_] => Some(0),
            _ => (0..owners.len()).min_by_key(|index| running(&owners[*index])),
        }
    }

    /// Starts the first queued sequence of an owner that waits for no prefix.
    fn start_next_of(&mut self, owner: &Owner, lane: Lane) -> StartOutcome {
        let running = &self.lanes[lane as usize];
        let is_ready = |candidate: &SequenceState| !running.computes_prefix_of(candidate);
        let position = self.queued.sequences_of(owner).and_then(|sequences| sequences.iter().position(is_ready));
        let Some((mut sequence, position)) =
            position.and_then(|position| Some((self.queued.remove(owner, position)?, position)))
        else {
            return StartOutcome::WaitsForPrefix;
        };
        // Before the reservation, which evicts the least recently used blocks.
        let cached_tokens = sequence.resume_from_cached_prefix(&mut self.memory.prefix_cache);
        if !self.memory.reserve(lane, sequence.reservation()) {
            sequence.forget_prefix();
            self.queued.reinsert(sequence, position);
            return StartOutcome::NoMemory;
        }
        self.queued.end_turn(owner);
        self.counters.prefix_cache_hit_tokens += cached_tokens as u64;
        self.counters.prompt_tokens += sequence.prompt_ids().len() as u64;
        sequence.start_prefill(cached_tokens, &self.metrics);
        self.lane(lane).insert(sequence);
        StartOutcome::Started
    }

    /// Takes the running sequences of a lane for a step.
    pub fn take_running(&mut self, lane: Lane) -> Vec<SequenceState> {
        self.counters.steps += 1;
        std::mem::take(&mut self.lane(lane).running)
    }

    /// Records the sequences that a step computes, and keeps the others.
    pub fn start_step<'a>(
        &mut self,
        lane: Lane,
        in_step: impl Iterator<Item = &'a SequenceState>,
        unscheduled: Vec<SequenceState>,
    ) {
        let lane = self.lane(lane);
        (lane.running, lane.in_step) = (unscheduled, in_step.map(InStep::new).collect());
    }

    /// Takes the sequences of a step back, after their full blocks were given to the prefix cache. `reserved` is the
    /// reservation of all sequences of the step before it; that of lost and finished ones is released.
    pub fn return_from_step(
        &mut self,
        lane: Lane,
        sequences: impl IntoIterator<Item = SequenceState>,
        reserved: Reservation,
    ) {
        let now = Instant::now();
        self.memory.release(lane, reserved);
        self.lane(lane).in_step.clear();
        for mut sequence in sequences {
            sequence.end_step(&self.metrics);
            let computed_tokens = sequence.count_computed_tokens();
            self.loads.record(&sequence.owner, computed_tokens, now);
            sequence.cache_prefix(&mut self.memory.prefix_cache);
            if !sequence.is_finished() {
                self.memory.add(lane, sequence.reservation());
                self.lane(lane).insert(sequence);
            }
        }
        self.memory.evict_excess();
    }
}

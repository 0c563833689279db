//! Memory of running sequences: the KV blocks and constraint bytes reserved for each lane, and the prefix cache.

use super::prefix_cache::PrefixCache;
use super::reservation::Reservation;
use super::sequence_lane::Lane;
use super::settings::{Settings, Stats};

/// One part in so many of the memory is not for sequences of owners that flood, so that those of others can start at once.
const RESERVE_FRACTION: usize = 8;

/// Memory within the budgets of the settings.
pub struct MemoryBudget {
    pub prefix_cache: PrefixCache,
    /// Memory of each lane's sequences, including those in the current step.
    reserved: [Reservation; 2],
    pub max_blocks: usize,
    max_constraint_bytes: u64,
    block_bytes: usize,
}

impl MemoryBudget {
    pub fn new(settings: &Settings, block_bytes: usize) -> Self {
        Self {
            prefix_cache: PrefixCache::default(),
            reserved: Default::default(),
            max_blocks: (settings.kv_cache_bytes as usize / block_bytes).max(1),
            max_constraint_bytes: settings.constraint_bytes,
            block_bytes,
        }
    }

    /// Counters with the gauges of memory.
    pub fn add_to(&self, counters: Stats) -> Stats {
        let reserved = self.reserved();
        Stats {
            used_blocks: (reserved.kv_blocks + self.prefix_cache.pinned_blocks()) as u64,
            max_blocks: self.max_blocks as u64,
            reserved_blocks: reserved.kv_blocks as u64,
            kv_cache_reserved_bytes: ((reserved.kv_blocks + self.prefix_cache.len()) * self.block_bytes) as u64,
            ..counters
        }
    }

    /// Reserves memory, evicting unused blocks of the prefix cache if necessary. Returns false if the budget is exceeded.
    pub fn reserve(&mut self, lane: Lane, wanted: Reservation) -> bool {
        let reserved = self.reserved();
        let total = reserved + wanted;
        // A constraint that alone exceeds the budget runs alone.
        let has_constraint_room = total.constraint_bytes <= self.max_constraint_bytes || reserved.constraint_bytes == 0;
        if !has_constraint_room && wanted.constraint_bytes > 0 {
            return false;
        }
        if lane == Lane::Heavy && !self.has_heavy_room(wanted) {
            return false;
        }
        let is_full = |cached_blocks: usize| total.kv_blocks + cached_blocks > self.max_blocks;
        if is_full(self.prefix_cache.len()) && is_full(self.prefix_cache.pinned_blocks()) {
            return false;
        }
        self.add(lane, wanted);
        self.evict_excess();
        true
    }

    /// Whether the heavy lane has room without the part of the memory that is not for it. A sequence that needs more runs alone.
    fn has_heavy_room(&self, wanted: Reservation) -> bool {
        let reserved = self.reserved[Lane::Heavy as usize];
        let total = reserved + wanted;
        let max_blocks = self.max_blocks - self.max_blocks / RESERVE_FRACTION;
        let max_bytes = self.max_constraint_bytes - self.max_constraint_bytes / RESERVE_FRACTION as u64;
        (total.kv_blocks <= max_blocks || reserved.kv_blocks == 0)
            && (total.constraint_bytes <= max_bytes || reserved.constraint_bytes == 0 || wanted.constraint_bytes == 0)
    }

    /// Counts memory that a lane's sequences hold already.
    pub fn add(&mut self, lane: Lane, held: Reservation) {
        self.reserved[lane as usize] = self.reserved[lane as usize] + held;
    }

    pub fn release(&mut self, lane: Lane, held: Reservation) {
        self.reserved[lane as usize] = self.reserved[lane as usize] - held;
    }

    /// Evicts blocks of the prefix cache until all memory is within the budget.
    pub fn evict_excess(&mut self) {
        while self.reserved().kv_blocks + self.prefix_cache.len() > self.max_blocks && self.prefix_cache.evict_lru() {}
    }

    fn reserved(&self) -> Reservation {
        self.reserved.into_iter().sum()
    }
}

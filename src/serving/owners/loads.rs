//! Load of each owner: requests in flight, and the tokens of the last seconds.

use super::Owner;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A token counts half after this time.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// An owner is forgotten so long after its last request.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Owners that are idle for too long are looked for this often.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

/// Share of all recent tokens up to which an owner's load is light. Of several owners with equal loads all are light or none is.
const LIGHT_SHARE: f64 = 0.25;

/// Loads of the owners with recent requests.
#[derive(Default)]
pub struct OwnerLoads {
    owners: HashMap<Owner, OwnerLoad>,
    total: RecentTokens,
    /// Number of owners with something in flight.
    active: usize,
    next_cleanup: Option<Instant>,
}

#[derive(Default)]
struct OwnerLoad {
    /// Inputs or sequences from their admission to their end.
    in_flight: usize,
    tokens: RecentTokens,
}

/// Sum of tokens that decays exponentially.
#[derive(Default, Clone, Copy)]
struct RecentTokens {
    tokens: f64,
    counted_at: Option<Instant>,
}

impl RecentTokens {
    fn at(&self, now: Instant) -> f64 {
        let Some(counted_at) = self.counted_at else { return 0.0 };
        self.tokens * (-now.duration_since(counted_at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn add(&mut self, tokens: usize, now: Instant) {
        *self = Self { tokens: self.at(now) + tokens as f64, counted_at: Some(now) };
    }
}

impl OwnerLoads {
    /// Counts inputs or sequences of an admitted request.
    pub fn start(&mut self, owner: &Owner, count: usize, now: Instant) {
        self.forget_idle(now);
        let load = self.owners.entry(Owner::clone(owner)).or_default();
        self.active += usize::from(load.in_flight == 0 && count > 0);
        load.in_flight += count;
        // Keeps the owner known, also if the request fails before its tokens are counted.
        load.tokens.add(0, now);
    }

    /// Inputs or sequences have ended or were cancelled.
    pub fn finish(&mut self, owner: &Owner, count: usize) {
        if let Some(load) = self.owners.get_mut(owner) {
            load.in_flight -= count;
            self.active -= usize::from(load.in_flight == 0 && count > 0);
        }
    }

    /// Counts the tokens of a request.
    pub fn record(&mut self, owner: &Owner, tokens: usize, now: Instant) {
        if let Some(load) = self.owners.get_mut(owner) {
            self.total.add(tokens, now);
            load.tokens.add(tokens, now);
        }
    }

    /// Inputs or sequences of an owner in flight.
    pub fn in_flight(&self, owner: &Owner) -> usize {
        self.owners.get(owner).map_or(0, |load| load.in_flight)
    }

    /// Number of owners with something in flight, and this owner.
    pub fn active_with(&self, owner: &Owner) -> usize {
        self.active + usize::from(self.in_flight(owner) == 0)
    }

    /// Whether there are several owners.
    pub fn has_several(&self) -> bool {
        self.owners.len() > 1
    }

    /// Whether an owner used more than [`LIGHT_SHARE`] of the recent tokens, while there are other owners.
    pub fn uses_most(&self, owner: &Owner, now: Instant) -> bool {
        self.has_several()
            && self.owners.get(owner).is_some_and(|load| load.tokens.at(now) > LIGHT_SHARE * self.total.at(now))
    }

    fn forget_idle(&mut self, now: Instant) {
        if self.next_cleanup.is_none_or(|at| at <= now) {
            self.next_cleanup = Some(now + CLEANUP_INTERVAL);
            self.owners.retain(|_, load| {
                let idle = load.tokens.counted_at.map(|counted_at| now.duration_since(counted_at));
                load.in_flight > 0 || idle.is_some_and(|idle| idle < MAX_IDLE)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner::from(name)
    }

    /// An owner with a request in flight that used so many tokens.
    fn add(loads: &mut OwnerLoads, name: &str, tokens: usize, now: Instant) {
        loads.start(&owner(name), 1, now);
        loads.record(&owner(name), tokens, now);
    }

    #[test]
    fn an_owner_alone_is_light() {
        let (mut loads, now) = (OwnerLoads::default(), Instant::now());
        add(&mut loads, "a", 1_000_000, now);
        assert!(!loads.uses_most(&owner("a"), now));
    }

    #[test]
    fn the_owner_of_a_flood_uses_most() {
        let (mut loads, now) = (OwnerLoads::default(), Instant::now());
        add(&mut loads, "a", 1000, now);
        add(&mut loads, "b", 10, now);
        assert!(loads.uses_most(&owner("a"), now) && !loads.uses_most(&owner("b"), now));
        assert!(!loads.uses_most(&owner("new"), now));
    }

    #[test]
    fn many_owners_with_equal_loads_are_light() {
        let (mut loads, now) = (OwnerLoads::default(), Instant::now());
        for name in ["a", "b", "c", "d", "e"] {
            add(&mut loads, name, 1000, now);
        }
        assert!(!loads.uses_most(&owner("a"), now));
        add(&mut loads, "a", 4000, now);
        assert!(loads.uses_most(&owner("a"), now));
    }

    #[test]
    fn use_is_forgotten_with_time() {
        let (mut loads, start) = (OwnerLoads::default(), Instant::now());
        add(&mut loads, "a", 1000, start);
        let later = start + 10 * HALF_LIFE;
        add(&mut loads, "b", 100, later);
        assert!(!loads.uses_most(&owner("a"), later) && loads.uses_most(&owner("b"), later));
        loads.finish(&owner("b"), 1);
        loads.start(&owner("a"), 1, later + MAX_IDLE);
        assert_eq!(loads.owners.len(), 1, "b is forgotten");
    }

    #[test]
    fn active_owners_are_counted() {
        let (mut loads, now) = (OwnerLoads::default(), Instant::now());
        loads.start(&owner("a"), 2, now);
        loads.start(&owner("a"), 1, now);
        assert_eq!((loads.active_with(&owner("a")), loads.active_with(&owner("b"))), (1, 2));
        loads.finish(&owner("a"), 2);
        assert_eq!((loads.active_with(&owner("b")), loads.in_flight(&owner("a"))), (2, 1));
        loads.finish(&owner("a"), 1);
        assert_eq!(loads.active_with(&owner("b")), 1);
    }
}

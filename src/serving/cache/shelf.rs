//! The values that are kept, least recently used out first, never while somebody holds them.
//!
//! Knows nothing of loading or threads.

use std::collections::HashMap;
use std::sync::Arc;

pub struct Shelf<V> {
    kept: HashMap<String, Kept<V>>,
    budget: u64,
    bytes: u64,
    /// Counts uses; the smallest `used` is the least recent.
    clock: u64,
    evictions: u64,
}

struct Kept<V> {
    value: Arc<V>,
    bytes: u64,
    used: u64,
}

impl<V> Shelf<V> {
    pub fn new(budget: u64) -> Self {
        Self { kept: HashMap::new(), budget, bytes: 0, clock: 0, evictions: 0 }
    }

    pub fn get(&mut self, version: &str) -> Option<Arc<V>> {
        self.clock += 1;
        let kept = self.kept.get_mut(version)?;
        kept.used = self.clock;
        let value = Arc::clone(&kept.value);
        // What was pinned when the shelf was too full may be free by now.
        self.trim();
        Some(value)
    }

    pub fn put(&mut self, version: &str, value: &Arc<V>, bytes: u64) {
        if bytes > self.budget {
            tracing::warn!(version, bytes, budget = self.budget, "adapter larger than the cache: loaded for each use");
            return;
        }
        self.clock += 1;
        self.remove(version);
        self.kept.insert(version.to_string(), Kept { value: Arc::clone(value), bytes, used: self.clock });
        self.bytes += bytes;
        self.trim();
    }

    pub fn remove(&mut self, version: &str) {
        if let Some(kept) = self.kept.remove(version) {
            self.bytes -= kept.bytes;
        }
    }

    pub fn len(&self) -> u64 {
        self.kept.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The shelf's own is the only `Arc` of a value that nobody uses, and only the shelf makes new ones from it.
    fn trim(&mut self) {
        while self.bytes > self.budget {
            let unused = self.kept.iter().filter(|(_, kept)| Arc::strong_count(&kept.value) == 1);
            let Some((version, _)) = unused.min_by_key(|(_, kept)| kept.used) else { return };
            let version = version.clone();
            self.remove(&version);
            self.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(shelf: &mut Shelf<u8>, version: &str, bytes: u64) -> Arc<u8> {
        let value = Arc::new(0);
        shelf.put(version, &value, bytes);
        value
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut shelf = Shelf::new(100);
        for version in ["a", "b"] {
            drop(put(&mut shelf, version, 40));
        }
        drop(shelf.get("a"));
        drop(put(&mut shelf, "c", 40));
        assert!(shelf.get("b").is_none(), "a was used since");
        assert!(shelf.get("a").is_some() && shelf.get("c").is_some());
        assert_eq!((shelf.bytes(), shelf.len(), shelf.evictions()), (80, 2, 1));
    }

    #[test]
    fn a_pinned_value_stays_until_it_is_let_go() {
        let mut shelf = Shelf::new(100);
        let pinned = put(&mut shelf, "pinned", 60);
        let other = put(&mut shelf, "other", 60);
        assert_eq!(shelf.bytes(), 120, "both are in use");
        drop(pinned);
        assert!(shelf.get("other").is_some(), "any use looks again");
        assert!(shelf.get("pinned").is_none());
        assert_eq!(shelf.bytes(), 60);
        drop(other);
    }

    #[test]
    fn a_value_larger_than_the_budget_is_not_kept_and_puts_nobody_out() {
        let mut shelf = Shelf::new(100);
        drop(put(&mut shelf, "small", 100));
        drop(put(&mut shelf, "large", 101));
        assert!(shelf.get("small").is_some());
        assert!(shelf.get("large").is_none());
    }

    #[test]
    fn putting_a_version_again_does_not_count_it_twice() {
        let mut shelf = Shelf::new(100);
        drop(put(&mut shelf, "a", 40));
        drop(put(&mut shelf, "a", 50));
        assert_eq!((shelf.bytes(), shelf.len()), (50, 1));
    }
}

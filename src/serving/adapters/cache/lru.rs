//! The values that are kept, least recently used out first, never while somebody holds them.
//!
//! Knows nothing of loading or threads.

use std::collections::HashMap;
use std::sync::Arc;

pub struct LruMap<V> {
    entries: HashMap<String, Entry<V>>,
    capacity_bytes: u64,
    bytes: u64,
    /// Counts uses; the smallest `used` is the least recent.
    clock: u64,
    evictions: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    last_used: u64,
}

impl<V> LruMap<V> {
    pub fn new(capacity_bytes: u64) -> Self {
        Self { entries: HashMap::new(), capacity_bytes, bytes: 0, clock: 0, evictions: 0 }
    }

    pub fn get(&mut self, version: &str) -> Option<Arc<V>> {
        self.clock += 1;
        let entry = self.entries.get_mut(version)?;
        entry.last_used = self.clock;
        let value = Arc::clone(&entry.value);
        // What was pinned when the shelf was too full may be free by now.
        self.evict();
        Some(value)
    }

    pub fn insert(&mut self, version: &str, value: &Arc<V>, bytes: u64) {
        if bytes > self.capacity_bytes {
            tracing::warn!(
                version,
                bytes,
                budget = self.capacity_bytes,
                "adapter larger than the cache: loaded for each use"
            );
            return;
        }
        self.clock += 1;
        self.remove(version);
        self.entries.insert(version.to_string(), Entry { value: Arc::clone(value), bytes, last_used: self.clock });
        self.bytes += bytes;
        self.evict();
    }

    pub fn remove(&mut self, version: &str) {
        if let Some(entry) = self.entries.remove(version) {
            self.bytes -= entry.bytes;
        }
    }

    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The shelf's own is the only `Arc` of a value that nobody uses, and only the shelf makes new ones from it.
    fn evict(&mut self) {
        while self.bytes > self.capacity_bytes {
            let evictable = self.entries.iter().filter(|(_, kept)| Arc::strong_count(&kept.value) == 1);
            let Some((version, _)) = evictable.min_by_key(|(_, entry)| entry.last_used) else { return };
            let version = version.clone();
            self.remove(&version);
            self.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(lru: &mut LruMap<u8>, version: &str, bytes: u64) -> Arc<u8> {
        let value = Arc::new(0);
        lru.insert(version, &value, bytes);
        value
    }

    #[test]
    fn the_least_recently_used_is_evicted_first() {
        let mut lru = LruMap::new(100);
        for version in ["a", "b"] {
            drop(insert(&mut lru, version, 40));
        }
        drop(lru.get("a"));
        drop(insert(&mut lru, "c", 40));
        assert!(lru.get("b").is_none(), "a was used since");
        assert!(lru.get("a").is_some() && lru.get("c").is_some());
        assert_eq!((lru.bytes(), lru.len(), lru.evictions()), (80, 2, 1));
    }

    #[test]
    fn a_pinned_value_is_not_evicted_until_it_is_released() {
        let mut lru = LruMap::new(100);
        let pinned = insert(&mut lru, "pinned", 60);
        let other = insert(&mut lru, "other", 60);
        assert_eq!(lru.bytes(), 120, "both are in use");
        drop(pinned);
        assert!(lru.get("other").is_some(), "any use looks again");
        assert!(lru.get("pinned").is_none());
        assert_eq!(lru.bytes(), 60);
        drop(other);
    }

    #[test]
    fn a_value_larger_than_the_capacity_is_not_cached_and_evicts_nothing() {
        let mut lru = LruMap::new(100);
        drop(insert(&mut lru, "small", 100));
        drop(insert(&mut lru, "large", 101));
        assert!(lru.get("small").is_some());
        assert!(lru.get("large").is_none());
    }

    #[test]
    fn inserting_a_version_again_does_not_count_its_bytes_twice() {
        let mut lru = LruMap::new(100);
        drop(insert(&mut lru, "a", 40));
        drop(insert(&mut lru, "a", 50));
        assert_eq!((lru.bytes(), lru.len()), (50, 1));
    }
}

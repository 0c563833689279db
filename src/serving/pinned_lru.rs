//! LRU map with a byte budget. Values in use are pinned: they are never evicted, and loads wait while pinned values fill the
//! budget.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Longest time to wait for room before a load is given up.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

pub struct PinnedLru<V> {
    state: Mutex<State<V>>,
    /// Notified when a value is released or a load ends.
    room_changed: Notify,
}

struct State<V> {
    entries: HashMap<String, Entry<V>>,
    /// Values in use that are not cached: larger than the budget, or removed.
    uncached: Vec<UncachedValue<V>>,
    capacity_bytes: u64,
    /// Bytes of `entries`.
    bytes: u64,
    /// Size of the largest value so far; the assumed size of values that are being loaded.
    largest_bytes: u64,
    /// Values being loaded.
    loads: u64,
    /// Number of uses so far; `Entry::last_used` is a value of it.
    clock: u64,
    evictions: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    last_used: u64,
}

struct UncachedValue<V> {
    /// `None` for a value that was removed.
    key: Option<String>,
    value: Weak<V>,
    bytes: u64,
}

/// A value in use; clones share it. The map is trimmed to its budget when the last clone is dropped.
#[derive(Debug)]
pub struct Pinned<V> {
    // Dropped before the pin, so that the value counts as unused when the map is trimmed.
    value: Arc<V>,
    _pin: Option<Arc<Pin<V>>>,
}

struct Pin<V>(Arc<PinnedLru<V>>);

impl<V> fmt::Debug for Pin<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Pin")
    }
}

/// Room for a value that is being loaded, until it is dropped.
pub struct LoadSlot<V>(Arc<PinnedLru<V>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub entries: u64,
    /// Bytes of cached values, and of others that are in use.
    pub bytes: u64,
    pub evictions: u64,
}

impl<V> PinnedLru<V> {
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        let state = State {
            entries: HashMap::new(),
            uncached: Vec::new(),
            capacity_bytes,
            bytes: 0,
            largest_bytes: 0,
            loads: 0,
            clock: 0,
            evictions: 0,
        };
        Arc::new(Self { state: Mutex::new(state), room_changed: Notify::new() })
    }

    pub fn get(self: &Arc<Self>, key: &str) -> Option<Pinned<V>> {
        let value = self.lock().get(key)?;
        Some(self.pin(value))
    }

    /// Inserts a value of this size. A value larger than the budget is shared while it is in use, and not kept after it.
    pub fn insert(self: &Arc<Self>, key: &str, value: V, bytes: u64) -> Pinned<V> {
        let value = Arc::new(value);
        let mut state = self.lock();
        state.insert(key, &value, bytes);
        drop(state);
        self.pin(value)
    }

    /// Counts a value that is not inserted, while it is in use.
    pub fn pin_uncached(self: &Arc<Self>, value: V, bytes: u64) -> Pinned<V> {
        let value = Arc::new(value);
        self.lock().add_uncached(None, &value, bytes);
        self.pin(value)
    }

    /// Removes a value; its users keep it.
    pub fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Waits until the values in use and being loaded leave room for another one; `None` if they do not in time. So they exceed
    /// the budget by one value at most.
    pub async fn wait_for_room(self: &Arc<Self>) -> Option<LoadSlot<V>> {
        let deadline = Instant::now() + ROOM_TIMEOUT;
        loop {
            let mut room_changed = pin!(self.room_changed.notified());
            room_changed.as_mut().enable();
            if self.lock().start_load() {
                return Some(LoadSlot(Arc::clone(self)));
            }
            timeout_at(deadline, room_changed).await.ok()?;
        }
    }

    pub fn stats(&self) -> Stats {
        let state = self.lock();
        let uncached_bytes: u64 = state.uncached_in_use().map(|value| value.bytes).sum();
        Stats { entries: state.entries.len() as u64, bytes: state.bytes + uncached_bytes, evictions: state.evictions }
    }

    fn pin(self: &Arc<Self>, value: Arc<V>) -> Pinned<V> {
        Pinned { value, _pin: Some(Arc::new(Pin(Arc::clone(self)))) }
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn get(&mut self, key: &str) -> Option<Arc<V>> {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.last_used = self.clock;
            return Some(Arc::clone(&entry.value));
        }
        self.uncached.iter().find(|value| value.key.as_deref() == Some(key))?.value.upgrade()
    }

    fn insert(&mut self, key: &str, value: &Arc<V>, bytes: u64) {
        self.remove(key);
        self.largest_bytes = self.largest_bytes.max(bytes);
        if bytes > self.capacity_bytes {
            self.add_uncached(Some(key.to_string()), value, bytes);
            return;
        }
        self.clock += 1;
        self.entries.insert(key.to_string(), Entry { value: Arc::clone(value), bytes, last_used: self.clock });
        self.bytes += bytes;
        self.trim();
    }

    fn add_uncached(&mut self, key: Option<String>, value: &Arc<V>, bytes: u64) {
        self.uncached.retain(|value| value.value.strong_count() > 0);
        self.uncached.push(UncachedValue { key, value: Arc::downgrade(value), bytes });
    }

    fn remove(&mut self, key: &str) {
        for uncached in &mut self.uncached {
            uncached.key.take_if(|known| known == key);
        }
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            self.add_uncached(None, &entry.value, entry.bytes);
        }
    }

    /// Evicts unused values until the budget holds, the least recently used first. A strong count of 1 proves that a value is
    /// unused: only this map makes new references to it, and it is borrowed mutably here.
    fn trim(&mut self) {
        while self.bytes > self.capacity_bytes {
            let evictable = self.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.value) == 1);
            let Some((key, _)) = evictable.min_by_key(|(_, entry)| entry.last_used) else { return };
            let key = key.clone();
            if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= entry.bytes;
                self.evictions += 1;
            }
        }
    }

    fn uncached_in_use(&self) -> impl Iterator<Item = &UncachedValue<V>> {
        self.uncached.iter().filter(|value| value.value.strong_count() > 0)
    }

    fn start_load(&mut self) -> bool {
        let cached = self.entries.values().filter(|entry| Arc::strong_count(&entry.value) > 1);
        let pinned_bytes =
            cached.map(|entry| entry.bytes).sum::<u64>() + self.uncached_in_use().map(|value| value.bytes).sum::<u64>();
        let expected_bytes = pinned_bytes.saturating_add(self.loads.saturating_mul(self.largest_bytes));
        // The size of the first value is not known before it is loaded.
        let is_size_known = self.loads == 0 || self.largest_bytes > 0;
        let has_room = is_size_known && expected_bytes <= self.capacity_bytes;
        self.loads += u64::from(has_room);
        has_room
    }
}

impl<V> Clone for Pinned<V> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), _pin: self._pin.clone() }
    }
}

impl<V> Deref for Pinned<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> Pinned<V> {
    /// Whether both are the same value in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

/// A value that no map counts.
impl<V> From<Arc<V>> for Pinned<V> {
    fn from(value: Arc<V>) -> Self {
        Self { value, _pin: None }
    }
}

impl<V> Drop for Pin<V> {
    fn drop(&mut self) {
        self.0.lock().trim();
        self.0.room_changed.notify_waiters();
    }
}

impl<V> Drop for LoadSlot<V> {
    fn drop(&mut self) {
        self.0.lock().loads -= 1;
        self.0.room_changed.notify_waiters();
    }
}

//! [`KeyLocks`]: one lock for each key in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

type Locks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// Lets one task at a time work on a key, such as the download of a blob.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Arc<Locks>,
}

/// Holds the lock of a key until it is dropped.
pub struct KeyGuard {
    key: String,
    locks: Arc<Locks>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyLocks {
    pub async fn lock(&self, key: &str) -> KeyGuard {
        let lock = Arc::clone(lock_map(&self.locks).entry(key.to_string()).or_default());
        let guard = lock.lock_owned().await;
        KeyGuard { key: key.to_string(), locks: Arc::clone(&self.locks), guard: Some(guard) }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let mut locks = lock_map(&self.locks);
        self.guard = None;
        // Nobody else waits for it: the map and this reference are the only ones.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

fn lock_map(locks: &Locks) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
    locks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(flavor = "multi_thread")]
    async fn one_task_at_a_time_works_on_a_key_and_unused_locks_are_removed() {
        let (locks, working) = (Arc::new(KeyLocks::default()), Arc::new(AtomicU32::new(0)));
        let tasks = (0..32).map(|_| {
            let (locks, working) = (Arc::clone(&locks), Arc::clone(&working));
            tokio::spawn(async move {
                let _guard = locks.lock("blob").await;
                assert_eq!(working.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                working.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let (_one, _other) = (locks.lock("one").await, locks.lock("other").await);
        assert_eq!(lock_map(&locks.locks).len(), 2, "the lock of \"blob\" is gone");
    }
}

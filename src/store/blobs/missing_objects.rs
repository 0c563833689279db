//! [`MissingObjects`]: repeated downloads of objects that a row refers to and that are not there.

use espalier_core::error::Result;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Delays before the next download. A storage whose reads lag behind its writes, or a cache in front of it, has the object by then.
const DELAYS: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2400),
];

/// Time in which an object that was missing is downloaded once, so that the requests for it do not wait in turn.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Names of blobs that were missing, and since when.
#[derive(Debug)]
pub struct MissingObjects {
    delays: [Duration; 6],
    since: Mutex<HashMap<String, Instant>>,
}

impl Default for MissingObjects {
    fn default() -> Self {
        Self { delays: DELAYS, since: Mutex::default() }
    }
}

impl MissingObjects {
    /// Repeats a download while it finds nothing; `None` if the object is still not there after all delays.
    pub async fn retry<T, F: Future<Output = Result<Option<T>>>>(
        &self,
        name: &str,
        mut download: impl FnMut() -> F,
    ) -> Result<Option<T>> {
        let delays: &[Duration] = if self.contains(name) { &[] } else { &self.delays };
        let mut found = download().await?;
        for delay in delays {
            if found.is_some() {
                break;
            }
            tracing::warn!(name, "an object is missing; retrying its download");
            tokio::time::sleep(*delay).await;
            found = download().await?;
        }
        self.remember(name, found.is_none());
        Ok(found)
    }

    fn contains(&self, name: &str) -> bool {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get(name).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, name: &str, is_missing: bool) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, at| at.elapsed() < REMEMBERED);
        match is_missing {
            true => drop(since.entry(name.to_string()).or_insert_with(Instant::now)),
            false => drop(since.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn an_object_is_looked_for_again_and_a_missing_one_once_more_for_each_request() {
        let missing = MissingObjects { delays: [Duration::ZERO; 6], since: Mutex::default() };
        let calls = Cell::new(0);
        let found_at = |number: usize| {
            let calls = &calls;
            calls.set(0);
            move || async move {
                calls.set(calls.get() + 1);
                Ok((calls.get() == number).then_some(()))
            }
        };
        assert_eq!(missing.retry("late", found_at(3)).await.unwrap(), Some(()));
        assert_eq!(calls.get(), 3);
        assert_eq!(missing.retry("absent", found_at(0)).await.unwrap(), None);
        assert_eq!(calls.get(), 1 + DELAYS.len());
        assert_eq!(missing.retry("absent", found_at(0)).await.unwrap(), None);
        assert_eq!(calls.get(), 1);
        assert_eq!(missing.retry("absent", found_at(1)).await.unwrap(), Some(()));
        assert!(!missing.contains("absent"));
    }
}

//! Token bucket whose level may become negative: what a request costs is known only after it was answered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Budget of `capacity` tokens that refills over a minute.
#[derive(Debug)]
pub struct TokenBucket {
    capacity: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    updated_at: Instant,
}

/// State of a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketState {
    pub remaining: u64,
    /// Time until a request is admitted; zero if one is admitted now.
    pub wait: Duration,
    /// Time until the bucket is full.
    pub reset: Duration,
}

impl TokenBucket {
    pub fn per_minute(tokens: u32) -> Self {
        let capacity = f64::from(tokens);
        Self { capacity, level: Mutex::new(Level { tokens: capacity, updated_at: Instant::now() }) }
    }

    pub fn state(&self, now: Instant) -> BucketState {
        self.with_level(now, |tokens| {
            let seconds = |missing: f64| Duration::from_secs_f64(missing.max(0.0) * 60.0 / self.capacity);
            // One token has to be there.
            let wait = if *tokens >= 1.0 { Duration::ZERO } else { seconds(1.0 - *tokens) };
            BucketState { remaining: tokens.max(0.0) as u64, wait, reset: seconds(self.capacity - *tokens) }
        })
    }

    /// Takes what a request cost, also beyond what is there.
    pub fn charge(&self, tokens: u64, now: Instant) {
        self.with_level(now, |level| *level -= tokens as f64);
    }

    fn with_level<T>(&self, now: Instant, change: impl FnOnce(&mut f64) -> T) -> T {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(level.updated_at).as_secs_f64();
        level.tokens = (level.tokens + elapsed * self.capacity / 60.0).min(self.capacity);
        level.updated_at = level.updated_at.max(now);
        change(&mut level.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_back_by_time() {
        let bucket = TokenBucket::per_minute(60);
        let start = Instant::now();
        assert_eq!(bucket.state(start), BucketState { remaining: 60, wait: Duration::ZERO, reset: Duration::ZERO });
        bucket.charge(89, start);
        let state = bucket.state(start);
        assert_eq!((state.remaining, state.wait.as_secs()), (0, 30));
        let later = start + Duration::from_secs(45);
        let state = bucket.state(later);
        assert_eq!((state.remaining, state.wait), (16, Duration::ZERO));
        assert_eq!(bucket.state(start + Duration::from_secs(600)).remaining, 60);
    }
}

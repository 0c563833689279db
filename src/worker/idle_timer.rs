//! Time since the worker's slots had a job.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Counts the busy slots of a process.
#[derive(Debug, Clone)]
pub struct IdleTimer {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    busy: usize,
    idle_since: Instant,
}

/// A slot that is busy until this is dropped.
pub struct BusySlot(IdleTimer);

impl IdleTimer {
    pub fn start() -> Self {
        Self { state: Arc::new(Mutex::new(State { busy: 0, idle_since: Instant::now() })) }
    }

    pub fn begin_job(&self) -> BusySlot {
        self.update(|state| state.busy += 1);
        BusySlot(self.clone())
    }

    /// Starts anew: it is not known whether there are jobs.
    pub fn reset(&self) {
        self.update(|_| {});
    }

    /// Waits until all slots have been idle for this long.
    pub async fn idle_for(&self, duration: Duration) {
        loop {
            let remaining = match self.idle_since() {
                Some(since) => duration.saturating_sub(since.elapsed()),
                None => duration,
            };
            if remaining.is_zero() {
                return;
            }
            tokio::time::sleep(remaining).await;
        }
    }

    /// `None` while a slot is busy.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.busy == 0).then_some(state.idle_since)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.idle_since = Instant::now();
    }
}

impl Drop for BusySlot {
    fn drop(&mut self) {
        self.0.update(|state| state.busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_slot_and_a_failed_claim_restart_the_time() {
        let (timer, limit) = (IdleTimer::start(), Duration::from_millis(60));
        let is_over = || async { tokio::time::timeout(limit / 2, timer.idle_for(limit)).await.is_ok() };
        let job = timer.begin_job();
        tokio::time::sleep(limit * 2).await;
        assert!(!is_over().await, "a slot is busy");
        drop(job);
        assert!(!is_over().await, "the job has just ended");
        timer.reset();
        assert!(!is_over().await);
        timer.idle_for(limit).await;
        assert!(is_over().await);
    }
}

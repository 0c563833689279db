//! Times of the checkpoints of an attempt.

use std::time::{Duration, Instant};

/// Time to the first checkpoint of an attempt.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// Checkpoint times. The first interval is short and each is twice the one before, up to the setting, so that attempts that are killed
/// soon after their start make progress.
pub struct CheckpointSchedule {
    saved_at: Instant,
    interval: Duration,
    max_interval: Duration,
}

impl CheckpointSchedule {
    pub fn new(now: Instant, max_interval: Duration) -> Self {
        Self { saved_at: now, interval: FIRST_INTERVAL.min(max_interval), max_interval }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.saved_at) >= self.interval
    }

    pub fn mark_saved(&mut self, now: Instant) {
        self.saved_at = now;
        self.interval = self.interval.saturating_mul(2).min(self.max_interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds from the start to each of the first checkpoints.
    fn checkpoint_times(max_interval: Duration, count: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut schedule = CheckpointSchedule::new(start, max_interval);
        let mut now = start;
        let mut times = Vec::new();
        while times.len() < count {
            if schedule.is_due(now) {
                schedule.mark_saved(now);
                times.push((now - start).as_millis());
            }
            now += Duration::from_millis(50);
        }
        times
    }

    #[test]
    fn intervals_double_up_to_the_setting() {
        assert_eq!(checkpoint_times(Duration::from_secs(3), 5), [500, 1500, 3500, 6500, 9500]);
        assert_eq!(checkpoint_times(Duration::from_millis(50), 3), [50, 100, 150]);
    }
}

//! Measures how fast a lane of the prediction queue computes, to estimate how long a new request would wait.

use std::time::{Duration, Instant};

/// Weight of the earlier batches after each new one.
const DECAY: f64 = 0.8;

/// Tokens per second of a lane while it has work, averaged over its last batches.
#[derive(Default)]
pub struct Throughput {
    tokens: f64,
    seconds: f64,
    /// When the lane last got its first work or finished a batch.
    measured_until: Option<Instant>,
}

impl Throughput {
    /// The lane gets work after it had none.
    pub fn start(&mut self, now: Instant) {
        self.measured_until = Some(now);
    }

    /// A worker of the lane has computed a batch.
    pub fn record(&mut self, tokens: usize, now: Instant) {
        let Some(since) = self.measured_until.replace(now) else { return };
        self.tokens = self.tokens * DECAY + tokens as f64;
        self.seconds = self.seconds * DECAY + (now - since).as_secs_f64();
    }

    /// Time to compute so many tokens; zero before anything was measured.
    pub fn time_for(&self, tokens: usize) -> Duration {
        let seconds = if self.tokens > 0.0 { tokens as f64 * self.seconds / self.tokens } else { 0.0 };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn idle_time_does_not_count() {
        let (mut throughput, start) = (Throughput::default(), Instant::now());
        assert_eq!(throughput.time_for(1000), Duration::ZERO);
        throughput.start(start);
        throughput.record(100, start + SECOND);
        throughput.start(start + 50 * SECOND);
        throughput.record(100, start + 51 * SECOND);
        assert_eq!(throughput.time_for(200), 2 * SECOND);
    }

    #[test]
    fn batches_of_parallel_workers_add_up() {
        let (mut throughput, start) = (Throughput::default(), Instant::now());
        throughput.start(start);
        for _ in 0..2 {
            throughput.record(100, start + SECOND);
        }
        let time = throughput.time_for(180).as_secs_f64();
        assert!((time - 0.8 * 180.0 / 180.0).abs() < 1e-9, "{time}");
    }

    #[test]
    fn a_change_of_speed_is_followed_within_a_few_batches() {
        let (mut throughput, mut now) = (Throughput::default(), Instant::now());
        throughput.start(now);
        for (batches, seconds) in [(50, 10), (20, 1)] {
            for _ in 0..batches {
                now += seconds * SECOND;
                throughput.record(100, now);
            }
        }
        let time = throughput.time_for(100).as_secs_f64();
        assert!((1.0..1.2).contains(&time), "{time}");
    }
}

//! The hold on a job: the lease as this process sees it, and writes that are made only while it lasts.
//!
//! The store checks the lease's epoch on every write; that alone keeps two workers apart. The clock here makes a worker
//! that was stopped, or cut off from the database, notice by itself and stop computing for nothing. Knows no SQL and
//! nothing of training.

use super::stop_signal::StopSignal;
use espalier_core::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two tries of a write: doubled each time, up to the longest.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// A server that goes down tries a write no longer than this.
const SHUTDOWN_RETRY_LIMIT: Duration = Duration::from_secs(3);

pub const LEASE_EXPIRED: &str = "its time has run out";

/// The lease is gone, or nothing certain is known of it: whatever is to become of the job, another claim decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLost;

pub struct LeaseGuard {
    lease_duration: Duration,
    stop_signal: Arc<StopSignal>,
}

impl LeaseGuard {
    /// The orders know how long the lease lasts now.
    pub fn new(lease_duration: Duration, stop_signal: Arc<StopSignal>) -> Self {
        Self { lease_duration, stop_signal }
    }

    /// A heartbeat that was sent at `asked` was answered.
    pub fn extend(&self, sent_at: Instant) {
        self.stop_signal.extend_lease(sent_at + self.lease_duration);
    }

    /// Writes under the lease. A database that is away for a while is no reason to give a job up: the write is tried
    /// again until the lease has run out. Every write must be harmless when made twice, because the answer to the first
    /// may have been lost on the way; those that end the lease are, since the second finds it gone.
    ///
    /// # Errors
    /// `Lost`, which also abandons the attempt.
    pub async fn write<T, F>(&self, operation: &str, write: impl Fn() -> F) -> Result<T, LeaseLost>
    where
        F: Future<Output = Result<T>>,
    {
        let started_at = Instant::now();
        let mut backoff = INITIAL_BACKOFF;
        loop {
            let Some(remaining) = self.time_left(started_at) else {
                return Err(self.mark_lost(operation, LEASE_EXPIRED));
            };
            // A connection that hangs is given up in time for another try.
            match timeout(remaining.min(self.lease_duration / 2), write()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error @ (Error::Internal(_) | Error::Busy { .. }))) => {
                    tracing::warn!(%error, operation, "the store did not answer; trying again");
                }
                // `lease_lost`, or something that must not be: either way this attempt has no more say.
                Ok(Err(error)) => return Err(self.mark_lost(operation, &error.to_string())),
                Err(_) => tracing::warn!(operation, "the store did not answer in time; trying again"),
            }
            sleep(backoff.min(remaining)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// The time left for a write that was begun at `started`; `None` when there is none.
    fn time_left(&self, started_at: Instant) -> Option<Duration> {
        if self.stop_signal.is_abandoned() {
            return None;
        }
        let mut deadline = self.stop_signal.lease_deadline();
        if self.stop_signal.shutdown().is_cancelled() {
            deadline = deadline.min(started_at + SHUTDOWN_RETRY_LIMIT);
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }

    /// Says once that the lease is lost.
    pub fn mark_lost(&self, operation: &str, reason: &str) -> LeaseLost {
        if !self.stop_signal.is_abandoned() {
            tracing::warn!(operation, reason, "the lease is lost; this attempt writes nothing more");
            self.stop_signal.abandon();
        }
        LeaseLost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::training::StopReason;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio_util::sync::CancellationToken;

    const LEASE: Duration = Duration::from_secs(30);

    fn lease_guard(claim_sent_at: Instant, lease: Duration) -> (LeaseGuard, Arc<StopSignal>) {
        let stop_signal = Arc::new(StopSignal::new(CancellationToken::new(), claim_sent_at + lease));
        (LeaseGuard::new(lease, Arc::clone(&stop_signal)), stop_signal)
    }

    #[tokio::test]
    async fn a_write_is_retried_until_the_database_recovers() {
        let (guard, stop_signal) = lease_guard(Instant::now(), LEASE);
        let attempts = AtomicU32::new(0);
        let write = || async {
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(Error::internal("connection refused")),
                _ => Ok("written"),
            }
        };
        assert_eq!(guard.write("testing", write).await, Ok("written"));
        assert_eq!(stop_signal.stop_reason(), None);
    }

    #[tokio::test]
    async fn a_lost_lease_abandons_the_attempt_and_blocks_later_writes() {
        let (guard, stop_signal) = lease_guard(Instant::now(), LEASE);
        let refused = || async { Err::<(), _>(Error::conflict("lease_lost", "somebody else has it")) };
        assert_eq!(guard.write("testing", refused).await, Err(LeaseLost));
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::LeaseLost));
        let must_not_write = || async { panic!("nothing may be written any more") };
        assert_eq!(guard.write::<(), _>("testing", must_not_write).await, Err(LeaseLost));
    }

    #[tokio::test]
    async fn a_worker_resumed_after_its_lease_expired_writes_nothing() {
        let (guard, stop_signal) = lease_guard(Instant::now(), Duration::ZERO);
        let must_not_write = || async { panic!("nothing may be written any more") };
        assert_eq!(guard.write::<(), _>("testing", must_not_write).await, Err(LeaseLost));
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::LeaseLost));
    }

    #[tokio::test]
    async fn retries_end_when_the_lease_expires() {
        let lease = Duration::from_millis(200);
        let (guard, _stop_signal) = lease_guard(Instant::now(), lease);
        let started_at = Instant::now();
        let unavailable = || async { Err::<(), _>(Error::internal("connection refused")) };
        assert_eq!(guard.write("testing", unavailable).await, Err(LeaseLost));
        assert!(started_at.elapsed() < lease * 10, "it gives up soon after the lease");
    }

    #[tokio::test]
    async fn a_hanging_write_times_out_and_is_retried() {
        let (guard, _stop_signal) = lease_guard(Instant::now(), Duration::from_millis(400));
        let attempts = AtomicU32::new(0);
        let write = || async {
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok("written")
        };
        assert_eq!(guard.write("testing", write).await, Ok("written"));
    }

    #[tokio::test]
    async fn a_heartbeat_extends_the_lease_from_its_send_time() {
        let (guard, _stop_signal) = lease_guard(Instant::now(), LEASE);
        let sent_at = Instant::now() + LEASE;
        guard.extend(sent_at);
        assert!(guard.time_left(Instant::now()).unwrap() > LEASE);
    }
}

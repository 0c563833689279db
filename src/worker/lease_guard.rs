//! Lease of a job, and writes to the store that are only made while it lasts.
//!
//! The store checks the lease epoch on every write, which alone prevents two workers from writing for one job. The local deadline
//! makes a worker that was suspended, or that lost its connection to the database, stop computing.

use super::stop_signal::StopSignal;
use espalier_core::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Delay between two tries of a write: doubled each time, up to `MAX_BACKOFF`.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Longest time for which a write is retried during shutdown.
const SHUTDOWN_RETRY_LIMIT: Duration = Duration::from_secs(3);

pub const LEASE_EXPIRED: &str = "the lease has expired";

/// The lease is lost or its state is unknown. The next claim decides about the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLost;

/// Writes to the store while the lease of an attempt lasts, with retries; abandons the attempt when the lease is lost.
pub struct LeaseGuard {
    lease_duration: Duration,
    stop_signal: Arc<StopSignal>,
}

impl LeaseGuard {
    /// `stop_signal` holds the current deadline of the lease.
    pub fn new(lease_duration: Duration, stop_signal: Arc<StopSignal>) -> Self {
        Self { lease_duration, stop_signal }
    }

    /// Extends the lease after a successful heartbeat that was sent at `sent_at`.
    pub fn extend(&self, sent_at: Instant) {
        self.stop_signal.extend_lease(sent_at + self.lease_duration);
    }

    /// Writes under the lease. While the database is unavailable the write is retried until the lease expires. Writes must be
    /// idempotent, because the response to a successful one can get lost. Writes that end the lease are: the second one finds
    /// no lease.
    ///
    /// # Errors
    /// [`LeaseLost`]; the attempt is then abandoned.
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
            // The timeout leaves time for a second try after a hanging connection.
            match timeout(remaining.min(self.lease_duration / 2), write()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error @ (Error::Internal(_) | Error::StorageFull(_) | Error::Busy { .. }))) => {
                    tracing::warn!(%error, operation, "write to the store failed; retrying");
                }
                // `lease_lost`, or an error that must not occur: the attempt ends in both cases.
                Ok(Err(error)) => return Err(self.mark_lost(operation, &error.to_string())),
                Err(_) => tracing::warn!(operation, "write to the store timed out; retrying"),
            }
            sleep(backoff.min(remaining)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Time left for a write that started at `started_at`; `None` if there is none.
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

    /// Abandons the attempt, and logs the loss of the lease the first time.
    pub fn mark_lost(&self, operation: &str, reason: &str) -> LeaseLost {
        if !self.stop_signal.is_abandoned() {
            tracing::warn!(operation, reason, "lease lost; the attempt writes nothing more");
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

//! The hold on a job: the lease as this process sees it, and writes that are made only while it lasts.
//!
//! The store checks the lease's epoch on every write; that alone keeps two workers apart. The clock here makes a worker
//! that was stopped, or cut off from the database, notice by itself and stop computing for nothing. Knows no SQL and
//! nothing of training.

use super::orders::Orders;
use espalier_core::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two tries of a write: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that goes down tries a write no longer than this.
const LAST_TRIES: Duration = Duration::from_secs(3);

pub const TIME_IS_UP: &str = "its time has run out";

/// The lease is gone, or nothing certain is known of it: whatever is to become of the job, another claim decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

pub struct Hold {
    lease: Duration,
    orders: Arc<Orders>,
}

impl Hold {
    /// The orders know how long the lease lasts now.
    pub fn new(lease: Duration, orders: Arc<Orders>) -> Self {
        Self { lease, orders }
    }

    /// A heartbeat that was sent at `asked` was answered.
    pub fn extend(&self, asked: Instant) {
        self.orders.extend(asked + self.lease);
    }

    /// Writes under the lease. A database that is away for a while is no reason to give a job up: the write is tried
    /// again until the lease has run out. Every write must be harmless when made twice, because the answer to the first
    /// may have been lost on the way; those that end the lease are, since the second finds it gone.
    ///
    /// # Errors
    /// `Lost`, which also abandons the attempt.
    pub async fn write<T, F>(&self, doing: &str, write: impl Fn() -> F) -> Result<T, Lost>
    where
        F: Future<Output = Result<T>>,
    {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(left) = self.left(started) else { return Err(self.lose(doing, TIME_IS_UP)) };
            // A connection that hangs is given up in time for another try.
            match timeout(left.min(self.lease / 2), write()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error @ (Error::Internal(_) | Error::Busy { .. }))) => {
                    tracing::warn!(%error, doing, "the store did not answer; trying again");
                }
                // `lease_lost`, or something that must not be: either way this attempt has no more say.
                Ok(Err(error)) => return Err(self.lose(doing, &error.to_string())),
                Err(_) => tracing::warn!(doing, "the store did not answer in time; trying again"),
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The time left for a write that was begun at `started`; `None` when there is none.
    fn left(&self, started: Instant) -> Option<Duration> {
        if self.orders.is_abandoned() {
            return None;
        }
        let mut until = self.orders.until();
        if self.orders.shutdown().is_cancelled() {
            until = until.min(started + LAST_TRIES);
        }
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Says once that the lease is lost.
    pub fn lose(&self, doing: &str, reason: &str) -> Lost {
        if !self.orders.is_abandoned() {
            tracing::warn!(doing, reason, "the lease is lost; this attempt writes nothing more");
            self.orders.abandon();
        }
        Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::training::Stop;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio_util::sync::CancellationToken;

    const LEASE: Duration = Duration::from_secs(30);

    fn hold(claimed: Instant, lease: Duration) -> (Hold, Arc<Orders>) {
        let orders = Arc::new(Orders::new(CancellationToken::new(), claimed + lease));
        (Hold::new(lease, Arc::clone(&orders)), orders)
    }

    #[tokio::test]
    async fn a_database_that_comes_back_costs_nothing() {
        let (hold, orders) = hold(Instant::now(), LEASE);
        let tries = AtomicU32::new(0);
        let write = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(Error::internal("connection refused")),
                _ => Ok("written"),
            }
        };
        assert_eq!(hold.write("testing", write).await, Ok("written"));
        assert_eq!(orders.stop(), None);
    }

    #[tokio::test]
    async fn a_lost_lease_is_learnt_at_once_and_nothing_is_written_after_it() {
        let (hold, orders) = hold(Instant::now(), LEASE);
        let refused = || async { Err::<(), _>(Error::conflict("lease_lost", "somebody else has it")) };
        assert_eq!(hold.write("testing", refused).await, Err(Lost));
        assert_eq!(orders.stop(), Some(Stop::Abandon));
        let must_not = || async { panic!("nothing may be written any more") };
        assert_eq!(hold.write::<(), _>("testing", must_not).await, Err(Lost));
    }

    #[tokio::test]
    async fn a_worker_that_wakes_after_its_lease_writes_nothing() {
        let (hold, orders) = hold(Instant::now(), Duration::ZERO);
        let must_not = || async { panic!("nothing may be written any more") };
        assert_eq!(hold.write::<(), _>("testing", must_not).await, Err(Lost));
        assert_eq!(orders.stop(), Some(Stop::Abandon));
    }

    #[tokio::test]
    async fn a_database_that_stays_away_costs_the_lease_and_no_longer() {
        let lease = Duration::from_millis(200);
        let (hold, _orders) = hold(Instant::now(), lease);
        let started = Instant::now();
        let away = || async { Err::<(), _>(Error::internal("connection refused")) };
        assert_eq!(hold.write("testing", away).await, Err(Lost));
        assert!(started.elapsed() < lease * 10, "it gives up soon after the lease");
    }

    #[tokio::test]
    async fn a_connection_that_hangs_is_given_up_and_tried_again() {
        let (hold, _orders) = hold(Instant::now(), Duration::from_millis(400));
        let tries = AtomicU32::new(0);
        let write = || async {
            if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok("written")
        };
        assert_eq!(hold.write("testing", write).await, Ok("written"));
    }

    #[tokio::test]
    async fn a_heartbeat_extends_the_hold_from_when_it_was_sent() {
        let (hold, _orders) = hold(Instant::now(), LEASE);
        let sent = Instant::now() + LEASE;
        hold.extend(sent);
        assert!(hold.left(Instant::now()).unwrap() > LEASE);
    }
}

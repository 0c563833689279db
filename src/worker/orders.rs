//! What a running attempt is told: by its owner, by the server, and by the loss of its lease.

use crate::store::Wish;
use espalier_core::training::Stop;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub struct Orders {
    /// The server goes down.
    shutdown: CancellationToken,
    state: Mutex<State>,
}

struct State {
    wish: Option<Wish>,
    /// The end of the lease, by the monotonic clock, which goes on while the process is stopped.
    until: Instant,
    /// Once lost, a lease never comes back: somebody else may have it.
    lost: bool,
}

impl Orders {
    /// `until`: the end of the lease, unless it is extended.
    pub fn new(shutdown: CancellationToken, until: Instant) -> Self {
        Self { shutdown, state: Mutex::new(State { wish: None, until, lost: false }) }
    }

    /// The lease lasts until then.
    pub fn extend(&self, until: Instant) {
        self.lock().until = until;
    }

    /// The end of the lease.
    pub fn until(&self) -> Instant {
        self.lock().until
    }

    /// What the owner wishes now; a pause may be taken back.
    pub fn wish(&self, wish: Option<Wish>) {
        self.lock().wish = wish;
    }

    /// The lease is lost, or nobody follows this attempt any more.
    pub fn abandon(&self) {
        self.lock().lost = true;
    }

    pub fn is_abandoned(&self) -> bool {
        self.lock().lost
    }

    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Whether, and why, to stop. A lost lease comes first, since nothing may be written then; the owner's wish comes
    /// before the server's going down, since it settles the job.
    pub fn stop(&self) -> Option<Stop> {
        let state = self.lock();
        match state.wish {
            // A process that was stopped may train on before its clocks ring.
            _ if state.lost || state.until <= Instant::now() => Some(Stop::Abandon),
            Some(Wish::Cancel) => Some(Stop::Cancel),
            Some(Wish::Pause) => Some(Stop::Pause),
            None if self.shutdown.is_cancelled() => Some(Stop::Release),
            None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn orders(shutdown: CancellationToken) -> Orders {
        Orders::new(shutdown, Instant::now() + Duration::from_secs(3600))
    }

    #[test]
    fn a_lost_lease_comes_before_a_wish_and_a_wish_before_the_shutdown() {
        let shutdown = CancellationToken::new();
        let orders = orders(shutdown.clone());
        assert_eq!(orders.stop(), None);
        shutdown.cancel();
        assert_eq!(orders.stop(), Some(Stop::Release));
        orders.wish(Some(Wish::Pause));
        assert_eq!(orders.stop(), Some(Stop::Pause));
        orders.wish(Some(Wish::Cancel));
        assert_eq!(orders.stop(), Some(Stop::Cancel));
        orders.abandon();
        assert_eq!(orders.stop(), Some(Stop::Abandon));
    }

    #[test]
    fn a_lease_that_has_run_out_stops_the_work_before_anybody_says_so() {
        let orders = orders(CancellationToken::new());
        orders.extend(Instant::now());
        assert_eq!(orders.stop(), Some(Stop::Abandon));
        assert!(!orders.is_abandoned(), "who keeps the lease is yet to find out, and to log it");
    }

    #[test]
    fn a_pause_that_is_taken_back_is_forgotten() {
        let orders = orders(CancellationToken::new());
        orders.wish(Some(Wish::Pause));
        orders.wish(None);
        assert_eq!(orders.stop(), None);
    }
}

//! What a running attempt is told: by its owner, by the server, and by the loss of its lease.

use crate::store::Wish;
use crate::training::Stop;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

pub struct Orders {
    /// The server goes down.
    shutdown: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wish: Option<Wish>,
    /// Once lost, a lease never comes back: somebody else may have it.
    lost: bool,
}

impl Orders {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, state: Mutex::default() }
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
            _ if state.lost => Some(Stop::Abandon),
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

    #[test]
    fn a_lost_lease_comes_before_a_wish_and_a_wish_before_the_shutdown() {
        let shutdown = CancellationToken::new();
        let orders = Orders::new(shutdown.clone());
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
    fn a_pause_that_is_taken_back_is_forgotten() {
        let orders = Orders::new(CancellationToken::new());
        orders.wish(Some(Wish::Pause));
        orders.wish(None);
        assert_eq!(orders.stop(), None);
    }
}

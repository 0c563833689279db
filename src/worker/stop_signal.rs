//! What a running attempt is told: by its owner, by the server, and by the loss of its lease.

use crate::store::RequestedAction;
use espalier_core::training::StopReason;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub struct StopSignal {
    /// The server goes down.
    shutdown: CancellationToken,
    state: Mutex<State>,
}

struct State {
    requested_action: Option<RequestedAction>,
    /// The end of the lease, by the monotonic clock, which goes on while the process is stopped.
    lease_deadline: Instant,
    /// Once lost, a lease never comes back: somebody else may have it.
    is_abandoned: bool,
}

impl StopSignal {
    /// `until`: the end of the lease, unless it is extended.
    pub fn new(shutdown: CancellationToken, lease_deadline: Instant) -> Self {
        Self { shutdown, state: Mutex::new(State { requested_action: None, lease_deadline, is_abandoned: false }) }
    }

    /// The lease lasts until then.
    pub fn extend_lease(&self, lease_deadline: Instant) {
        self.lock().lease_deadline = lease_deadline;
    }

    /// The end of the lease.
    pub fn lease_deadline(&self) -> Instant {
        self.lock().lease_deadline
    }

    /// What the owner wishes now; a pause may be taken back.
    pub fn set_requested_action(&self, requested_action: Option<RequestedAction>) {
        self.lock().requested_action = requested_action;
    }

    /// The lease is lost, or nobody follows this attempt any more.
    pub fn abandon(&self) {
        self.lock().is_abandoned = true;
    }

    pub fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned
    }

    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Whether, and why, to stop. A lost lease comes first, since nothing may be written then; the owner's wish comes
    /// before the server's going down, since it settles the job.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let state = self.lock();
        match state.requested_action {
            // A process that was stopped may train on before its clocks ring.
            _ if state.is_abandoned || state.lease_deadline <= Instant::now() => Some(StopReason::LeaseLost),
            Some(RequestedAction::Cancel) => Some(StopReason::Cancel),
            Some(RequestedAction::Pause) => Some(StopReason::Pause),
            None if self.shutdown.is_cancelled() => Some(StopReason::Requeue),
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

    fn stop_signal(shutdown: CancellationToken) -> StopSignal {
        StopSignal::new(shutdown, Instant::now() + Duration::from_secs(3600))
    }

    #[test]
    fn a_lost_lease_precedes_a_requested_action_which_precedes_shutdown() {
        let shutdown = CancellationToken::new();
        let stop_signal = stop_signal(shutdown.clone());
        assert_eq!(stop_signal.stop_reason(), None);
        shutdown.cancel();
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::Requeue));
        stop_signal.set_requested_action(Some(RequestedAction::Pause));
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::Pause));
        stop_signal.set_requested_action(Some(RequestedAction::Cancel));
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::Cancel));
        stop_signal.abandon();
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::LeaseLost));
    }

    #[test]
    fn an_expired_lease_stops_the_attempt_before_it_is_marked_lost() {
        let stop_signal = stop_signal(CancellationToken::new());
        stop_signal.extend_lease(Instant::now());
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::LeaseLost));
        assert!(!stop_signal.is_abandoned(), "who keeps the lease is yet to find out, and to log it");
    }

    #[test]
    fn a_withdrawn_pause_is_cleared() {
        let stop_signal = stop_signal(CancellationToken::new());
        stop_signal.set_requested_action(Some(RequestedAction::Pause));
        stop_signal.set_requested_action(None);
        assert_eq!(stop_signal.stop_reason(), None);
    }
}

//! Stop signal of a running attempt: the owner's requested action, shutdown of the server, preemption, and loss of the lease.

use crate::store::RequestedAction;
use espalier_core::training::StopReason;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Stop signal of one attempt: its lease, the requested action, the shutdown of the server, and preemption.
pub struct StopSignal {
    /// Cancelled when the server shuts down.
    shutdown: CancellationToken,
    state: Mutex<State>,
}

struct State {
    requested_action: Option<RequestedAction>,
    /// End of the lease on the monotonic clock, which also advances while the process is suspended.
    lease_deadline: Instant,
    /// Set once and never cleared: another worker may have the lease.
    is_abandoned: bool,
    /// Set once: the slot goes to the job of another owner.
    is_preempted: bool,
}

impl StopSignal {
    pub fn new(shutdown: CancellationToken, lease_deadline: Instant) -> Self {
        let state = State { requested_action: None, lease_deadline, is_abandoned: false, is_preempted: false };
        Self { shutdown, state: Mutex::new(state) }
    }

    pub fn extend_lease(&self, lease_deadline: Instant) {
        self.lock().lease_deadline = lease_deadline;
    }

    pub fn lease_deadline(&self) -> Instant {
        self.lock().lease_deadline
    }

    /// Sets the owner's requested action; `None` withdraws a pause.
    pub fn set_requested_action(&self, requested_action: Option<RequestedAction>) {
        self.lock().requested_action = requested_action;
    }

    /// Marks the lease as lost, or the attempt as dropped.
    pub fn abandon(&self) {
        self.lock().is_abandoned = true;
    }

    /// Stops the training, so that a job of another owner can use the slot.
    pub fn preempt(&self) {
        self.lock().is_preempted = true;
    }

    pub fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned
    }

    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Reason to stop, if there is one. A lost lease comes first, because nothing may be written without it. The owner's request
    /// comes before shutdown, because it decides the job's status. Preemption comes last, because a job that shutdown interrupts goes on
    /// before others.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let state = self.lock();
        match state.requested_action {
            // After a suspended process resumes, the training thread may report before the timers fire.
            _ if state.is_abandoned || state.lease_deadline <= Instant::now() => Some(StopReason::LeaseLost),
            Some(RequestedAction::Cancel) => Some(StopReason::Cancel),
            Some(RequestedAction::Pause) => Some(StopReason::Pause),
            None if self.shutdown.is_cancelled() => Some(StopReason::Requeue),
            None if state.is_preempted => Some(StopReason::Preempt),
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
    fn a_lost_lease_precedes_a_requested_action_which_precedes_shutdown_and_preemption() {
        let shutdown = CancellationToken::new();
        let stop_signal = stop_signal(shutdown.clone());
        assert_eq!(stop_signal.stop_reason(), None);
        stop_signal.preempt();
        assert_eq!(stop_signal.stop_reason(), Some(StopReason::Preempt));
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
        assert!(!stop_signal.is_abandoned(), "the lease guard marks and logs the loss");
    }

    #[test]
    fn a_withdrawn_pause_is_cleared() {
        let stop_signal = stop_signal(CancellationToken::new());
        stop_signal.set_requested_action(Some(RequestedAction::Pause));
        stop_signal.set_requested_action(None);
        assert_eq!(stop_signal.stop_reason(), None);
    }
}

//! State machine of a job: pure functions from the locked row of a job to the change that the store writes.

use super::errors;
use super::model::{JobError, RequestedAction, Status};
use espalier_core::error::Result;
use serde_json::{Value, json};
use uuid::Uuid;

/// Columns of a job's row that decide its next state, read while a transaction locks the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    pub id: Uuid,
    pub lease_epoch: i64,
    pub status: Status,
    pub requested_action: Option<RequestedAction>,
    pub attempt: u32,
    /// Consecutive claims without a new checkpoint.
    pub attempts_without_progress: u32,
}

/// Result of an owner's call on a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Transition(Transition),
    /// Keeps the status and stores the action that the worker is to perform, or withdraws it.
    Request(Option<RequestedAction>),
}

/// A change of status. It ends the lease and clears the requested action.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    pub status: Status,
    pub error: Option<JobError>,
    pub metrics: Option<Value>,
    pub adapter_id: Option<Uuid>,
    /// New value of [`JobState::attempts_without_progress`].
    pub attempts_without_progress: u32,
}

/// What a claim does with the oldest claimable job.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimDecision {
    Claim,
    Transition(Transition),
}

impl JobState {
    pub fn transition_to(&self, status: Status) -> Transition {
        Transition {
            status,
            error: None,
            metrics: None,
            adapter_id: None,
            attempts_without_progress: self.attempts_without_progress,
        }
    }

    pub fn fail(&self, error: &JobError) -> Transition {
        let error = strip_nul(error);
        Transition { error: Some(error), ..self.transition_to(Status::Failed) }
    }

    pub fn succeed(&self, adapter: Uuid, metrics: Value) -> Transition {
        Transition { adapter_id: Some(adapter), metrics: Some(metrics), ..self.transition_to(Status::Succeeded) }
    }

    /// Ends the lease without counting this attempt, because the worker stopped on request.
    fn release_to(&self, status: Status) -> Transition {
        Transition {
            attempts_without_progress: self.attempts_without_progress.saturating_sub(1),
            ..self.transition_to(status)
        }
    }
}

pub fn cancel(job: &JobState) -> Result<Action> {
    match job.status {
        Status::Queued | Status::Paused => Ok(Action::Transition(job.transition_to(Status::Cancelled))),
        Status::Running => Ok(Action::Request(Some(RequestedAction::Cancel))),
        status => Err(errors::job_over(job.id, status)),
    }
}

/// A pause does not replace a requested cancellation.
pub fn pause(job: &JobState) -> Result<Action> {
    match (job.status, job.requested_action) {
        (Status::Queued, _) => Ok(Action::Transition(job.transition_to(Status::Paused))),
        (Status::Running, None | Some(RequestedAction::Pause)) => Ok(Action::Request(Some(RequestedAction::Pause))),
        (status, requested) => Err(errors::job_not_active(job.id, status, requested)),
    }
}

pub fn resume(job: &JobState) -> Result<Action> {
    match (job.status, job.requested_action) {
        (Status::Paused, _) => Ok(Action::Transition(job.transition_to(Status::Queued))),
        (Status::Running, Some(RequestedAction::Pause)) => Ok(Action::Request(None)),
        (status, requested) => Err(errors::job_not_paused(job.id, status, requested)),
    }
}

/// `job` is queued, or its lease has expired.
pub fn decide_claim(job: &JobState, max_attempts: u32) -> ClaimDecision {
    match job.requested_action {
        Some(action) => ClaimDecision::Transition(job.transition_to(status_after(action))),
        None if job.attempts_without_progress >= max_attempts => {
            ClaimDecision::Transition(job.fail(&errors::attempts_exhausted(job.attempts_without_progress)))
        }
        None => ClaimDecision::Claim,
    }
}

/// Returns a job to the queue, or performs the requested action.
pub fn requeue(job: &JobState) -> Transition {
    job.release_to(job.requested_action.map_or(Status::Queued, status_after))
}

/// Returns a job to the queue after an internal error, or performs the requested action. The attempt counts, and the job
/// keeps the error until the next claim.
pub fn record_failed_attempt(job: &JobState, error: &JobError) -> Transition {
    Transition {
        error: Some(strip_nul(error)),
        ..job.transition_to(job.requested_action.map_or(Status::Queued, status_after))
    }
}

/// Replaces U+0000, which the databases cannot store. An error text may quote user input.
fn strip_nul(error: &JobError) -> JobError {
    let replace_nul = |text: &str| text.replace('\0', "\u{fffd}");
    JobError { code: replace_nul(&error.code), detail: replace_nul(&error.detail) }
}

/// Records that the worker has performed `action`. The newest request holds: a later cancellation wins over a pause, and a
/// withdrawn pause queues the job again.
pub fn complete_requested_action(job: &JobState, action: RequestedAction) -> Transition {
    match action {
        RequestedAction::Cancel => job.release_to(Status::Cancelled),
        RequestedAction::Pause => requeue(job),
    }
}

fn status_after(action: RequestedAction) -> Status {
    match action {
        RequestedAction::Cancel => Status::Cancelled,
        RequestedAction::Pause => Status::Paused,
    }
}

pub fn queued_event() -> Value {
    json!({"status": Status::Queued.as_str()})
}

pub fn running_event(attempt: u32) -> Value {
    json!({"status": Status::Running.as_str(), "attempt": attempt})
}

/// Data of the status event of a transition.
pub fn status_event(attempt: u32, transition: &Transition) -> Value {
    let mut data = json!({"status": transition.status.as_str()});
    if attempt > 0 {
        data["attempt"] = json!(attempt);
    }
    if let Some(error) = &transition.error {
        data["error"] = json!(error);
    }
    if let Some(adapter) = &transition.adapter_id {
        data["adapter_id"] = json!(adapter);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(requested_action: Option<RequestedAction>) -> JobState {
        JobState {
            id: Uuid::nil(),
            lease_epoch: 3,
            status: Status::Running,
            requested_action,
            attempt: 3,
            attempts_without_progress: 2,
        }
    }

    #[test]
    fn pause_does_not_replace_a_requested_cancel() {
        assert_eq!(pause(&running(Some(RequestedAction::Cancel))).unwrap_err().code(), "job_not_active");
        assert_eq!(
            cancel(&running(Some(RequestedAction::Pause))).unwrap(),
            Action::Request(Some(RequestedAction::Cancel))
        );
    }

    #[test]
    fn newest_requested_action_wins_when_the_worker_stops() {
        assert_eq!(
            complete_requested_action(&running(Some(RequestedAction::Pause)), RequestedAction::Pause).status,
            Status::Paused
        );
        assert_eq!(
            complete_requested_action(&running(Some(RequestedAction::Cancel)), RequestedAction::Pause).status,
            Status::Cancelled
        );
        assert_eq!(complete_requested_action(&running(None), RequestedAction::Pause).status, Status::Queued);
    }

    #[test]
    fn requeue_does_not_count_as_an_attempt_without_progress() {
        assert_eq!(requeue(&running(None)).attempts_without_progress, 1);
        assert_eq!(running(None).transition_to(Status::Queued).attempts_without_progress, 2);
    }

    #[test]
    fn requested_action_is_applied_before_attempts_are_exhausted() {
        let ClaimDecision::Transition(transition) = decide_claim(&running(Some(RequestedAction::Pause)), 2) else {
            panic!("the job must not be claimed")
        };
        assert_eq!(transition.status, Status::Paused);
        let ClaimDecision::Transition(transition) = decide_claim(&running(None), 2) else {
            panic!("the job must not be claimed")
        };
        assert_eq!(transition.error.expect("the job has failed").code, "attempts_exhausted");
        assert_eq!(decide_claim(&running(None), 3), ClaimDecision::Claim);
    }
}

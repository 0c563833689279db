//! What may become of a job: the decisions that both databases share.
//!
//! Pure functions of the row that a transaction holds. Knows no SQL and no time.

use super::errors;
use super::model::{JobError, RequestedAction, Status};
use espalier_core::error::Result;
use serde_json::{Value, json};
use uuid::Uuid;

/// What of a job's row decides, while a transaction holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    pub id: Uuid,
    pub lease_epoch: i64,
    pub status: Status,
    pub requested_action: Option<RequestedAction>,
    pub attempt: u32,
    /// Claims since the last new checkpoint.
    pub attempts_without_progress: u32,
}

/// What is to be done with the row of a job that its owner spoke about.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Transition(Transition),
    /// The status stays; this is what the worker will be told.
    Request(Option<RequestedAction>),
}

/// A change of status away from the worker: it ends lease and requested_action.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    pub status: Status,
    pub error: Option<JobError>,
    pub metrics: Option<Value>,
    pub adapter_id: Option<Uuid>,
    /// What the count of claims without a new checkpoint becomes.
    pub attempts_without_progress: u32,
}

/// What to do with the oldest job that can be claimed.
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

    /// The worker let go of its own accord, so this claim is not held against the job.
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

/// A requested_action to cancel stands: it is not weakened to a pause.
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

/// The job is queued, or its lease has run out.
pub fn decide_claim(job: &JobState, max_attempts: u32) -> ClaimDecision {
    match job.requested_action {
        Some(action) => ClaimDecision::Transition(job.transition_to(status_after(action))),
        None if job.attempts_without_progress >= max_attempts => {
            ClaimDecision::Transition(job.fail(&errors::attempts_exhausted(job.attempts_without_progress)))
        }
        None => ClaimDecision::Claim,
    }
}

/// A worker hands its job back: to the queue, or to where the owner wishes it meanwhile.
pub fn requeue(job: &JobState) -> Transition {
    job.release_to(job.requested_action.map_or(Status::Queued, status_after))
}

/// An attempt broke by a fault of ours: the job goes back, the claim counts, the error is told until the next one.
pub fn record_failed_attempt(job: &JobState, error: &JobError) -> Transition {
    Transition {
        error: Some(strip_nul(error)),
        ..job.transition_to(job.requested_action.map_or(Status::Queued, status_after))
    }
}

/// An error may quote anything; it is told without what cannot be stored rather than lost.
fn strip_nul(error: &JobError) -> JobError {
    let replace_nul = |text: &str| text.replace('\0', "\u{fffd}");
    JobError { code: replace_nul(&error.code), detail: replace_nul(&error.detail) }
}

/// A worker has stopped as it was told. The owner may have changed their mind since: a later cancel wins over a pause,
/// and a pause that was taken back queues the job again.
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

/// The data of the event that tells of a move.
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
            requested_action: requested_action,
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
            panic!("must not be taken")
        };
        assert_eq!(transition.status, Status::Paused);
        let ClaimDecision::Transition(to) = decide_claim(&running(None), 2) else { panic!("must not be taken") };
        assert_eq!(to.error.expect("says why").code, "attempts_exhausted");
        assert_eq!(decide_claim(&running(None), 3), ClaimDecision::Claim);
    }
}

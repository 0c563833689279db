//! State machine of a job: pure functions from the locked row of a job to the change that the store writes.

use super::errors;
use super::model::{AttemptFault, JobError, RequestedAction, Status};
use espalier_core::error::Result;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// Longest delay before the next attempt.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);
/// Delay before the next attempt after a fault of the environment, such as a full disk.
const ENVIRONMENT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Columns of a job's row that decide its next state, read while a transaction locks the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    pub id: Uuid,
    pub lease_epoch: i64,
    pub status: Status,
    pub requested_action: Option<RequestedAction>,
    pub attempt: u32,
    /// Consecutive attempts without a new checkpoint that ended with their process.
    pub process_deaths: u32,
    /// Consecutive attempts without a new checkpoint that ended in an internal error.
    pub internal_errors: u32,
    /// Process that runs the job, unless it has reported the loss of its lease.
    pub worker_process: Option<Uuid>,
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
    /// New value of [`JobState::process_deaths`].
    pub process_deaths: u32,
    /// New value of [`JobState::internal_errors`].
    pub internal_errors: u32,
    /// Time from now until a queued job can be claimed.
    pub retry_delay: Duration,
    /// Whether a running job returns to the queue, where it goes on before others start.
    pub is_interrupted: bool,
}

/// What a claim does with the next claimable job.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimDecision {
    Claim {
        /// New value of [`JobState::process_deaths`].
        process_deaths: u32,
    },
    Transition(Transition),
}

impl JobState {
    pub fn transition_to(&self, status: Status) -> Transition {
        Transition {
            status,
            error: None,
            metrics: None,
            adapter_id: None,
            process_deaths: self.process_deaths,
            internal_errors: self.internal_errors,
            retry_delay: Duration::ZERO,
            is_interrupted: false,
        }
    }

    pub fn fail(&self, error: &JobError) -> Transition {
        let error = strip_nul(error);
        Transition { error: Some(error), ..self.transition_to(Status::Failed) }
    }

    pub fn succeed(&self, adapter: Uuid, metrics: Value) -> Transition {
        Transition { adapter_id: Some(adapter), metrics: Some(metrics), ..self.transition_to(Status::Succeeded) }
    }

    /// Status of a job whose attempt has ended without a result: queued, or as requested.
    fn status_after_attempt(&self) -> Status {
        self.requested_action.map_or(Status::Queued, status_after)
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

/// `job` is queued, or its lease has expired. A lease that another process has let expire counts as the death of that process,
/// because a process that lives reports that it has lost its lease.
pub fn decide_claim(job: &JobState, claiming_process: Uuid, max_attempts: u32) -> ClaimDecision {
    if let Some(action) = job.requested_action {
        return ClaimDecision::Transition(job.transition_to(status_after(action)));
    }
    let has_died =
        job.status == Status::Running && job.worker_process.is_some_and(|process| process != claiming_process);
    let process_deaths = job.process_deaths + u32::from(has_died);
    // The first death may be a restart of the server, so the job goes on at once.
    let retry_delay = if has_died { backoff(process_deaths - 1) } else { Duration::ZERO };
    if process_deaths >= max_attempts {
        ClaimDecision::Transition(job.fail(&errors::processes_died(process_deaths)))
    } else if retry_delay.is_zero() {
        ClaimDecision::Claim { process_deaths }
    } else {
        ClaimDecision::Transition(Transition { process_deaths, retry_delay, ..job.transition_to(Status::Queued) })
    }
}

/// Delay after a number of consecutive failures: 0, 1, 2, 4, … seconds.
fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1 << doublings.min(16)).min(MAX_RETRY_DELAY),
    }
}

/// Returns a job to the queue, or performs the requested action.
pub fn requeue(job: &JobState) -> Transition {
    let transition = job.transition_to(job.status_after_attempt());
    Transition { is_interrupted: transition.status == Status::Queued, ..transition }
}

/// Returns a job to the queue, where it waits for its owner's next turn, or performs the requested action.
pub fn preempt(job: &JobState) -> Transition {
    job.transition_to(job.status_after_attempt())
}

/// Returns a job to the queue after an attempt that ended in an error which is not the job's own, or performs the requested
/// action. The job keeps the error until the next claim. An internal error is counted, and the last one fails the job.
pub fn record_failed_attempt(job: &JobState, fault: AttemptFault, error: &JobError, max_attempts: u32) -> Transition {
    let (internal_errors, retry_delay) = match fault {
        AttemptFault::Environment => (job.internal_errors, ENVIRONMENT_RETRY_DELAY),
        AttemptFault::Internal => (job.internal_errors + 1, backoff(job.internal_errors + 1)),
    };
    let status = job.status_after_attempt();
    if status == Status::Queued && internal_errors >= max_attempts {
        return Transition { internal_errors, ..job.fail(&errors::attempts_exhausted(internal_errors, error)) };
    }
    let error = Some(strip_nul(error));
    Transition { error, internal_errors, retry_delay, ..job.transition_to(status) }
}

/// Queues a failed job again. Its attempts count from zero.
pub fn retry(job: &JobState) -> Result<Transition> {
    match job.status {
        Status::Failed => Ok(Transition { process_deaths: 0, internal_errors: 0, ..job.transition_to(Status::Queued) }),
        status => Err(errors::job_not_failed(job.id, status)),
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
        RequestedAction::Cancel => job.transition_to(Status::Cancelled),
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
    if !transition.retry_delay.is_zero() {
        data["retry_after_seconds"] = json!(transition.retry_delay.as_secs());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn running(requested_action: Option<RequestedAction>) -> JobState {
        JobState {
            id: Uuid::nil(),
            lease_epoch: 3,
            status: Status::Running,
            requested_action,
            attempt: 3,
            process_deaths: 2,
            internal_errors: 0,
            worker_process: Some(PROCESS),
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
    fn requested_action_is_applied_before_attempts_are_exhausted() {
        let ClaimDecision::Transition(transition) = decide_claim(&running(Some(RequestedAction::Pause)), OTHER, 2)
        else {
            panic!("the job must not be claimed")
        };
        assert_eq!(transition.status, Status::Paused);
        let ClaimDecision::Transition(transition) = decide_claim(&running(None), OTHER, 3) else {
            panic!("the job must not be claimed")
        };
        assert_eq!(transition.error.expect("the job has failed").code, "attempts_exhausted");
    }

    #[test]
    fn only_the_death_of_another_process_counts() {
        let claimed = |job: &JobState, process| decide_claim(job, process, 10);
        assert_eq!(claimed(&running(None), PROCESS), ClaimDecision::Claim { process_deaths: 2 });
        let reported = JobState { worker_process: None, ..running(None) };
        assert_eq!(claimed(&reported, OTHER), ClaimDecision::Claim { process_deaths: 2 });
        let queued = JobState { status: Status::Queued, ..running(None) };
        assert_eq!(claimed(&queued, OTHER), ClaimDecision::Claim { process_deaths: 2 });
        let first = JobState { process_deaths: 0, ..running(None) };
        assert_eq!(claimed(&first, OTHER), ClaimDecision::Claim { process_deaths: 1 });
        let ClaimDecision::Transition(transition) = claimed(&running(None), OTHER) else { panic!("the job must wait") };
        assert_eq!((transition.status, transition.process_deaths), (Status::Queued, 3));
        assert_eq!(transition.retry_delay, Duration::from_secs(2));
    }

    #[test]
    fn internal_errors_are_counted_and_faults_of_the_environment_are_not() {
        let error = JobError { code: "internal".to_string(), detail: "the cause".to_string() };
        let job = JobState { internal_errors: 8, ..running(None) };
        let ninth = record_failed_attempt(&job, AttemptFault::Internal, &error, 10);
        assert_eq!((ninth.status, ninth.internal_errors), (Status::Queued, 9));
        assert_eq!(ninth.retry_delay, Duration::from_secs(256));
        let tenth =
            record_failed_attempt(&JobState { internal_errors: 9, ..job.clone() }, AttemptFault::Internal, &error, 10);
        let failure = tenth.error.expect("the job has failed");
        assert_eq!((tenth.status, failure.code.as_str()), (Status::Failed, "attempts_exhausted"));
        assert!(failure.detail.contains("the cause"), "{}", failure.detail);
        let full =
            record_failed_attempt(&JobState { internal_errors: 9, ..job }, AttemptFault::Environment, &error, 10);
        assert_eq!((full.status, full.internal_errors), (Status::Queued, 9));
        assert_eq!(full.retry_delay, ENVIRONMENT_RETRY_DELAY);
    }

    #[test]
    fn backoff_starts_at_zero_and_has_a_limit() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 9, 10, 100].map(|failures| backoff(failures).as_secs()).to_vec();
        assert_eq!(seconds, [0, 1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn only_a_failed_job_is_retried_and_its_counts_start_again() {
        let failed = JobState { status: Status::Failed, internal_errors: 10, ..running(None) };
        let transition = retry(&failed).unwrap();
        assert_eq!((transition.status, transition.process_deaths, transition.internal_errors), (Status::Queued, 0, 0));
        assert_eq!(retry(&running(None)).unwrap_err().code(), "job_not_failed");
    }
}

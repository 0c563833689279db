//! Outcomes of an attempt, and the classification of its errors.

use super::lease_guard::LeaseLost;
use crate::store::JobError;
use espalier_core::error::{Error, Problem};
use espalier_core::training::StopReason;

/// How an attempt ended. The job's own result is in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The job succeeded, failed or was stopped.
    Finished,
    /// An internal error ended the attempt; the slot waits before its next claim.
    InternalError,
}

/// Why an attempt publishes no adapter.
#[derive(Debug)]
pub enum AttemptError {
    /// Cancelled, paused, requeued, or without a lease.
    Stopped(StopReason),
    /// The job cannot succeed, in any number of attempts.
    Failed(JobError),
    /// Error of the server or the machine: another attempt may succeed.
    Internal(Error),
}

impl From<LeaseLost> for AttemptError {
    fn from(_: LeaseLost) -> Self {
        Self::Stopped(StopReason::LeaseLost)
    }
}

/// Classifies errors of reading, training and publishing. `Conflict` means that a file or the base differs from the one that
/// the job was submitted for. Errors of the store never get here: the lease guard turns them into [`LeaseLost`].
impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(problem) | Error::NotFound(problem) | Error::Conflict(problem) => {
                Self::Failed(to_job_error(problem))
            }
            Error::Busy { .. } | Error::Internal(_) => Self::Internal(error),
        }
    }
}

fn to_job_error(problem: Problem) -> JobError {
    JobError { code: problem.code.to_string(), detail: problem.detail }
}

/// Error in the row of a job that is tried again after an internal error; the error itself is in the log.
pub fn retryable_job_error() -> JobError {
    JobError {
        code: "internal".to_string(),
        detail: "the attempt ended in an internal error, which is in the server's log; it is tried again".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_errors_fail_the_job_and_internal_errors_are_retried() {
        let invalid = Error::invalid("training_diverged", "lower learning_rate");
        let AttemptError::Failed(error) = AttemptError::from(invalid) else { panic!("must fail") };
        assert_eq!((error.code.as_str(), error.detail.as_str()), ("training_diverged", "lower learning_rate"));
        assert!(matches!(AttemptError::from(Error::internal("disk full")), AttemptError::Internal(_)));
        assert!(matches!(AttemptError::from(LeaseLost), AttemptError::Stopped(StopReason::LeaseLost)));
    }
}

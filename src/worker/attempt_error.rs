//! Why an attempt ends without an adapter.

use super::lease_guard::LeaseLost;
use crate::store::JobError;
use espalier_core::error::{Error, Problem};
use espalier_core::training::StopReason;

#[derive(Debug)]
pub enum AttemptError {
    /// As told; the lease may be lost.
    Stopped(StopReason),
    /// The job cannot succeed, however often it is tried.
    Failed(JobError),
    /// Our fault, or the machine's: another attempt may succeed.
    Internal(Error),
}

impl From<LeaseLost> for AttemptError {
    fn from(_: LeaseLost) -> Self {
        Self::Stopped(StopReason::LeaseLost)
    }
}

/// Of the work itself, not of the store: there `Conflict` means that a file or the base is not what the job was made for.
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

/// What the owner is told while a job that broke is tried again; the reason itself is in the log.
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

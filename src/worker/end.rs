//! Why an attempt ends without an adapter.

use super::hold::Lost;
use crate::store::JobError;
use espalier_core::error::{Error, Problem};
use espalier_core::training::Stop;

#[derive(Debug)]
pub enum End {
    /// As told; the lease may be lost.
    Stopped(Stop),
    /// The job cannot succeed, however often it is tried.
    Failed(JobError),
    /// Our fault, or the machine's: another attempt may succeed.
    Broke(Error),
}

impl From<Lost> for End {
    fn from(_: Lost) -> Self {
        Self::Stopped(Stop::Abandon)
    }
}

/// Of the work itself, not of the store: there `Conflict` means that a file or the base is not what the job was made for.
impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(problem) | Error::NotFound(problem) | Error::Conflict(problem) => {
                Self::Failed(told(problem))
            }
            Error::Busy { .. } | Error::Internal(_) => Self::Broke(error),
        }
    }
}

fn told(problem: Problem) -> JobError {
    JobError { code: problem.code.to_string(), detail: problem.detail }
}

/// What the owner is told while a job that broke is tried again; the reason itself is in the log.
pub fn to_be_tried_again() -> JobError {
    JobError {
        code: "internal".to_string(),
        detail: "the attempt ended in an internal error, which is in the server's log; it is tried again".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_owner_can_mend_fails_the_job_and_what_we_broke_is_tried_again() {
        let invalid = Error::invalid("training_diverged", "lower learning_rate");
        let End::Failed(error) = End::from(invalid) else { panic!("must fail") };
        assert_eq!((error.code.as_str(), error.detail.as_str()), ("training_diverged", "lower learning_rate"));
        assert!(matches!(End::from(Error::internal("disk full")), End::Broke(_)));
        assert!(matches!(End::from(Lost), End::Stopped(Stop::Abandon)));
    }
}

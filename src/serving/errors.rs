//! Errors that several parts of serving return.

use espalier_core::error::Error;
use std::time::Duration;

/// `Retry-After` of a `Busy` error: the queues move on within this time.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// `Busy` (`shutting_down`).
pub fn shutting_down() -> Error {
    let detail = "the server is shutting down: send the request again in a moment";
    Error::busy("shutting_down", detail, RETRY_AFTER)
}

/// Copies an error for another caller. The source chain of an internal error becomes its message.
pub fn clone_error(error: &Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::Invalid(problem.clone()),
        Error::NotFound(problem) => Error::NotFound(problem.clone()),
        Error::Conflict(problem) => Error::Conflict(problem.clone()),
        Error::QuotaExceeded(problem) => Error::QuotaExceeded(problem.clone()),
        Error::Busy { problem, retry_after } => Error::Busy { problem: problem.clone(), retry_after: *retry_after },
        Error::StorageFull(error) => Error::StorageFull(anyhow::anyhow!("{error:#}")),
        Error::Internal(error) => Error::internal(format!("{error:#}")),
    }
}

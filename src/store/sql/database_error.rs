//! Classifies the errors of the databases: unavailable, out of disk space, or internal.

use espalier_core::error::{Error, Result};
use std::fmt::Display;
use std::time::Duration;

/// `Retry-After` while the database is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// SQLite's primary result codes, the lower 8 bits of a code: <https://sqlite.org/rescode.html>.
mod sqlite_code {
    pub const BUSY: i64 = 5;
    pub const LOCKED: i64 = 6;
    pub const READONLY: i64 = 8;
    pub const IOERR: i64 = 10;
    pub const FULL: i64 = 13;
    pub const CANTOPEN: i64 = 14;
}

/// What an error says about the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It may answer a repeated call.
    Unavailable,
    StorageFull,
    /// It has refused the statement.
    Refused,
}

/// Converts errors into [`Error`] with the operation that failed. An error of a database that is unavailable becomes
/// `Busy` (`database_unavailable`), one of a full disk `StorageFull`, every other `Internal`.
pub trait Context<T> {
    fn context(self, operation: &str) -> Result<T>;
    fn with_context<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E> Context<T> for std::result::Result<T, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn context(self, operation: &str) -> Result<T> {
        self.with_context(|| operation)
    }

    fn with_context<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| {
            let cause = anyhow::Error::new(error).context(operation().to_string());
            match cause.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()).map(condition) {
                Some(Condition::Unavailable) => unavailable(&cause),
                Some(Condition::StorageFull) => Error::StorageFull(cause),
                Some(Condition::Refused) | None => Error::from_cause(cause),
            }
        })
    }
}

/// Whether the connection is broken, so that the same statement may succeed on another one.
pub fn is_connection_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_postgres_shutdown(&code)),
        _ => false,
    }
}

/// Whether another connection holds a lock of the SQLite file.
pub fn is_sqlite_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| sqlite_primary_code(&code) == Some(sqlite_code::BUSY))
        }
        _ => false,
    }
}

fn unavailable(cause: &anyhow::Error) -> Error {
    tracing::warn!(error = format!("{cause:#}"), "the database is unavailable");
    Error::busy("database_unavailable", "the database does not answer: try again in a moment", RETRY_AFTER)
}

fn condition(error: &sqlx::Error) -> Condition {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_) => Condition::Unavailable,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // The codes of Postgres have five characters, those of SQLite at most four digits.
            match code.len() {
                5 => postgres_condition(&code),
                _ => sqlite_condition(&code),
            }
        }
        error if is_connection_broken(error) => Condition::Unavailable,
        _ => Condition::Refused,
    }
}

/// Classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn postgres_condition(code: &str) -> Condition {
    match &code[..2] {
        _ if code == "53100" => Condition::StorageFull,
        // Connection exceptions, rolled back transactions (deadlock), insufficient resources, system errors.
        "08" | "40" | "53" | "58" => Condition::Unavailable,
        // Lock not available, idle transaction ended, read-only transaction (a standby after a failover).
        _ if matches!(code, "55P03" | "25P03" | "25006") || is_postgres_shutdown(code) => Condition::Unavailable,
        _ => Condition::Refused,
    }
}

/// Shutdown, crash or start of the server.
fn is_postgres_shutdown(code: &str) -> bool {
    matches!(code, "57P01" | "57P02" | "57P03" | "57P05")
}

fn sqlite_condition(code: &str) -> Condition {
    use sqlite_code::{BUSY, CANTOPEN, FULL, IOERR, LOCKED, READONLY};
    match sqlite_primary_code(code) {
        Some(FULL) => Condition::StorageFull,
        Some(BUSY | LOCKED | READONLY | IOERR | CANTOPEN) => Condition::Unavailable,
        _ => Condition::Refused,
    }
}

fn sqlite_primary_code(code: &str) -> Option<i64> {
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn codes_of_both_databases_are_classified() {
        for (code, expected) in [
            ("57P01", Condition::Unavailable),
            ("08006", Condition::Unavailable),
            ("53300", Condition::Unavailable),
            ("40P01", Condition::Unavailable),
            ("53100", Condition::StorageFull),
            ("23505", Condition::Refused),
            ("42601", Condition::Refused),
        ] {
            assert_eq!(postgres_condition(code), expected, "{code}");
        }
        // 778 is IOERR_WRITE, 2067 a unique constraint.
        for (code, expected) in [
            ("13", Condition::StorageFull),
            ("778", Condition::Unavailable),
            ("5", Condition::Unavailable),
            ("2067", Condition::Refused),
            ("1", Condition::Refused),
        ] {
            assert_eq!(sqlite_condition(code), expected, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_is_busy_and_other_errors_are_internal() {
        let lost: Result<()> = Err(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into())).context("reading a job");
        assert!(matches!(lost.unwrap_err(), Error::Busy { problem, .. } if problem.code == "database_unavailable"));
        let missing: Result<()> = Err(sqlx::Error::RowNotFound).context("reading a job");
        assert_eq!(missing.unwrap_err().code(), "internal");
        let full: Result<()> = Err(io::Error::from_raw_os_error(28)).context("writing");
        assert_eq!(full.unwrap_err().code(), "storage_full");
    }
}

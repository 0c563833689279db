//! Store of one database: runs statements on its pools and inside its transactions.
//! It also runs the migrations of the folder `migrations/`.

use super::database_error::Context;
use super::database_error::is_connection_broken;
use super::dialect::{Dialect, Param, Row, RowLock, params};
use super::row_codec::{self, DecodeRow};
use crate::store::changes::{Change, ChangeReceiver, ChangeSender};
use crate::store::model::Connections;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{SqlSafeStr, SqlStr};
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

/// Store in a database of one dialect.
pub struct SqlStore<D: Dialect> {
    dialect: D,
    changes: ChangeSender,
    /// Receives the changes of other processes; `None` if the database does not send them.
    listener: Option<JoinHandle<()>>,
}

impl<D: Dialect> Drop for SqlStore<D> {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// A transaction that may write. Dropping it without a commit rolls it back.
pub struct Transaction<D: Dialect> {
    inner: sqlx::Transaction<'static, D::Database>,
    /// Sent when the transaction is committed.
    recorded: Vec<Change>,
    changes: ChangeSender,
}

impl<D: Dialect> SqlStore<D> {
    /// Call it on a tokio runtime.
    pub fn new(dialect: D) -> Self {
        let changes = ChangeSender::default();
        let listener = dialect.start_listener(changes.clone());
        Self { dialect, changes, listener }
    }

    pub fn changes(&self) -> ChangeReceiver {
        self.changes.subscribe()
    }

    pub fn adapter_changes(&self) -> u64 {
        self.changes.adapter_changes()
    }

    pub fn connections(&self) -> Connections {
        let pools = self.dialect.pools();
        let idle: usize = pools.iter().map(|pool| pool.num_idle()).sum();
        Connections {
            open: pools.iter().map(|pool| pool.size()).sum(),
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
            max: pools.iter().map(|pool| pool.options().get_max_connections()).sum(),
        }
    }

    pub async fn begin(&self) -> Result<Transaction<D>> {
        let begin = self.dialect.begin().instrument(statement_span("begin"));
        let inner = begin.await.context("beginning to write to the database")?;
        Ok(Transaction { inner, recorded: Vec::new(), changes: self.changes.clone() })
    }

    pub async fn fetch_optional(&self, sql: &'static str, params: &[Param<'_>]) -> sqlx::Result<Option<Row<D>>> {
        let fetch = async {
            let mut connection = self.acquire_reader().await?;
            match D::fetch_optional(&mut connection, sql.into_sql_str(), params).await {
                Err(error) if is_connection_broken(&error) => {
                    let mut connection = self.replace_reader(connection).await?;
                    D::fetch_optional(&mut connection, sql.into_sql_str(), params).await
                }
                result => result,
            }
        };
        fetch.instrument(statement_span(sql)).await
    }

    /// # Errors
    /// `RowNotFound` without a row.
    pub async fn fetch_one(&self, sql: &'static str, params: &[Param<'_>]) -> sqlx::Result<Row<D>> {
        self.fetch_optional(sql, params).await?.ok_or(sqlx::Error::RowNotFound)
    }

    pub async fn fetch_all(&self, sql: &'static str, params: &[Param<'_>]) -> sqlx::Result<Vec<Row<D>>> {
        let fetch = async {
            let mut connection = self.acquire_reader().await?;
            match D::fetch_all(&mut connection, sql.into_sql_str(), params).await {
                Err(error) if is_connection_broken(&error) => {
                    let mut connection = self.replace_reader(connection).await?;
                    D::fetch_all(&mut connection, sql.into_sql_str(), params).await
                }
                result => result,
            }
        };
        fetch.instrument(statement_span(sql)).await
    }

    async fn acquire_reader(&self) -> sqlx::Result<PoolConnection<D::Database>> {
        self.dialect.reader_pool().acquire().await
    }

    /// Closes a broken connection and gets another. A read has no side effects, so it can be repeated.
    async fn replace_reader(
        &self,
        mut broken: PoolConnection<D::Database>,
    ) -> sqlx::Result<PoolConnection<D::Database>> {
        broken.close_on_drop();
        drop(broken);
        self.acquire_reader().await
    }

    /// Time of the database server plus the offset that tests have set.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        self.fetch_one("select now from db_now", params![]).await.context("reading the clock")?.timestamp("now")
    }

    /// Commits a write that changes nothing, which fails on a full disk and on a read-only database.
    pub async fn check_write(&self) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "update test_clock set clock_offset = clock_offset";
        transaction.execute(sql, params![]).await.context("writing to the database")?;
        transaction.commit().await
    }

    /// Size of the database on disk, without its log.
    pub async fn database_bytes(&self) -> Result<u64> {
        let row = self.fetch_one(D::DATABASE_BYTES, params![]).await.context("reading the size of the database")?;
        row_codec::decode_u64(&row, "bytes")
    }

    /// Returns the space of deleted rows to the file system.
    pub async fn reclaim_space(&self) -> Result<()> {
        self.dialect.reclaim_space().await.context("returning free space to the file system")
    }

    pub async fn advance_clock(&self, offset: Duration) -> Result<()> {
        let mut transaction = self.begin().await?;
        let sql = "update test_clock set clock_offset = clock_offset + $1";
        transaction.execute(sql, params![offset]).await.context("moving the clock")?;
        transaction.commit().await
    }
}

impl<D: Dialect> Transaction<D> {
    /// Executes a statement and returns the number of affected rows.
    pub async fn execute(&mut self, sql: impl SqlSafeStr + Send, params: &[Param<'_>]) -> sqlx::Result<u64> {
        let sql = sql.into_sql_str();
        let span = statement_span(sql.as_str());
        D::execute(&mut self.inner, sql, params).instrument(span).await
    }

    pub async fn fetch_optional(
        &mut self,
        sql: impl SqlSafeStr + Send,
        params: &[Param<'_>],
    ) -> sqlx::Result<Option<Row<D>>> {
        let sql = sql.into_sql_str();
        let span = statement_span(sql.as_str());
        D::fetch_optional(&mut self.inner, sql, params).instrument(span).await
    }

    /// Returns all rows. Give the statement a limit.
    pub async fn fetch_all(&mut self, sql: &'static str, params: &[Param<'_>]) -> sqlx::Result<Vec<Row<D>>> {
        D::fetch_all(&mut self.inner, sql.into_sql_str(), params).instrument(statement_span(sql)).await
    }

    /// # Errors
    /// `RowNotFound` without a row.
    pub async fn fetch_one(&mut self, sql: impl SqlSafeStr + Send, params: &[Param<'_>]) -> sqlx::Result<Row<D>> {
        self.fetch_optional(sql, params).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Fetches a row and locks it until the transaction ends.
    pub async fn fetch_locked(
        &mut self,
        sql: &'static str,
        lock: RowLock,
        params: &[Param<'_>],
    ) -> sqlx::Result<Option<Row<D>>> {
        let locking: SqlStr = D::with_row_lock(sql, lock);
        D::fetch_optional(&mut self.inner, locking, params).instrument(statement_span(sql)).await
    }

    /// Serializes the transactions that use the same keys, from here to their end.
    pub async fn acquire_advisory_lock(&mut self, keys: &[&str]) -> sqlx::Result<()> {
        D::acquire_advisory_lock(&mut self.inner, keys).await
    }

    /// Waits for the transactions that have written to this table.
    pub async fn wait_for_writers(&mut self, table: &'static str) -> sqlx::Result<()> {
        D::wait_for_writers(&mut self.inner, table).await
    }

    /// Rolls back and waits for it. Dropping the transaction rolls back a little later.
    pub async fn rollback(self) -> Result<()> {
        self.inner.rollback().await.context("rolling back in the database")
    }

    /// Commits, and tells the processes that wait for the recorded changes.
    pub async fn commit(mut self) -> Result<()> {
        if !self.recorded.is_empty() {
            let notify = D::notify(&mut self.inner, &self.recorded);
            notify.instrument(statement_span("notify")).await.context("announcing changes")?;
        }
        let commit = self.inner.commit().instrument(statement_span("commit"));
        commit.await.context("committing to the database")?;
        self.recorded.iter().for_each(|change| self.changes.send(*change));
        Ok(())
    }

    /// Records a change that is announced when the transaction is committed.
    pub fn record_change(&mut self, change: Change) {
        if !self.recorded.contains(&change) {
            self.recorded.push(change);
        }
    }
}

/// Span of a statement, whose values are parameters and not in its text.
fn statement_span(sql: &str) -> Span {
    tracing::debug_span!("database", statement = sql)
}

pub fn sqlite_migrator() -> Migrator {
    Migrator::with_migrations(vec![
        migration(1, "start", include_str!("../../../migrations/sqlite/0001_start.sql")),
        migration(2, "reliability", include_str!("../../../migrations/sqlite/0002_reliability.sql")),
        migration(3, "job metadata", include_str!("../../../migrations/sqlite/0003_job_metadata.sql")),
        migration(4, "access", include_str!("../../../migrations/sqlite/0004_access.sql")),
        migration(5, "fair queue", include_str!("../../../migrations/sqlite/0005_fair_queue.sql")),
        migration(6, "trace context", include_str!("../../../migrations/sqlite/0006_trace_context.sql")),
        migration(7, "retention", include_str!("../../../migrations/sqlite/0007_retention.sql")),
        migration(8, "idempotency keys", include_str!("../../../migrations/sqlite/0008_idempotency_keys.sql")),
        migration(9, "webhooks", include_str!("../../../migrations/sqlite/0009_webhooks.sql")),
        migration(10, "slot time", include_str!("../../../migrations/sqlite/0010_slot_time.sql")),
        migration(11, "blob reservations", include_str!("../../../migrations/sqlite/0011_blob_reservations.sql")),
        migration(12, "job platform", include_str!("../../../migrations/sqlite/0012_job_platform.sql")),
    ])
}

pub fn postgres_migrator() -> Migrator {
    Migrator::with_migrations(vec![
        migration(1, "start", include_str!("../../../migrations/postgres/0001_start.sql")),
        migration(2, "reliability", include_str!("../../../migrations/postgres/0002_reliability.sql")),
        migration(3, "job metadata", include_str!("../../../migrations/postgres/0003_job_metadata.sql")),
        migration(4, "access", include_str!("../../../migrations/postgres/0004_access.sql")),
        migration(5, "fair queue", include_str!("../../../migrations/postgres/0005_fair_queue.sql")),
        migration(6, "trace context", include_str!("../../../migrations/postgres/0006_trace_context.sql")),
        migration(7, "retention", include_str!("../../../migrations/postgres/0007_retention.sql")),
        migration(8, "idempotency keys", include_str!("../../../migrations/postgres/0008_idempotency_keys.sql")),
        migration(9, "webhooks", include_str!("../../../migrations/postgres/0009_webhooks.sql")),
        migration(10, "slot time", include_str!("../../../migrations/postgres/0010_slot_time.sql")),
        migration(11, "blob reservations", include_str!("../../../migrations/postgres/0011_blob_reservations.sql")),
        migration(12, "job platform", include_str!("../../../migrations/postgres/0012_job_platform.sql")),
    ])
}

fn migration(version: i64, description: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
}

/// Replaces the errors of a database that this version did not create by errors that say what to do.
pub fn map_migrate_error(result: Result<(), MigrateError>) -> Result<()> {
    match result {
        Err(MigrateError::VersionMissing(version)) => Err(Error::invalid(
            "database_too_new",
            format!(
                "the database was made by a newer espalier (it has migration {version}): start that version, or give \
                 another database"
            ),
        )),
        Err(MigrateError::VersionMismatch(version)) => Err(Error::invalid(
            "database_unknown",
            format!("the database's migration {version} is not the one of this espalier: give the right database"),
        )),
        other => other.context("preparing the database's tables"),
    }
}

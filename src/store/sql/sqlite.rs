//! SQLite: one connection that writes, several that read (WAL).

use super::connection;
use super::database_error::{Context, is_sqlite_busy};
use super::dialect::{Connection, Dialect, Param, Row, RowLock};
use super::row_codec::{DecodeRow, get};
use crate::store::changes::{Change, ChangeSender};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use serde_json::Value;
use sqlx::sqlite::{
    SqliteArguments, SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, Connection as _, Executor, SqlSafeStr, SqlStr, SqliteConnection};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use uuid::Uuid;

const READER_CONNECTIONS: u32 = 4;

/// Time limit for waiting while another process writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Time limit for emptying the log, in which other writers wait.
const TRUNCATION_TIMEOUT: Duration = Duration::from_millis(100);

/// Time limit for getting a connection, while all are in use or while the file cannot be opened.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Sqlite {
    reader_pool: SqlitePool,
    writer_pool: SqlitePool,
}

impl Sqlite {
    /// Opens the file, creates it if it is missing, and migrates it. The URL is `sqlite://` and the file's path,
    /// absolute or relative to the working directory.
    ///
    /// # Errors
    /// `Invalid`.
    pub async fn connect(url: &str) -> Result<Self> {
        let options = connect_options(url)?;
        let writer_pool = connect_writer(&options).await.map_err(|error| open_error(&options, &error))?;
        migrate(&writer_pool).await?;
        // All writes go through the one writer connection; `query_only` makes a write on a reader an error.
        let read_only = options.clone().pragma("query_only", "on");
        let reader_pool = pool_options(READER_CONNECTIONS)
            .connect_with(read_only)
            .await
            .map_err(|error| open_error(&options, &error))?;
        Ok(Self { reader_pool, writer_pool })
    }
}

#[async_trait]
impl Dialect for Sqlite {
    type Database = sqlx::Sqlite;

    const NAME: &'static str = "sqlite";

    const CLOCK_RESOLUTION: Duration = Duration::from_millis(1);

    const DATABASE_BYTES: &'static str =
        "select page_count * page_size as bytes from pragma_page_count(), pragma_page_size()";

    fn reader_pool(&self) -> &SqlitePool {
        &self.reader_pool
    }

    fn pools(&self) -> Vec<&SqlitePool> {
        vec![&self.reader_pool, &self.writer_pool]
    }

    /// Takes the file's write lock at once, so that what the transaction has read is unchanged when it writes.
    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        self.writer_pool.begin_with("begin immediate").await
    }

    fn with_row_lock(sql: &'static str, _lock: RowLock) -> SqlStr {
        sql.into_sql_str()
    }

    async fn acquire_advisory_lock(_connection: &mut Connection<Self>, _keys: &[&str]) -> sqlx::Result<()> {
        Ok(())
    }

    async fn wait_for_writers(_connection: &mut Connection<Self>, _table: &'static str) -> sqlx::Result<()> {
        Ok(())
    }

    async fn notify(_connection: &mut Connection<Self>, _changes: &[Change]) -> sqlx::Result<()> {
        Ok(())
    }

    fn start_listener(&self, _changes: ChangeSender) -> Option<JoinHandle<()>> {
        None
    }

    async fn reclaim_space(&self) -> sqlx::Result<()> {
        let mut free_pages = i64::MAX;
        // A file without `auto_vacuum`, as older versions made it, keeps its free pages.
        loop {
            let left = sqlx::query_scalar("pragma freelist_count").fetch_one(&self.reader_pool).await?;
            if left == 0 || left >= free_pages {
                break;
            }
            free_pages = left;
            let started = Instant::now();
            let mut connection = self.writer_pool.acquire().await?;
            connection.execute("pragma incremental_vacuum(1000)").await?;
            drop(connection);
            tokio::time::sleep(started.elapsed()).await;
        }
        self.truncate_log().await
    }

    async fn execute(connection: &mut Connection<Self>, sql: SqlStr, params: &[Param<'_>]) -> sqlx::Result<u64> {
        Ok(sqlx::query_with(sql, encode(params)?).execute(connection).await?.rows_affected())
    }

    async fn fetch_optional(
        connection: &mut Connection<Self>,
        sql: SqlStr,
        params: &[Param<'_>],
    ) -> sqlx::Result<Option<Row<Self>>> {
        sqlx::query_with(sql, encode(params)?).fetch_optional(connection).await
    }

    async fn fetch_all(
        connection: &mut Connection<Self>,
        sql: SqlStr,
        params: &[Param<'_>],
    ) -> sqlx::Result<Vec<Row<Self>>> {
        sqlx::query_with(sql, encode(params)?).fetch_all(connection).await
    }
}

impl Sqlite {
    /// Writes the log into the database file and empties it, unless it is in use.
    async fn truncate_log(&self) -> sqlx::Result<()> {
        let mut connection = self.writer_pool.acquire().await?;
        let busy_timeout = |timeout: Duration| AssertSqlSafe(format!("pragma busy_timeout = {}", timeout.as_millis()));
        connection.execute(busy_timeout(TRUNCATION_TIMEOUT)).await?;
        // The statement reports a log in use in its row; it fails only if another process truncates too.
        let truncated = connection.execute("pragma wal_checkpoint(truncate)").await;
        connection.execute(busy_timeout(BUSY_TIMEOUT)).await?;
        match truncated {
            Err(error) if !is_sqlite_busy(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Encodes ids as blobs of 16 bytes, JSON as text, timestamps and durations as milliseconds.
fn encode(params: &[Param<'_>]) -> sqlx::Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for param in params {
        match *param {
            Param::Uuid(value) => arguments.add(value),
            Param::Text(value) => arguments.add(value),
            Param::Integer(value) => arguments.add(value),
            Param::Boolean(value) => arguments.add(value),
            Param::Json(value) => arguments.add(value),
            Param::Timestamp(value) => arguments.add(value.map(|time| time.timestamp_millis())),
            Param::Duration(value) => i64::try_from(value.as_millis())
                .map_err(Into::into)
                .and_then(|milliseconds| arguments.add(milliseconds)),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub fn connect_options(url: &str) -> Result<SqliteConnectOptions> {
    let file = url.trim_start_matches("sqlite://").split('?').next().unwrap_or_default();
    if file.is_empty() || file == ":memory:" || url.contains("mode=memory") {
        let detail =
            "a SQLite database must be a file, because jobs have to outlive the server: sqlite://path/to/file.db";
        return Err(Error::invalid("invalid_database_url", detail));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| Error::invalid("invalid_database_url", format!("\"{url}\" is not a SQLite URL: {error}")))?;
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A committed lease or publication must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // The pages of deleted rows can be returned to the file system. It holds for new files.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        // Deleted content is overwritten.
        .pragma("secure_delete", "on")
        .busy_timeout(BUSY_TIMEOUT))
}

fn pool_options(max_connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_release(|connection, _| Box::pin(is_reusable(connection)))
}

/// Connects, and repeats it while other processes open the same file. The change of a new file to WAL fails at once with
/// `SQLITE_BUSY`, without waiting for the busy timeout, when two connections make it at the same time.
async fn connect_writer(options: &SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let pool = pool_options(1).after_connect(|connection, _| Box::pin(check_writable(connection)));
        match pool.connect_with(options.clone()).await {
            Err(error) if is_sqlite_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(BUSY_RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// SQLite opens a file read-only if it cannot be opened for writing at that moment, and such a connection never writes.
async fn check_writable(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    // On a read-only connection `begin immediate` succeeds and begins to read.
    connection.execute("begin immediate; create table write_check (id integer); rollback").await.map(drop)
}

/// Whether a connection that returns to its pool is outside a transaction; otherwise the pool closes it and opens another.
///
/// SQLite rolls a transaction back by itself when a write fails, as on a full disk. The rollback of the dropped transaction then
/// fails, and sqlx counts the transaction as open for ever.
async fn is_reusable(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // The rollback of a dropped transaction is only queued; the ping ends after it.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Runs all migrations in one writing transaction, so that two processes that start on a new file do it one after the
/// other.
async fn migrate(writer_pool: &SqlitePool) -> Result<()> {
    let mut transaction =
        writer_pool.begin_with("begin immediate").await.context("beginning to prepare the database")?;
    connection::map_migrate_error(connection::sqlite_migrator().run_direct(None, &mut *transaction, false).await)?;
    transaction.commit().await.context("committing to the database")
}

pub fn open_error(options: &SqliteConnectOptions, error: &sqlx::Error) -> Error {
    let file = options.get_filename().display();
    let detail = format!(
        "cannot open the database {file}: {error}; check that it is a SQLite file, and that its folder exists and may be \
         written to"
    );
    Error::invalid("database_unreachable", detail)
}

impl DecodeRow for SqliteRow {
    fn opt_uuid(&self, column: &str) -> Result<Option<Uuid>> {
        get(self, column)
    }

    fn opt_text(&self, column: &str) -> Result<Option<String>> {
        get(self, column)
    }

    fn opt_integer(&self, column: &str) -> Result<Option<i64>> {
        get(self, column)
    }

    fn opt_timestamp(&self, column: &str) -> Result<Option<DateTime<Utc>>> {
        let Some(milliseconds) = self.opt_integer(column)? else { return Ok(None) };
        let time = DateTime::from_timestamp_millis(milliseconds);
        time.map(Some).ok_or_else(|| Error::internal(format!("the column {column} holds no time: {milliseconds}")))
    }

    fn opt_json(&self, column: &str) -> Result<Option<Value>> {
        get(self, column)
    }
}

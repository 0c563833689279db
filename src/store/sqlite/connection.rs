//! The SQLite file: one connection that writes, several that read beside it (WAL). Knows no table.

use crate::store::migrations;
use crate::store::row_decoding::DecodeRow;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Error, Result};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

const READER_CONNECTIONS: u32 = 4;

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

pub type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

/// A store in one file.
pub struct SqliteStore {
    pub(super) reader_pool: SqlitePool,
    writer_pool: SqlitePool,
}

impl SqliteStore {
    /// `sqlite://` and the file's path, absolute or from the working folder. The file is made where it is missing.
    pub async fn connect(url: &str) -> Result<Self> {
        let options = connect_options(url)?;
        let writer =
            pool_options(1).connect_with(options.clone()).await.map_err(|error| open_error(&options, &error))?;
        migrate(&writer).await?;
        // a reader that could write would one day do it outside the one writer's queue
        let read_only = options.clone().pragma("query_only", "on");
        let readers = pool_options(READER_CONNECTIONS)
            .connect_with(read_only)
            .await
            .map_err(|error| open_error(&options, &error))?;
        Ok(Self { reader_pool: readers, writer_pool: writer })
    }

    /// Takes the file's one right to write at once, so that what a transaction has read stays so until it writes.
    pub(super) async fn begin(&self) -> Result<Transaction> {
        self.writer_pool.begin_with("begin immediate").await.context("beginning to write to the database")
    }
}

pub(super) async fn commit(transaction: Transaction) -> Result<()> {
    transaction.commit().await.context("committing to the database")
}

fn connect_options(url: &str) -> Result<SqliteConnectOptions> {
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
        // a lease or a publication that was answered for must survive a power cut
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT))
}

fn pool_options(max_connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(max_connections).idle_timeout(None).max_lifetime(None)
}

/// All in one writing transaction: two processes that start on a new file take turns.
async fn migrate(writer: &SqlitePool) -> Result<()> {
    let mut transaction = writer.begin_with("begin immediate").await.context("beginning to prepare the database")?;
    migrations::map_migrate_error(migrations::sqlite_migrator().run_direct(None, &mut *transaction, false).await)?;
    commit(transaction).await
}

fn open_error(options: &SqliteConnectOptions, error: &sqlx::Error) -> Error {
    let file = options.get_filename().display();
    let detail = format!(
        "cannot open the database {file}: {error}; check that it is a SQLite file, and that its folder exists and may be \
         written to"
    );
    Error::invalid("database_unreachable", detail)
}

impl DecodeRow for SqliteRow {
    fn opt_uuid(&self, column: &str) -> Result<Option<Uuid>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_text(&self, column: &str) -> Result<Option<String>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_integer(&self, column: &str) -> Result<Option<i64>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_timestamp(&self, column: &str) -> Result<Option<DateTime<Utc>>> {
        let Some(milliseconds) = self.opt_integer(column)? else { return Ok(None) };
        let time = DateTime::from_timestamp_millis(milliseconds);
        time.map(Some).ok_or_else(|| Error::internal(format!("the column {column} holds no time: {milliseconds}")))
    }

    fn opt_json(&self, column: &str) -> Result<Option<Value>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }
}

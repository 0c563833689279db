//! Postgres: a pool of connections, row locks and advisory locks.

use super::connection;
use super::database_error::Context;
use super::dialect::{Connection, Dialect, Param, Row, RowLock};
use super::postgres_pooler;
use super::row_codec::{DecodeRow, get};
use crate::store::changes::{Change, ChangeSender};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection, SqlSafeStr, SqlStr};
use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

const MAX_CONNECTIONS: u32 = 16;

/// Time limit for connecting to the server at the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for getting a connection, while all are in use or while the server does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Channel of changes. Its name is from when only jobs were announced.
const CHANNEL: &str = "espalier_jobs";

/// Key of the lock that processes behind a pooler hold while they migrate the database.
const MIGRATION_LOCK: i64 = 0x65_7370_616c;

/// Delay before a listener connects again.
const LISTENER_BACKOFF: Duration = Duration::from_secs(1);

pub struct Postgres {
    pool: PgPool,
    options: PgConnectOptions,
    /// A pooler shares the connections: nothing may rely on the state of a session.
    is_pooled: bool,
}

impl Postgres {
    /// Connects and migrates the database. The URL is `postgres://user:password@host:port/database`, with sqlx's
    /// parameters (`sslmode`, …).
    ///
    /// # Errors
    /// `Invalid`; the detail never contains the password.
    pub async fn connect(url: &str) -> Result<Self> {
        let options = parse_url(url)?;
        // The migrations use a connection of their own: the pool would hide why connecting fails, and a pooled
        // connection would keep the migration lock after a failed migration.
        let mut migration_connection = connect_single(&options).await?;
        let is_pooled = postgres_pooler::shares_connections(&options).await.context("looking for a pooler")?;
        if is_pooled {
            tracing::info!("connections go through a pooler: other processes' changes are polled for");
        }
        migrate(&options, &mut migration_connection, is_pooled).await?;
        migration_connection.close().await.context("closing the connection that prepared the database")?;
        let pool = PgPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = match is_pooled {
            true => pool,
            false => pool.after_connect(|connection, _| Box::pin(set_idle_transaction_timeout(connection))),
        };
        Ok(Self { pool: pool.connect_lazy_with(options.clone()), options, is_pooled })
    }
}

#[async_trait]
impl Dialect for Postgres {
    type Database = sqlx::Postgres;

    const NAME: &'static str = "postgres";

    const CLOCK_RESOLUTION: Duration = Duration::from_micros(1);

    const DATABASE_BYTES: &'static str = "select pg_database_size(current_database()) as bytes";

    fn reader_pool(&self) -> &PgPool {
        &self.pool
    }

    fn pools(&self) -> Vec<&PgPool> {
        vec![&self.pool]
    }

    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        match self.is_pooled {
            true => self.pool.begin_with(BEGIN_WITH_TIMEOUT).await,
            false => self.pool.begin().await,
        }
    }

    fn with_row_lock(sql: &'static str, lock: RowLock) -> SqlStr {
        let clause = match lock {
            RowLock::Share => "for share",
            RowLock::Update => "for update",
            RowLock::UpdateSkipLocked => "for update skip locked",
        };
        AssertSqlSafe(format!("{sql} {clause}")).into_sql_str()
    }

    async fn acquire_advisory_lock(connection: &mut Connection<Self>, keys: &[&str]) -> sqlx::Result<()> {
        // The hash of each key seeds the hash of the key before it.
        let hash =
            (1..=keys.len()).rev().fold("0".to_string(), |seed, number| format!("hashtextextended(${number}, {seed})"));
        let sql = AssertSqlSafe(format!("select pg_advisory_xact_lock({hash})"));
        let params: Vec<Param<'_>> = keys.iter().map(|key| Param::from(*key)).collect();
        Self::execute(connection, sql.into_sql_str(), &params).await.map(|_| ())
    }

    async fn wait_for_writers(connection: &mut Connection<Self>, table: &'static str) -> sqlx::Result<()> {
        let sql = AssertSqlSafe(format!("lock table {table} in share mode"));
        Self::execute(connection, sql.into_sql_str(), &[]).await.map(|_| ())
    }

    async fn notify(connection: &mut Connection<Self>, changes: &[Change]) -> sqlx::Result<()> {
        for change in changes {
            let text = change.to_string();
            let params = [Param::from(CHANNEL), Param::from(&text)];
            Self::execute(connection, "select pg_notify($1, $2)".into_sql_str(), &params).await?;
        }
        Ok(())
    }

    fn start_listener(&self, changes: ChangeSender) -> Option<JoinHandle<()>> {
        if self.is_pooled {
            return None;
        }
        let options = self.options.clone();
        Some(tokio::spawn(async move {
            loop {
                let Err(error) = listen(&options, &changes).await;
                tracing::debug!(%error, "changes by other processes are polled for until the database answers");
                tokio::time::sleep(LISTENER_BACKOFF).await;
            }
        }))
    }

    /// Autovacuum makes the space of deleted rows available to new ones.
    async fn reclaim_space(&self) -> sqlx::Result<()> {
        Ok(())
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

/// Encodes ids as `uuid`, JSON as `jsonb`, timestamps as `timestamptz` and durations as `interval`.
fn encode(params: &[Param<'_>]) -> sqlx::Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for param in params {
        match *param {
            Param::Uuid(value) => arguments.add(value),
            Param::Text(value) => arguments.add(value),
            Param::Integer(value) => arguments.add(value),
            Param::Boolean(value) => arguments.add(value),
            Param::Json(value) => arguments.add(value),
            Param::Timestamp(value) => arguments.add(value),
            Param::Duration(value) => i64::try_from(value.as_micros())
                .map_err(Into::into)
                .and_then(|microseconds| arguments.add(PgInterval { months: 0, days: 0, microseconds })),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Migrates the database; one process at a time.
async fn migrate(options: &PgConnectOptions, connection: &mut PgConnection, is_pooled: bool) -> Result<()> {
    let mut migrator = connection::postgres_migrator();
    if !is_pooled {
        return connection::map_migrate_error(migrator.run_direct(None, connection, false).await);
    }
    // The migrator's own lock belongs to a session.
    let mut locking = connect_single(options).await?;
    let mut lock = locking.begin().await.context("locking the database for migrations")?;
    let sql = AssertSqlSafe(format!("select pg_advisory_xact_lock({MIGRATION_LOCK})"));
    lock.execute(sqlx::raw_sql(sql)).await.context("waiting for the migrations of another process")?;
    connection::map_migrate_error(migrator.set_locking(false).run_direct(None, connection, false).await)?;
    lock.commit().await.context("unlocking the database after migrations")?;
    locking.close().await.context("closing the connection that locked the database")
}

/// As [`set_idle_transaction_timeout`], for one transaction.
const BEGIN_WITH_TIMEOUT: &str = "begin; set local idle_in_transaction_session_timeout = '10s'";

/// Limits how long a frozen process can keep its row locks: the server ends its transaction, so that another worker can
/// claim the job.
async fn set_idle_transaction_timeout(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection.execute("set idle_in_transaction_session_timeout = '10s'").await?;
    Ok(())
}

pub fn parse_url(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).map_err(|error| invalid_url_error(&error))?;
    Ok(options.application_name("espalier"))
}

pub async fn connect_single(options: &PgConnectOptions) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connection) => connection.map_err(|error| connect_error(options, &error.to_string())),
        Err(_) => Err(connect_error(options, &format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()))),
    }
}

fn invalid_url_error(error: &sqlx::Error) -> Error {
    let detail = format!(
        "the database URL cannot be read ({error}): it has to look like postgres://user:password@host:5432/database, \
         with characters such as @ : / # in the password written as %40 %3A %2F %23"
    );
    Error::invalid("invalid_database_url", detail)
}

fn connect_error(options: &PgConnectOptions, reason: &str) -> Error {
    let address = match options.get_socket() {
        Some(socket) => format!("the socket {}", socket.display()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let detail = format!(
        "cannot connect to Postgres at {address} as \"{}\", database \"{}\": {reason}; check that the server runs there, \
         and that user, password and database are right",
        options.get_username(),
        options.get_database().unwrap_or(options.get_username()),
    );
    Error::invalid("database_unreachable", detail)
}

impl DecodeRow for PgRow {
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
        get(self, column)
    }

    fn opt_json(&self, column: &str) -> Result<Option<Value>> {
        get(self, column)
    }
}

/// Receives changes over a connection of its own.
async fn listen(options: &PgConnectOptions, changes: &ChangeSender) -> sqlx::Result<Infallible> {
    let pool =
        PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // What was announced before this connection, or while it was lost, is not received.
        changes.send_lagged();
        while let Some(notification) = listener.try_recv().await? {
            if let Ok(change) = notification.payload().parse() {
                changes.send(change);
            }
        }
    }
}

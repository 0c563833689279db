//! The Postgres server: a pool of connections. Knows no table.

use crate::store::migrations;
use crate::store::row_decoding::DecodeRow;
use chrono::{DateTime, Utc};
use espalier_core::error::{Context, Error, Result};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

const MAX_CONNECTIONS: u32 = 16;

/// How long to wait for the server, and for a connection when all are busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// A store in a Postgres database.
pub struct PostgresStore {
    pub(super) pool: PgPool,
}

impl PostgresStore {
    /// `postgres://user:password@host:port/database`, with sqlx's parameters (`sslmode`, …).
    pub async fn connect(url: &str) -> Result<Self> {
        let options =
            PgConnectOptions::from_str(url).map_err(|error| invalid_url_error(&error))?.application_name("espalier");
        // a connection of its own first: the pool would hide why it fails, and the migrations' lock must not outlive
        // a failure in a pooled one
        let mut migration_connection = connect_single(&options).await?;
        migrations::map_migrate_error(
            migrations::postgres_migrator().run_direct(None, &mut migration_connection, false).await,
        )?;
        migration_connection.close().await.context("closing the connection that prepared the database")?;
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(|connection, _| Box::pin(set_idle_transaction_timeout(connection)))
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    pub(super) async fn begin(&self) -> Result<Transaction> {
        self.pool.begin().await.context("beginning to write to the database")
    }
}

pub(super) async fn commit(transaction: Transaction) -> Result<()> {
    transaction.commit().await.context("committing to the database")
}

/// A process that is frozen in the middle of a transaction holds its rows, so that nobody can claim its job: after this
/// time the server lets go of them.
async fn set_idle_transaction_timeout(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection.execute("set idle_in_transaction_session_timeout = '10s'").await?;
    Ok(())
}

async fn connect_single(options: &PgConnectOptions) -> Result<PgConnection> {
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
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_text(&self, column: &str) -> Result<Option<String>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_integer(&self, column: &str) -> Result<Option<i64>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_timestamp(&self, column: &str) -> Result<Option<DateTime<Utc>>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }

    fn opt_json(&self, column: &str) -> Result<Option<Value>> {
        self.try_get(column).with_context(|| format!("reading the column {column}"))
    }
}

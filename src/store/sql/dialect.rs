//! What differs between the two databases: connections, locks, the clock's resolution and the encoding of parameters.

use super::row_codec::DecodeRow;
use crate::store::changes::{Change, ChangeSender};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Database, Pool, SqlStr, Transaction};
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Connection of a dialect's database.
pub type Connection<D> = <<D as Dialect>::Database as Database>::Connection;

/// Row of a dialect's database.
pub type Row<D> = <<D as Dialect>::Database as Database>::Row;

/// A database that the statements of this folder run on.
///
/// Statements use the syntax that Postgres and SQLite share, with `$1` placeholders.
#[async_trait]
pub trait Dialect: Send + Sync + Sized + 'static {
    type Database: Database<Row: DecodeRow>;

    /// `"postgres"` or `"sqlite"`.
    const NAME: &'static str;

    /// Smallest difference between two timestamps that the tables can store.
    const CLOCK_RESOLUTION: Duration;

    /// Statement that returns the size of the database in the column `bytes`.
    const DATABASE_BYTES: &'static str;

    /// Connections for statements outside a transaction. These only read.
    fn reader_pool(&self) -> &Pool<Self::Database>;

    /// All pools of connections.
    fn pools(&self) -> Vec<&Pool<Self::Database>>;

    /// Begins a transaction that may write.
    async fn begin(&self) -> sqlx::Result<Transaction<'static, Self::Database>>;

    /// Adds the locking clause to a `select`. A dialect with one writer at a time returns the statement unchanged.
    fn with_row_lock(sql: &'static str, lock: RowLock) -> SqlStr;

    /// Waits for the lock that these keys name and holds it until the transaction ends. A dialect with one writer at a
    /// time does nothing.
    async fn acquire_advisory_lock(connection: &mut Connection<Self>, keys: &[&str]) -> sqlx::Result<()>;

    /// Waits for the transactions that have written to this table. A dialect with one writer at a time does nothing.
    async fn wait_for_writers(connection: &mut Connection<Self>, table: &'static str) -> sqlx::Result<()>;

    /// Announces changes of jobs to the listeners of other processes when the transaction is committed. A dialect without listeners does
    /// nothing.
    async fn notify(connection: &mut Connection<Self>, changes: &[Change]) -> sqlx::Result<()>;

    /// Starts a task that receives the changes of other processes; `None` for a dialect without listeners.
    fn start_listener(&self, changes: ChangeSender) -> Option<JoinHandle<()>>;

    /// Returns the space of deleted rows to the file system, in steps that block no writer for long. A dialect that does it by
    /// itself does nothing.
    async fn reclaim_space(&self) -> sqlx::Result<()>;

    /// Executes a statement and returns the number of affected rows.
    async fn execute(connection: &mut Connection<Self>, sql: SqlStr, params: &[Param<'_>]) -> sqlx::Result<u64>;

    /// Executes a statement and returns its first row.
    async fn fetch_optional(
        connection: &mut Connection<Self>,
        sql: SqlStr,
        params: &[Param<'_>],
    ) -> sqlx::Result<Option<Row<Self>>>;

    /// Executes a statement and returns its rows.
    async fn fetch_all(
        connection: &mut Connection<Self>,
        sql: SqlStr,
        params: &[Param<'_>],
    ) -> sqlx::Result<Vec<Row<Self>>>;
}

/// Lock that a `select` takes on the rows it returns, held until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLock {
    /// Blocks deletes and updates by other transactions.
    Share,
    /// Blocks deletes, updates and locks by other transactions.
    Update,
    /// Like `Update`, but skips rows that another transaction has locked.
    UpdateSkipLocked,
}

/// Value of a placeholder. `None` keeps its type, because Postgres needs the type of a null.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    Uuid(Option<Uuid>),
    Text(Option<&'a str>),
    Integer(Option<i64>),
    Boolean(bool),
    Json(Option<&'a Value>),
    Timestamp(Option<DateTime<Utc>>),
    /// A span of time that is added to a timestamp.
    Duration(Duration),
}

/// Slice of [`Param`]s for the placeholders `$1`, `$2`, ….
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::sql::dialect::Param::from($value)),*]
    };
}

pub(super) use params;

macro_rules! impl_from {
    ($($type:ty => $param:ident($value:ident) = $expression:expr;)+) => {
        $(
            impl<'a> From<$type> for Param<'a> {
                fn from($value: $type) -> Self {
                    Self::$param($expression)
                }
            }
        )+
    };
}

impl_from! {
    Uuid => Uuid(value) = Some(value);
    Option<Uuid> => Uuid(value) = value;
    &'a str => Text(value) = Some(value);
    &'a String => Text(value) = Some(value);
    Option<&'a str> => Text(value) = value;
    &'a Option<String> => Text(value) = value.as_deref();
    i64 => Integer(value) = Some(value);
    Option<i64> => Integer(value) = value;
    u32 => Integer(value) = Some(i64::from(value));
    bool => Boolean(value) = value;
    &'a Value => Json(value) = Some(value);
    &'a Option<Value> => Json(value) = value.as_ref();
    DateTime<Utc> => Timestamp(value) = Some(value);
    Option<DateTime<Utc>> => Timestamp(value) = value;
    Duration => Duration(value) = value;
}

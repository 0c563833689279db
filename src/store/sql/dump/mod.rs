//! Rows of a whole database as JSON, for backups: read from one snapshot, or written in one transaction.
//!
//! Both databases write the same JSON, so a backup of one can be restored into the other. A row is an array of its columns: ids and
//! bytes as hexadecimal digits, times as milliseconds since 1970, booleans as 0 and 1, JSON as a string. The catalog of the database
//! lists tables and columns, so new ones need no code here.

mod postgres;
mod sqlite;

use super::connection;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};

/// Tables that are no data of users.
const EXCLUDED_TABLES: [&str; 5] =
    ["_sqlx_migrations", "test_clock", "access_version", "blob_reservations", "blob_deletions"];

/// Receives a row as JSON.
pub type RowSink<'a> = &'a mut (dyn FnMut(&str) -> Result<()> + Send);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// SQL type, in lower case.
    pub sql_type: String,
}

/// Transaction on a whole database.
#[async_trait]
pub trait Dump: Send {
    /// Version of the newest migration; `None` for a database without tables of espalier.
    async fn schema_version(&mut self) -> Result<Option<i64>>;
    /// Time of the database's clock.
    async fn now(&mut self) -> Result<DateTime<Utc>>;
    /// Tables; each follows those that it refers to.
    async fn tables(&mut self) -> Result<Vec<Table>>;
    async fn is_empty(&mut self, table: &Table) -> Result<bool>;
    /// Reads all rows of a table.
    async fn export(&mut self, table: &Table, sink: RowSink<'_>) -> Result<()>;
    async fn clear(&mut self, table: &Table) -> Result<()>;
    /// Inserts rows: a JSON array of rows with the columns of `table`.
    async fn import(&mut self, table: &Table, rows: &str) -> Result<()>;
    /// Executes a statement that both databases have.
    async fn execute(&mut self, sql: &'static str) -> Result<()>;
    /// Continues the numbering of columns that the database numbers by itself.
    async fn continue_sequences(&mut self, tables: &[Table]) -> Result<()>;
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// Opens a database to read all its rows as they are at one time. Other processes may write meanwhile.
pub async fn open_snapshot(url: &str) -> Result<Box<dyn Dump>> {
    match url.starts_with("sqlite") {
        true => Ok(Box::new(sqlite::SqliteDump::open_snapshot(url).await?)),
        false => Ok(Box::new(postgres::PostgresDump::open_snapshot(url).await?)),
    }
}

/// Begins to replace the rows of a database. Nothing changes before the commit.
pub async fn open_writer(url: &str) -> Result<Box<dyn Dump>> {
    match url.starts_with("sqlite") {
        true => Ok(Box::new(sqlite::SqliteDump::open_writer(url).await?)),
        false => Ok(Box::new(postgres::PostgresDump::open_writer(url).await?)),
    }
}

/// Version of this program's newest migration.
pub fn newest_schema_version() -> i64 {
    connection::sqlite_migrator().iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Sorts tables such that each follows those that it refers to. `references` has pairs of a table and one that it refers to.
fn sort_by_references(mut tables: Vec<Table>, references: &[(String, String)]) -> Vec<Table> {
    let mut sorted: Vec<Table> = Vec::new();
    while !tables.is_empty() {
        let is_left = |name: &str| tables.iter().any(|table| table.name == name);
        let is_free = |table: &Table| {
            let mut parents = references.iter().filter(|(child, parent)| *child == table.name && child != parent);
            parents.all(|(_, parent)| !is_left(parent))
        };
        let (free, blocked): (Vec<Table>, Vec<Table>) = tables.iter().cloned().partition(is_free);
        if free.is_empty() {
            // Tables that refer to each other have no order.
            sorted.extend(blocked);
            break;
        }
        sorted.extend(free);
        tables = blocked;
    }
    sorted
}

fn unsupported_type(table: &Table, column: &Column) -> Error {
    Error::internal(format!(
        "the column {} of {} has the type {}, which backups lack",
        column.name, table.name, column.sql_type
    ))
}

fn quoted_columns(table: &Table) -> String {
    table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_those_that_they_refer_to() {
        let table = |name: &str| Table { name: name.to_string(), columns: Vec::new() };
        let pair = |child: &str, parent: &str| (child.to_string(), parent.to_string());
        let references = [pair("a", "c"), pair("c", "b"), pair("b", "b")];
        let sorted = sort_by_references(["a", "b", "c", "d"].map(table).to_vec(), &references);
        let names: Vec<&str> = sorted.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["b", "d", "c", "a"]);
        assert_eq!(sort_by_references(["a", "b"].map(table).to_vec(), &[pair("a", "b"), pair("b", "a")]).len(), 2);
    }
}

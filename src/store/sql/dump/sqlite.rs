//! Rows of a SQLite database as JSON.

use super::{Column, Dump, EXCLUDED_TABLES, RowSink, Table, quoted_columns, sort_by_references, unsupported_type};
use crate::store::sql::database_error::Context;
use crate::store::sql::sqlite::{connect_options, open_error};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::{Error, Result};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection};

pub struct SqliteDump {
    connection: SqliteConnection,
}

impl SqliteDump {
    pub async fn open_snapshot(url: &str) -> Result<Self> {
        let options = connect_options(url)?.create_if_missing(false);
        let mut connection = options.connect().await.map_err(|error| open_error(&options, &error))?;
        // The first statement that reads takes the snapshot.
        connection.execute("begin; select count(*) from sqlite_schema").await.context("beginning to read all rows")?;
        Ok(Self { connection })
    }

    pub async fn open_writer(url: &str) -> Result<Self> {
        let options = connect_options(url)?;
        let mut connection = options.connect().await.map_err(|error| open_error(&options, &error))?;
        connection.execute("begin immediate").await.context("beginning to write all rows")?;
        Ok(Self { connection })
    }

    async fn columns(&mut self, table: &str) -> Result<Vec<Column>> {
        let sql = "select name, lower(type) from pragma_table_info($1) order by cid";
        let columns: Vec<(String, String)> =
            sqlx::query_as(sql).bind(table).fetch_all(&mut self.connection).await.context("listing columns")?;
        Ok(columns.into_iter().map(|(name, sql_type)| Column { name, sql_type }).collect())
    }
}

#[async_trait]
impl Dump for SqliteDump {
    async fn schema_version(&mut self) -> Result<Option<i64>> {
        let sql = "select count(*) from sqlite_schema where name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("listing tables")?;
        if tables == 0 {
            return Ok(None);
        }
        let sql = "select max(version) from _sqlx_migrations";
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("reading the version of the database")
    }

    async fn now(&mut self) -> Result<DateTime<Utc>> {
        let sql = "select now from db_now";
        let now: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("reading the clock")?;
        DateTime::from_timestamp_millis(now).ok_or_else(|| Error::internal(format!("the clock shows no time: {now}")))
    }

    async fn tables(&mut self) -> Result<Vec<Table>> {
        let sql = "select name from sqlite_schema where type = 'table' and name not like 'sqlite\\_%' escape '\\'
                   order by name";
        let names: Vec<String> =
            sqlx::query_scalar(sql).fetch_all(&mut self.connection).await.context("listing tables")?;
        let mut tables = Vec::new();
        for name in names.into_iter().filter(|name| !EXCLUDED_TABLES.contains(&name.as_str())) {
            let columns = self.columns(&name).await?;
            tables.push(Table { name, columns });
        }
        let sql = "select tables.name, parents.\"table\" from sqlite_schema as tables,
                       pragma_foreign_key_list(tables.name) as parents
                   where tables.type = 'table'";
        let references: Vec<(String, String)> =
            sqlx::query_as(sql).fetch_all(&mut self.connection).await.context("listing foreign keys")?;
        Ok(sort_by_references(tables, &references))
    }

    async fn is_empty(&mut self, table: &Table) -> Result<bool> {
        let sql = AssertSqlSafe(format!("select not exists (select 1 from \"{}\")", table.name));
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("looking for rows")
    }

    async fn export(&mut self, table: &Table, sink: RowSink<'_>) -> Result<()> {
        let expression = |column: &Column| match column.sql_type.as_str() {
            "blob" => Ok(format!("case when \"{0}\" is null then null else lower(hex(\"{0}\")) end", column.name)),
            "integer" | "text" | "real" => Ok(format!("\"{}\"", column.name)),
            _ => Err(unsupported_type(table, column)),
        };
        let expressions = table.columns.iter().map(expression).collect::<Result<Vec<_>>>()?.join(", ");
        let sql = AssertSqlSafe(format!("select json_array({expressions}) from \"{}\"", table.name));
        let mut rows = sqlx::query_scalar::<_, String>(sql).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.with_context(|| format!("reading the rows of {}", table.name))? {
            sink(&row)?;
        }
        Ok(())
    }

    async fn clear(&mut self, table: &Table) -> Result<()> {
        let sql = AssertSqlSafe(format!("delete from \"{}\"", table.name));
        self.connection.execute(sql).await.context("deleting the rows of a table").map(drop)
    }

    async fn import(&mut self, table: &Table, rows: &str) -> Result<()> {
        let expression = |(index, column): (usize, &Column)| match column.sql_type.as_str() {
            "blob" => Ok(format!("unhex(value ->> {index})")),
            "text" => Ok(format!("value ->> {index}")),
            sql_type @ ("integer" | "real") => Ok(format!("cast(value ->> {index} as {sql_type})")),
            _ => Err(unsupported_type(table, column)),
        };
        let expressions = table.columns.iter().enumerate().map(expression).collect::<Result<Vec<_>>>()?.join(", ");
        let (name, columns) = (&table.name, quoted_columns(table));
        let sql = AssertSqlSafe(format!("insert into \"{name}\" ({columns}) select {expressions} from json_each($1)"));
        let inserted = sqlx::query(sql).bind(rows).execute(&mut self.connection).await;
        inserted.with_context(|| format!("inserting rows of {name}")).map(drop)
    }

    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        self.connection.execute(sql).await.context("completing the restored rows").map(drop)
    }

    /// SQLite continues after the largest number by itself.
    async fn continue_sequences(&mut self, _tables: &[Table]) -> Result<()> {
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.connection.execute("commit").await.context("committing all rows")?;
        self.connection.close().await.context("closing the database")
    }
}

//! Rows of a Postgres database as JSON.

use super::{Column, Dump, EXCLUDED_TABLES, RowSink, Table, quoted_columns, sort_by_references, unsupported_type};
use crate::store::sql::database_error::Context;
use crate::store::sql::postgres::{connect_single, parse_url};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

pub struct PostgresDump {
    connection: PgConnection,
}

impl PostgresDump {
    pub async fn open_snapshot(url: &str) -> Result<Self> {
        Self::open(url, "begin isolation level repeatable read read only").await
    }

    pub async fn open_writer(url: &str) -> Result<Self> {
        Self::open(url, "begin").await
    }

    async fn open(url: &str, begin: &'static str) -> Result<Self> {
        let mut connection = connect_single(&parse_url(url)?).await?;
        connection.execute(begin).await.context("beginning to read or write all rows")?;
        Ok(Self { connection })
    }
}

#[async_trait]
impl Dump for PostgresDump {
    async fn schema_version(&mut self) -> Result<Option<i64>> {
        let sql = "select to_regclass('_sqlx_migrations') is not null";
        let exists: bool = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("listing tables")?;
        if !exists {
            return Ok(None);
        }
        let sql = "select max(version) from _sqlx_migrations";
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("reading the version of the database")
    }

    async fn now(&mut self) -> Result<DateTime<Utc>> {
        let sql = "select now from db_now";
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("reading the clock")
    }

    async fn tables(&mut self) -> Result<Vec<Table>> {
        let sql = "select columns.table_name::text, columns.column_name::text, columns.data_type::text
                   from information_schema.columns
                   join information_schema.tables using (table_schema, table_name)
                   where table_schema = current_schema() and table_type = 'BASE TABLE' and is_generated = 'NEVER'
                   order by columns.table_name, ordinal_position";
        let columns: Vec<(String, String, String)> =
            sqlx::query_as(sql).fetch_all(&mut self.connection).await.context("listing columns")?;
        let mut tables: Vec<Table> = Vec::new();
        for (table, name, sql_type) in columns {
            let column = Column { name, sql_type };
            match tables.last_mut() {
                Some(last) if last.name == table => last.columns.push(column),
                _ => tables.push(Table { name: table, columns: vec![column] }),
            }
        }
        tables.retain(|table| !EXCLUDED_TABLES.contains(&table.name.as_str()));
        let sql = "select child.relname::text, parent.relname::text from pg_constraint
                   join pg_class as child on child.oid = conrelid join pg_class as parent on parent.oid = confrelid
                   where contype = 'f'";
        let references: Vec<(String, String)> =
            sqlx::query_as(sql).fetch_all(&mut self.connection).await.context("listing foreign keys")?;
        Ok(sort_by_references(tables, &references))
    }

    async fn is_empty(&mut self, table: &Table) -> Result<bool> {
        let sql = AssertSqlSafe(format!("select not exists (select 1 from \"{}\")", table.name));
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.context("looking for rows")
    }

    async fn export(&mut self, table: &Table, sink: RowSink<'_>) -> Result<()> {
        let expressions = table.columns.iter().map(|column| export_expression(table, column));
        let expressions = expressions.collect::<Result<Vec<_>>>()?.join(", ");
        let sql = AssertSqlSafe(format!("select json_build_array({expressions})::text from \"{}\"", table.name));
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
        let expressions =
            table.columns.iter().enumerate().map(|(index, column)| import_expression(table, column, index));
        let expressions = expressions.collect::<Result<Vec<_>>>()?.join(", ");
        let (name, columns) = (&table.name, quoted_columns(table));
        let sql = AssertSqlSafe(format!(
            "insert into \"{name}\" ({columns}) overriding system value
             select {expressions} from json_array_elements($1::json) as rows (value)"
        ));
        let inserted = sqlx::query(sql).bind(rows).execute(&mut self.connection).await;
        inserted.with_context(|| format!("inserting rows of {name}")).map(drop)
    }

    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        self.connection.execute(sql).await.context("completing the restored rows").map(drop)
    }

    async fn continue_sequences(&mut self, tables: &[Table]) -> Result<()> {
        for table in tables {
            for Column { name, .. } in &table.columns {
                let sql = "select pg_get_serial_sequence($1, $2)";
                let sequence: Option<String> = sqlx::query_scalar(sql)
                    .bind(format!("\"{}\"", table.name))
                    .bind(name)
                    .fetch_one(&mut self.connection)
                    .await
                    .context("looking for sequences")?;
                let Some(sequence) = sequence else { continue };
                let sql = format!("select setval('{sequence}', max(\"{name}\")) from \"{}\"", table.name);
                self.connection.execute(AssertSqlSafe(sql)).await.context("continuing a sequence")?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.connection.execute("commit").await.context("committing all rows")?;
        self.connection.close().await.context("closing the database")
    }
}

fn export_expression(table: &Table, column: &Column) -> Result<String> {
    let name = format!("\"{}\"", column.name);
    match column.sql_type.as_str() {
        "uuid" => Ok(format!("replace({name}::text, '-', '')")),
        "bytea" => Ok(format!("encode({name}, 'hex')")),
        "json" | "jsonb" => Ok(format!("{name}::text")),
        "boolean" => Ok(format!("{name}::integer")),
        "timestamp with time zone" => Ok(format!("(extract(epoch from {name}) * 1000)::numeric(20, 3)")),
        "text" | "smallint" | "integer" | "bigint" | "double precision" => Ok(name),
        _ => Err(unsupported_type(table, column)),
    }
}

fn import_expression(table: &Table, column: &Column, index: usize) -> Result<String> {
    let value = format!("(value ->> {index})");
    match column.sql_type.as_str() {
        "text" => Ok(value),
        "bytea" => Ok(format!("decode({value}, 'hex')")),
        "boolean" => Ok(format!("{value}::bigint <> 0")),
        "timestamp with time zone" => {
            Ok(format!("timestamptz 'epoch' + ({value}::numeric * 1000)::bigint * interval '1 microsecond'"))
        }
        sql_type @ ("uuid" | "json" | "jsonb" | "smallint" | "integer" | "bigint" | "double precision") => {
            Ok(format!("{value}::{sql_type}"))
        }
        _ => Err(unsupported_type(table, column)),
    }
}

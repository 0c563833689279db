//! Fresh SQLite and Postgres databases, one for each test.

use espalier::store::{self, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::ops::Deref;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// Store on a database of its own.
pub struct Database {
    store: Arc<dyn Store>,
    url: String,
    backend: Backend,
}

enum Backend {
    Sqlite(#[expect(dead_code, reason = "dropping it would delete the database")] TempDir),
    Postgres { url: String, database: String },
}

impl Database {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = store::sqlite_url(&folder.path().join("store.db"));
        let store = store::connect(&url).await.expect("a new SQLite file");
        Self { store, url, backend: Backend::Sqlite(folder) }
    }

    pub async fn postgres() -> Self {
        Self::postgres_from("select 1").await
    }

    /// A Postgres database with what these statements make, migrated to this version.
    pub async fn postgres_from(statements: &str) -> Self {
        let server_url = postgres_server_url();
        let database = format!("test_{}", Uuid::now_v7().simple());
        execute_on_server(&server_url, format!("create database {database}")).await;
        let url = database_url(&server_url, &database);
        execute_on_server(&url, statements.to_string()).await;
        let store = store::connect(&url).await.expect("a new Postgres database");
        Self { store, url, backend: Backend::Postgres { url: server_url, database } }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Opens a second store on the same database, like another process.
    pub async fn reconnect(&self) -> Arc<dyn Store> {
        store::connect(&self.url).await.expect("the database exists")
    }

    /// Drops a Postgres database. A failed test does not call it, so that its database can be inspected.
    pub async fn drop_database(self) {
        drop(self.store);
        if let Backend::Postgres { url, database } = self.backend {
            execute_on_server(&url, format!("drop database {database} with (force)")).await;
        }
    }
}

impl Deref for Database {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

/// URL of a server on which the tests may create databases.
fn postgres_server_url() -> String {
    std::env::var("ESPALIER_TEST_POSTGRES").expect(
        "these tests need a Postgres server in ESPALIER_TEST_POSTGRES: run `make test`, or `scripts/postgres.sh run \
         cargo test`, which start one",
    )
}

fn database_url(server: &str, database: &str) -> String {
    let (address, parameters) = server.split_once('?').unwrap_or((server, ""));
    let (address, _) = address.rsplit_once('/').expect("postgres://user@host:port/database");
    match parameters {
        "" => format!("{address}/{database}"),
        parameters => format!("{address}/{database}?{parameters}"),
    }
}

async fn execute_on_server(url: &str, statement: String) {
    let mut connection = PgConnection::connect(url).await.expect("the server of ESPALIER_TEST_POSTGRES answers");
    connection.execute(AssertSqlSafe(statement)).await.expect("databases can be created and dropped");
    connection.close().await.expect("the connection closes");
}

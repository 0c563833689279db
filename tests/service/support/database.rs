//! Fresh databases for tests, one for each, on SQLite and on Postgres.

use espalier::store::{self, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::ops::Deref;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// A store on a database that nobody else uses.
pub struct Database {
    store: Arc<dyn Store>,
    url: String,
    backend: Backend,
}

enum Backend {
    Sqlite(#[expect(dead_code, reason = "held so that the folder lives as long as the database")] TempDir),
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
        let server_url = postgres_server_url();
        let database = format!("test_{}", Uuid::now_v7().simple());
        execute_on_server(&server_url, format!("create database {database}")).await;
        let url = database_url(&server_url, &database);
        let store = store::connect(&url).await.expect("a new Postgres database");
        Self { store, url, backend: Backend::Postgres { url: server_url, database } }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Another connection to the same database, as another process would have it.
    pub async fn reconnect(&self) -> Arc<dyn Store> {
        store::connect(&self.url).await.expect("the database is there")
    }

    /// Drops a Postgres database. Not called where a test fails, so that one can look at what it left.
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

/// The URL of a server on which databases may be made.
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
    connection.execute(AssertSqlSafe(statement)).await.expect("databases may be made and dropped");
    connection.close().await.expect("the connection closes");
}

//! Connecting: the right database, or words that help.

use super::helpers::expect_error;
use crate::support::database::Database;
use espalier::store::{self, Store};
use espalier_core::error::Error;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use std::sync::Arc;

/// What is wrong, as the operator is told.
async fn connect_error(url: &str, code: &str) -> String {
    let outcome = store::connect(url).await.map(|store: Arc<dyn Store>| store.backend_name());
    let error = expect_error(outcome, code);
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_url_of_neither_database_is_refused() {
    for url in ["", "mysql://root:secret@localhost/db", "data.db", "sqlite:", "SQLITE//x"] {
        let told = connect_error(url, "invalid_database_url").await;
        assert!(told.contains("sqlite://path/to/file.db") && !told.contains("secret"), "{told}");
    }
}

#[tokio::test]
async fn a_database_in_memory_is_refused() {
    for url in ["sqlite://:memory:", "sqlite://", "sqlite://x.db?mode=memory"] {
        assert!(connect_error(url, "invalid_database_url").await.contains("must be a file"));
    }
}

#[tokio::test]
async fn an_sqlite_file_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = store::sqlite_url(&folder.path().join("missing").join("store.db"));
    let told = connect_error(&url, "database_unreachable").await;
    assert!(told.contains("missing/store.db") && told.contains("its folder exists"), "{told}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    std::fs::write(&file, "this is not a database, but it is long enough to be looked at ".repeat(20)).unwrap();
    connect_error(&store::sqlite_url(&file), "database_unreachable").await;
}

#[tokio::test]
async fn any_path_can_hold_an_sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("50% odd? #name.db");
    let store = store::connect(&store::sqlite_url(&file)).await.unwrap();
    store.ping().await.unwrap();
    assert!(file.exists());
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_the_password() {
    // nobody listens on port 1
    let told = connect_error("postgres://me:s3cret@127.0.0.1:1/db", "database_unreachable").await;
    assert!(told.contains("127.0.0.1:1") && told.contains("\"me\"") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_password_that_breaks_the_url_is_not_shown() {
    for url in ["postgres://me:s3cret/x@localhost:5432/db", "postgres://me:s3cret@host:port/db"] {
        let told = connect_error(url, "invalid_database_url").await;
        assert!(told.contains("%2F") && !told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn a_missing_database_is_named() {
    let database = Database::postgres().await;
    let told = connect_error(&format!("{}_missing", database.url()), "database_unreachable").await;
    assert!(told.contains("_missing\"") && told.contains("does not exist"), "{told}");
    database.drop_database().await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'newer', true, '', 0)";
    let sqlite = Database::sqlite().await;
    SqliteConnection::connect(sqlite.url()).await.unwrap().execute(newer).await.unwrap();
    let postgres = Database::postgres().await;
    PgConnection::connect(postgres.url()).await.unwrap().execute(newer).await.unwrap();
    for database in [sqlite, postgres] {
        let told = connect_error(database.url(), "database_too_new").await;
        assert!(told.contains("newer espalier") && told.contains("9999"), "{told}");
        database.drop_database().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_connects_to_a_new_file_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = store::sqlite_url(&folder.path().join("store.db"));
    let starting: Vec<_> = (0..6)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { store::connect(&url).await.map(|store| store.backend_name()) })
        })
        .collect();
    for task in starting {
        task.await.unwrap().unwrap();
    }
}

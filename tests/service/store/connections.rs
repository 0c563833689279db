//! Connecting to a database, and the errors of an unusable one.

use super::helpers::{ALL, add_job, expect_error};
use crate::support::database::Database;
use crate::support::samples::{OWNER, new_dataset};
use espalier::store::{self, Store};
use espalier_core::error::Error;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use std::sync::Arc;

/// Text of the error that connecting to `url` returns.
async fn connect_error(url: &str, code: &str) -> String {
    let outcome = store::connect(url).await.map(|store: Arc<dyn Store>| store.backend_name());
    let error = expect_error(outcome, code);
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn url_of_another_database_is_rejected() {
    for url in ["", "mysql://root:secret@localhost/db", "data.db", "sqlite:", "SQLITE//x"] {
        let detail = connect_error(url, "invalid_database_url").await;
        assert!(detail.contains("sqlite://path/to/file.db") && !detail.contains("secret"), "{detail}");
    }
}

#[tokio::test]
async fn in_memory_database_is_rejected() {
    for url in ["sqlite://:memory:", "sqlite://", "sqlite://x.db?mode=memory"] {
        assert!(connect_error(url, "invalid_database_url").await.contains("must be a file"));
    }
}

#[tokio::test]
async fn error_of_an_sqlite_file_that_cannot_be_created_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = store::sqlite_url(&folder.path().join("missing").join("store.db"));
    let detail = connect_error(&url, "database_unreachable").await;
    assert!(detail.contains("missing/store.db") && detail.contains("its folder exists"), "{detail}");
}

#[tokio::test]
async fn file_of_another_format_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    std::fs::write(&file, "this is not a database, but it is long enough to be looked at ".repeat(20)).unwrap();
    connect_error(&store::sqlite_url(&file), "database_unreachable").await;
}

#[tokio::test]
async fn sqlite_path_may_contain_any_character() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("50% odd? #name.db");
    let store = store::connect(&store::sqlite_url(&file)).await.unwrap();
    store.check_write().await.unwrap();
    assert!(file.exists());
}

/// `raise(rollback)` does what SQLite does when a write fails on a full disk: it ends the transaction.
#[tokio::test]
async fn a_store_works_again_after_sqlite_has_rolled_back_by_itself() {
    let database = Database::sqlite().await;
    let store = store::connect(database.url()).await.unwrap();
    let mut connection = SqliteConnection::connect(database.url()).await.unwrap();
    for (table, event) in [("datasets", "insert"), ("test_clock", "update")] {
        let trigger =
            format!("create trigger fault before {event} on {table} begin select raise(rollback, 'disk full'); end");
        connection.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
        for _ in 0..3 {
            match table {
                "datasets" => expect_error(store.add_dataset(new_dataset("da7a")).await, "internal"),
                _ => expect_error(store.check_write().await, "internal"),
            };
        }
        connection.execute("drop trigger fault").await.unwrap();
        add_job(&*store).await;
        store.check_write().await.unwrap();
    }
    assert_eq!(store.jobs(OWNER, None, ALL).await.unwrap().len(), 2);
}

#[tokio::test]
async fn error_of_an_unreachable_server_names_it_without_the_password() {
    // No server listens on port 1.
    let detail = connect_error("postgres://me:s3cret@127.0.0.1:1/db", "database_unreachable").await;
    assert!(detail.contains("127.0.0.1:1") && detail.contains("\"me\"") && !detail.contains("s3cret"), "{detail}");
}

#[tokio::test]
async fn error_of_an_invalid_url_does_not_contain_the_password() {
    for url in ["postgres://me:s3cret/x@localhost:5432/db", "postgres://me:s3cret@host:port/db"] {
        let detail = connect_error(url, "invalid_database_url").await;
        assert!(detail.contains("%2F") && !detail.contains("s3cret"), "{detail}");
    }
}

#[tokio::test]
async fn error_of_a_missing_database_names_it() {
    let database = Database::postgres().await;
    let detail = connect_error(&format!("{}_missing", database.url()), "database_unreachable").await;
    assert!(detail.contains("_missing\"") && detail.contains("does not exist"), "{detail}");
    database.drop_database().await;
}

#[tokio::test]
async fn database_of_a_newer_version_is_rejected() {
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'newer', true, '', 0)";
    let sqlite = Database::sqlite().await;
    SqliteConnection::connect(sqlite.url()).await.unwrap().execute(newer).await.unwrap();
    let postgres = Database::postgres().await;
    PgConnection::connect(postgres.url()).await.unwrap().execute(newer).await.unwrap();
    for database in [sqlite, postgres] {
        let detail = connect_error(database.url(), "database_too_new").await;
        assert!(detail.contains("newer espalier") && detail.contains("9999"), "{detail}");
        database.drop_database().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_connects_to_a_new_file_share_it() {
    // One round in five had two connections that changed the file to WAL at the same time.
    for _ in 0..30 {
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
}

//! Conformance tests of the store: every rule runs on a fresh SQLite and a fresh Postgres database. Also tests of the data
//! directory.

/// Defines two tests for each rule, one on each database.
macro_rules! on_both_databases {
    ($($rule:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let database = crate::support::database::Database::sqlite().await;
                    super::$rule(&database).await;
                    database.drop_database().await;
                }
            )+
        }

        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let database = crate::support::database::Database::postgres().await;
                    super::$rule(&database).await;
                    database.drop_database().await;
                }
            )+
        }
    };
}

mod access;
mod adapters;
mod attempts;
mod blob_store;
mod blobs;
mod claiming;
mod connections;
mod datasets;
mod events;
mod fair_claims;
pub(crate) mod helpers;
mod idempotency;
mod jobs;
mod leases;
mod migrations;
mod owners;
mod pages;
mod publishing;
mod requested_actions;
mod retention;
mod sharing;
mod webhooks;

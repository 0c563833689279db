//! What a store promises, shown on SQLite and on Postgres, each rule on a fresh database; and the data folder beside it.

/// Makes two tests of each rule, one for each database.
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

mod adapters;
mod attempts;
mod blobs;
mod claiming;
mod connections;
mod datasets;
mod events;
mod helpers;
mod jobs;
mod leases;
mod pages;
mod publishing;
mod requested_actions;
mod sharing;

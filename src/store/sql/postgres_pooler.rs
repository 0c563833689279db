//! Connection poolers such as PgBouncer in transaction mode, which give a client another connection of the server for each transaction. State of a
//! session is lost or seen by others behind them: `LISTEN`, `set`, and advisory locks beyond a transaction.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};
use std::collections::BTreeSet;

/// Comparisons of the connections of two clients; one is enough where no other client uses the pooler.
const ROUNDS: usize = 20;

/// Whether two clients of this URL use one connection of the server by turns.
pub async fn shares_connections(options: &PgConnectOptions) -> sqlx::Result<bool> {
    let (mut one, mut other) = (options.connect().await?, options.connect().await?);
    let (mut of_one, mut of_other) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..ROUNDS {
        of_one.insert(backend_process(&mut one).await?);
        of_other.insert(backend_process(&mut other).await?);
        if !of_one.is_disjoint(&of_other) {
            break;
        }
    }
    one.close().await?;
    other.close().await?;
    Ok(!of_one.is_disjoint(&of_other))
}

/// Process of the server that answers. The statement is not prepared: poolers need not know prepared statements for it.
async fn backend_process(connection: &mut PgConnection) -> sqlx::Result<i32> {
    connection.fetch_one(sqlx::raw_sql("select pg_backend_pid()")).await?.try_get(0)
}

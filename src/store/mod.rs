//! Persistence: jobs, adapters and datasets in SQL, and large files in the data directory or in object storage ([`blobs`]).

pub mod backup;
pub mod blobs;
pub mod expiry;
pub mod interface;
pub mod model;
pub mod owner_deletion;
pub mod retention;

mod changes;
mod errors;
mod job_state_machine;
mod sql;

pub use changes::{Change, ChangeReceiver};
pub use errors::{adapter_not_found, none_if_not_found};
pub use interface::{AccessStore, BlobReservations, IdempotencyStore, Store, WebhookStore};
pub use model::*;

use espalier_core::error::{Error, Result};
use sql::connection::SqlStore;
use std::path::Path;
use std::sync::Arc;

/// Opens the database at this URL and migrates its tables to this version.
///
/// # Errors
/// `Invalid` if the URL or the database is unusable. The detail never contains the password.
pub async fn connect(url: &str) -> Result<Arc<dyn Store>> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Arc::new(SqlStore::new(sql::sqlite::Sqlite::connect(url).await?))),
        Some("postgres" | "postgresql") => Ok(Arc::new(SqlStore::new(sql::postgres::Postgres::connect(url).await?))),
        _ => {
            let detail = "the database URL has to begin with sqlite:// (sqlite://path/to/file.db) or postgres:// \
                          (postgres://user:password@host:5432/database)";
            Err(Error::invalid("invalid_database_url", detail))
        }
    }
}

/// URL of an SQLite file. The path may contain any character.
pub fn sqlite_url(file: &Path) -> String {
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite://{path}")
}

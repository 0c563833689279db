//! Migrations of both databases. The statements are in the folder `migrations/`.

use espalier_core::error::{Context, Error, Result};
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

pub fn sqlite_migrator() -> Migrator {
    Migrator::with_migrations(vec![migration(1, "start", include_str!("../../../migrations/sqlite/0001_start.sql"))])
}

pub fn postgres_migrator() -> Migrator {
    Migrator::with_migrations(vec![migration(1, "start", include_str!("../../../migrations/postgres/0001_start.sql"))])
}

fn migration(version: i64, description: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
}

/// Replaces the errors of a database that this version did not create by errors that say what to do.
pub fn map_migrate_error(result: Result<(), MigrateError>) -> Result<()> {
    match result {
        Err(MigrateError::VersionMissing(version)) => Err(Error::invalid(
            "database_too_new",
            format!(
                "the database was made by a newer espalier (it has migration {version}): start that version, or give \
                 another database"
            ),
        )),
        Err(MigrateError::VersionMismatch(version)) => Err(Error::invalid(
            "database_unknown",
            format!("the database's migration {version} is not the one of this espalier: give the right database"),
        )),
        other => other.context("preparing the database's tables"),
    }
}

//! Settings of the data folder and the database.

use super::access::{Secret, read_secret_file};
use crate::store;
use clap::Args;
use espalier_core::error::{Error, Result};
use std::path::PathBuf;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Storage")]
pub struct Flags {
    /// Folder of datasets, adapters, checkpoints and, without a database URL, the SQLite database
    ///
    /// Created if missing. Servers that share a database must share the folder's datasets and adapters too.
    #[arg(long, env = "ESPALIER_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    pub data_dir: PathBuf,

    /// Database: postgres://user:password@host/name, or sqlite://file [default: espalier.db in the data folder]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File with the database URL on its first line, for mounted secrets
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
}

impl Flags {
    /// # Errors
    /// `Invalid` if both the URL and the file are given, or the file cannot be read.
    pub fn resolve_database_url(&self) -> Result<Secret> {
        let inline_url = self.database_url.as_deref().map(str::trim).filter(|url| !url.is_empty());
        let url = match (inline_url, &self.database_url_file) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "conflicting_settings",
                    "both --database-url (DATABASE_URL) and --database-url-file (DATABASE_URL_FILE) are set: give one",
                ));
            }
            (Some(url), None) => url.to_string(),
            (None, Some(file)) => {
                let text = read_secret_file(file, "--database-url-file (DATABASE_URL_FILE)")?;
                text.lines().next().unwrap_or_default().trim().to_string()
            }
            (None, None) => store::sqlite_url(&self.data_dir.join("espalier.db")),
        };
        Ok(Secret::new(url))
    }
}

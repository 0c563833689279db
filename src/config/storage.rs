//! Settings of the data folder and the database.

use super::access::{Secret, read_secret_file};
use super::units::{self, RetentionTime};
use crate::store::blobs::ObjectStorage;
use crate::store::{self, RetentionPolicy};
use clap::Args;
use espalier_core::error::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Storage")]
pub struct Flags {
    /// Folder of datasets, adapters, checkpoints and, without a database URL, the SQLite database
    ///
    /// Created if missing. Servers that share a database must share the folder's datasets and adapters too, or use --blob-store.
    #[arg(long, env = "ESPALIER_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    pub data_dir: PathBuf,

    /// Object storage of datasets, adapters and checkpoints: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or
    /// file:///folder, with options such as ?endpoint=http://minio:9000&region=us-east-1; credentials come from the environment
    /// (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY)
    /// [default: none; the data folder holds them]
    #[arg(long, env = "ESPALIER_BLOB_STORE", value_name = "URL")]
    pub blob_store: Option<String>,

    /// Size of the datasets and adapters that the data folder holds as a cache of --blob-store; the least recently used are evicted
    #[arg(long, env = "ESPALIER_BLOB_CACHE_SIZE", value_name = "SIZE", default_value = "10GiB", value_parser = units::parse_bytes)]
    pub blob_cache_size: u64,

    /// Folder of adapters (folders, zips and .tar.gz files) that may be imported by their path, with {"source": "path:…"} in
    /// POST /adapters and by /v1/load_lora_adapter [default: none; paths are refused]
    #[arg(long, env = "ESPALIER_ADAPTER_IMPORT_FOLDER", value_name = "FOLDER")]
    pub adapter_import_folder: Option<PathBuf>,

    /// Database: postgres://user:password@host/name, or sqlite://file [default: espalier.db in the data folder]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File with the database URL on its first line, for mounted secrets
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,

    /// How long finished jobs are kept, or "forever"; their adapters stay
    #[arg(long, env = "ESPALIER_KEEP_JOBS", value_name = "TIME", default_value = "90d", value_parser = units::parse_retention_time)]
    pub keep_jobs: RetentionTime,

    /// Number of the newest finished jobs of each owner that are kept [default: all]
    #[arg(long, env = "ESPALIER_MAX_FINISHED_JOBS", value_name = "N")]
    pub max_finished_jobs: Option<u32>,

    /// How long the metrics events of finished jobs are kept, or "forever"
    #[arg(long, env = "ESPALIER_KEEP_EVENTS", value_name = "TIME", default_value = "30d", value_parser = units::parse_retention_time)]
    pub keep_events: RetentionTime,

    /// How long datasets that no unfinished job uses are kept after their last upload or the last submission of a job with them, or
    /// "forever"
    #[arg(long, env = "ESPALIER_KEEP_DATASETS", value_name = "TIME", default_value = "forever", value_parser = units::parse_retention_time)]
    pub keep_datasets: RetentionTime,

    /// Number of the newest versions of each adapter name that are kept, beside those that unfinished jobs start from [default: all]
    #[arg(long, env = "ESPALIER_KEEP_VERSIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_versions: Option<u32>,

    /// How long a version is kept after its name has begun to refer to another one, or "forever"
    #[arg(long, env = "ESPALIER_KEEP_SUPERSEDED", value_name = "TIME", default_value = "forever", value_parser = units::parse_retention_time)]
    pub keep_superseded: RetentionTime,

    /// How long the checkpoints of failed jobs are kept, from which a retry goes on
    #[arg(long, env = "ESPALIER_KEEP_CHECKPOINTS", value_name = "TIME", default_value = "7d", value_parser = units::parse_duration)]
    pub keep_checkpoints: Duration,

    /// Interval at which old jobs, events, datasets, versions and unreferenced files are deleted
    #[arg(long, env = "ESPALIER_RETENTION_INTERVAL", value_name = "TIME", default_value = "10m", value_parser = units::parse_duration)]
    pub retention_interval: Duration,
}

impl Flags {
    /// # Errors
    /// `Invalid` if the folder of imports does not exist.
    pub fn import_folder(&self) -> Result<Option<PathBuf>> {
        match &self.adapter_import_folder {
            Some(folder) if !folder.is_dir() => {
                let detail = format!("--adapter-import-folder {} is no folder: create it", folder.display());
                Err(Error::invalid("import_folder_missing", detail))
            }
            folder => Ok(folder.clone()),
        }
    }

    /// # Errors
    /// `Invalid` (`invalid_blob_store`).
    pub fn object_storage(&self) -> Result<Option<ObjectStorage>> {
        let url = self.blob_store.as_deref().map(str::trim).filter(|url| !url.is_empty());
        url.map(ObjectStorage::open).transpose()
    }

    pub fn retention_policy(&self) -> RetentionPolicy {
        RetentionPolicy {
            keep_jobs: self.keep_jobs.0,
            max_finished_jobs: self.max_finished_jobs,
            keep_events: self.keep_events.0,
            keep_datasets: self.keep_datasets.0,
            keep_versions: self.keep_versions,
            keep_superseded: self.keep_superseded.0,
            keep_checkpoints: self.keep_checkpoints,
        }
    }

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

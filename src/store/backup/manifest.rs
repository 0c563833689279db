//! `manifest.json` of a backup.

use crate::store::blobs::FileDigest;
use chrono::{DateTime, Utc};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

const FILE_NAME: &str = "manifest.json";

/// Layout version of backups.
const FORMAT: u32 = 1;

/// Contents of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Version of the program that made it.
    pub espalier: String,
    /// Newest migration of the database.
    pub schema_version: i64,
    /// `sqlite` or `postgres`. It can be restored into either.
    pub database: String,
    pub created_at: DateTime<Utc>,
    /// Tables, in the order in which their rows are restored.
    pub tables: Vec<TableManifest>,
    /// Every file but this one, by its path in the backup.
    pub files: BTreeMap<String, FileDigest>,
    /// Blobs that rows refer to and that were missing or damaged in the data folder.
    pub damaged: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableManifest {
    pub name: String,
    pub columns: Vec<String>,
    pub rows: u64,
}

impl Manifest {
    pub fn new(schema_version: i64, database: &str, created_at: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT,
            espalier: env!("CARGO_PKG_VERSION").to_string(),
            schema_version,
            database: database.to_string(),
            created_at,
            tables: Vec::new(),
            files: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    pub fn write(&self, backup: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).context("writing the manifest of a backup")?;
        durable_fs::write_atomically(backup, FILE_NAME, &json).context("writing the manifest of a backup")
    }

    /// # Errors
    /// `Invalid` if the folder is no backup that this version reads.
    pub fn read(backup: &Path) -> Result<Self> {
        let refuse = |code, reason: &str| {
            let detail = format!("{} is no backup that can be restored: {reason}", backup.display());
            Err(Error::invalid(code, detail))
        };
        let json = match fs::read(backup.join(FILE_NAME)) {
            Ok(json) => json,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return refuse(
                    "backup_incomplete",
                    "it has no manifest.json; give the folder that `espalier backup` made",
                );
            }
            Err(error) => return refuse("backup_unreadable", &error.to_string()),
        };
        let format = serde_json::from_slice::<serde_json::Value>(&json).map(|manifest| manifest["format"].clone());
        match format {
            Ok(format) if format == FORMAT => {}
            Ok(format) => {
                let reason =
                    format!("its format is {format}, and this espalier knows {FORMAT}; use the version that made it");
                return refuse("backup_too_new", &reason);
            }
            Err(error) => return refuse("backup_damaged", &format!("manifest.json is no JSON ({error})")),
        }
        serde_json::from_slice(&json).or_else(|error| refuse("backup_damaged", &format!("manifest.json: {error}")))
    }
}

//! Restoration of a backup.

use super::files;
use super::manifest::{Manifest, TableManifest};
use crate::store::blobs::{BlobStore, DataDir, ObjectStorage, Reservation, digest};
use crate::store::sql::dump::{self, Column, Dump, Table};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Component, Path};
use std::sync::Arc;
use uuid::Uuid;

/// Largest number of rows, and about the largest number of bytes, in one statement.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// Gives the workers of the backup's time no more right to its running jobs, so that the next worker resumes them at once.
const RELEASE_JOBS: &str = "update jobs set lease_expires_at = (select now from db_now), worker_instance = null,
                                worker_process = null
                            where status = 'running'";

/// What happens to rows that the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingRows {
    Refuse,
    /// They are deleted when the rows of the backup are there. Garbage collection removes their blobs.
    Replace,
}

/// Where a backup is restored to.
#[derive(Debug, Clone, Copy)]
pub struct RestoreTarget<'a> {
    pub database_url: &'a str,
    pub data_dir: &'a Path,
    /// Where the blobs go beside the data folder.
    pub objects: Option<&'a ObjectStorage>,
    pub existing_rows: ExistingRows,
}

/// Verifies a backup, copies its blobs into the data folder, and then writes all rows in one transaction. An interruption leaves the
/// rows as they were.
///
/// # Errors
/// `Invalid` for a backup that is incomplete, damaged or of a newer version; `Conflict` (`data_folder_in_use`, `target_not_empty`).
pub async fn restore(backup: &Path, target: RestoreTarget<'_>) -> Result<Manifest> {
    let manifest = Manifest::read(backup)?;
    check_schema_version(&manifest)?;
    verify(backup, &manifest)?;
    let data_dir = DataDir::open(target.data_dir)?;
    if data_dir.has_other_users()? {
        let detail = format!("a server uses the data folder {}: stop it first", target.data_dir.display());
        return Err(Error::conflict("data_folder_in_use", detail));
    }
    // Makes the tables.
    let store = crate::store::connect(target.database_url).await?;
    if target.existing_rows == ExistingRows::Refuse {
        let mut database = dump::open_writer(target.database_url).await?;
        let tables = database.tables().await?;
        clear(database.as_mut(), &tables, target.existing_rows).await?;
        database.commit().await?;
    }
    let data_dir = Arc::new(data_dir);
    let blobs = BlobStore::new(Arc::clone(&data_dir), store, target.objects.cloned(), u64::MAX);
    let reservations = copy_blobs(backup, &manifest, &blobs).await?;
    let mut database = dump::open_writer(target.database_url).await?;
    let tables = database.tables().await?;
    clear(database.as_mut(), &tables, target.existing_rows).await?;
    for table in &tables {
        if let Some(saved) = manifest.tables.iter().find(|saved| saved.name == table.name) {
            import_table(database.as_mut(), backup, saved, table).await?;
        }
    }
    database.execute(RELEASE_JOBS).await?;
    database.continue_sequences(&tables).await?;
    database.commit().await?;
    for reservation in reservations {
        reservation.release().await;
    }
    Ok(manifest)
}

fn check_schema_version(manifest: &Manifest) -> Result<()> {
    let newest = dump::newest_schema_version();
    match manifest.schema_version <= newest {
        true => Ok(()),
        false => Err(Error::invalid(
            "backup_too_new",
            format!(
                "the backup has migration {}, and this espalier has {newest}: restore it with espalier {} or newer",
                manifest.schema_version, manifest.espalier
            ),
        )),
    }
}

/// Compares every file with its size and sha256.
fn verify(backup: &Path, manifest: &Manifest) -> Result<()> {
    for (name, expected) in &manifest.files {
        let is_inside = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
        match digest(&backup.join(name)) {
            Ok(found) if is_inside && found == *expected => {}
            Ok(_) => return Err(damaged(name, "it is not what was written")),
            Err(error) => return Err(damaged(name, &error.to_string())),
        }
    }
    Ok(())
}

fn damaged(name: &str, reason: &str) -> Error {
    Error::invalid("backup_damaged", format!("the file {name} of the backup is damaged ({reason}): use another backup"))
}

async fn clear(database: &mut dyn Dump, tables: &[Table], existing_rows: ExistingRows) -> Result<()> {
    for table in tables.iter().rev() {
        match existing_rows {
            ExistingRows::Replace => database.clear(table).await?,
            ExistingRows::Refuse if database.is_empty(table).await? => {}
            ExistingRows::Refuse => {
                let detail = format!(
                    "the database has rows in {}: give an empty one, or --replace to delete what it has",
                    table.name
                );
                return Err(Error::conflict("target_not_empty", detail));
            }
        }
    }
    Ok(())
}

/// Copies the blobs into the data folder, and uploads them. They stay reserved until the rows are there.
async fn copy_blobs(backup: &Path, manifest: &Manifest, blobs: &BlobStore) -> Result<Vec<Reservation>> {
    let parts = |name: &String| {
        let (folder, rest) = name.split_once('/')?;
        Some((folder.to_string(), rest.split('/').next()?.to_string()))
    };
    let names: BTreeSet<(String, String)> = manifest.files.keys().filter_map(parts).collect();
    let (data_dir, mut reservations) = (blobs.data_dir(), Vec::new());
    for (folder, name) in &names {
        let source = backup.join(folder).join(name);
        match folder.as_str() {
            "datasets" => {
                let copy = data_dir.temp_dir().join(name);
                files::copy(&source, &copy).with_context(|| format!("copying the dataset {name}"))?;
                reservations.push(blobs.put_dataset(copy, name).await?);
            }
            "adapters" => {
                replace_dir(&source, &data_dir.adapters_dir().join(name), data_dir)?;
                reservations.push(blobs.upload_stored_adapter(name).await?);
            }
            "checkpoints" => {
                let job = Uuid::parse_str(name).map_err(|_| damaged(name, "its name is not an id"))?;
                replace_dir(&source, &data_dir.job_checkpoint_dir(job), data_dir)?;
                // The step is not known; any other checkpoint of the job is newer.
                blobs.upload_checkpoint(job, 0).await?;
            }
            _ => {}
        }
    }
    Ok(reservations)
}

/// Copies a folder to a path at once.
fn replace_dir(source: &Path, target: &Path, data_dir: &DataDir) -> Result<()> {
    let copy = data_dir.temp_dir().join(Uuid::now_v7().to_string());
    let replace = || -> io::Result<()> {
        files::copy_dir(source, &copy, &mut |_, _| {})?;
        durable_fs::sync_dir(&copy)?;
        durable_fs::ignore_not_found(fs::remove_dir_all(target))?;
        fs::rename(&copy, target)?;
        target.parent().map_or(Ok(()), durable_fs::sync_dir)
    };
    replace().with_context(|| format!("copying {}", source.display()))
}

async fn import_table(database: &mut dyn Dump, backup: &Path, saved: &TableManifest, table: &Table) -> Result<()> {
    let column = |name: &String| {
        let known = table.columns.iter().find(|column| column.name == *name).cloned();
        known.ok_or_else(|| damaged("manifest.json", &format!("{} has no column {name}", table.name)))
    };
    let columns: Vec<Column> = saved.columns.iter().map(column).collect::<Result<_>>()?;
    let table = Table { name: table.name.clone(), columns };
    let path = backup.join("rows").join(format!("{}.jsonl", table.name));
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let (mut batch, mut rows) = (String::from("["), 0);
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        if rows > 0 {
            batch.push(',');
        }
        batch.push_str(&line);
        rows += 1;
        if rows >= BATCH_ROWS || batch.len() >= BATCH_BYTES {
            batch.push(']');
            database.import(&table, &batch).await?;
            (batch, rows) = (String::from("["), 0);
        }
    }
    if rows > 0 {
        batch.push(']');
        database.import(&table, &batch).await?;
    }
    Ok(())
}

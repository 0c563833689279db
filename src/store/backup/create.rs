//! Creation of a backup.

use super::files;
use super::manifest::{Manifest, TableManifest};
use crate::store::blobs::{BackupSource, DigestWriter, FileDigest, ObjectStorage, digest};
use crate::store::sql::dump::{self, Dump, Table};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Attempts to copy the checkpoints of a job that writes new ones meanwhile.
const CHECKPOINT_ATTEMPTS: usize = 20;

/// Blobs that the rows refer to.
#[derive(Default)]
struct References {
    dataset_hashes: BTreeSet<String>,
    adapter_versions: BTreeSet<String>,
    /// Jobs that are not finished, or failed and may be retried.
    resumable_jobs: BTreeSet<Uuid>,
}

/// Time in which no blob of object storage is deleted, if a backup does not end by itself.
const RESERVATION: Duration = Duration::from_secs(24 * 3600);

/// Writes the rows of a database and the blobs of a data folder, or of object storage, into a new folder. Servers may run meanwhile. The
/// folder appears when it is complete; until then its name ends in `.partial`.
///
/// # Errors
/// `Conflict` (`backup_exists`); `Invalid` if the database or the data folder is not one of this version.
pub async fn create(
    database_url: &str,
    data_dir: &Path,
    objects: Option<&ObjectStorage>,
    target: &Path,
) -> Result<Manifest> {
    if target.symlink_metadata().is_ok() {
        let detail = format!("{} exists already: give the name of a new folder", target.display());
        return Err(Error::conflict("backup_exists", detail));
    }
    let partial = partial_path(target)?;
    remove_dir_if_exists(&partial).with_context(|| format!("removing {}", partial.display()))?;
    // Before the snapshot of the rows: from here on no blob is removed.
    let source = BackupSource::lock(data_dir)?;
    let mut database = dump::open_snapshot(database_url).await?;
    let schema_version = check_schema_version(database.as_mut()).await?;
    let mut reservation = None;
    if objects.is_some() {
        database.commit().await?;
        let store = crate::store::connect(database_url).await?;
        reservation = Some((store.reserve_all_blobs(RESERVATION).await?, store));
        database = dump::open_snapshot(database_url).await?;
    }
    fs::create_dir_all(partial.join("rows")).with_context(|| format!("creating {}", partial.display()))?;
    let kind = if database_url.starts_with("sqlite") { "sqlite" } else { "postgres" };
    let mut manifest = Manifest::new(schema_version, kind, database.now().await?);
    let mut references = References::default();
    for table in database.tables().await? {
        let exported = export_table(database.as_mut(), &table, &partial, &mut references).await?;
        manifest.tables.push(exported.0);
        manifest.files.insert(format!("rows/{}.jsonl", table.name), exported.1);
    }
    database.commit().await?;
    for folder in ["datasets", "adapters", "checkpoints"] {
        fs::create_dir_all(partial.join(folder)).with_context(|| format!("creating {}", partial.display()))?;
    }
    if let Some(objects) = objects {
        download_blobs(objects, &source, &partial, &references).await?;
    }
    let copied = copy_blobs(&source, &partial, &references, &mut manifest);
    copied.context("copying the files of the data folder")?;
    if let Some((reservation, store)) = reservation {
        store.release_blob(reservation).await?;
    }
    sync_dirs(&partial).context("syncing the backup")?;
    manifest.write(&partial)?;
    fs::rename(&partial, target).with_context(|| format!("renaming the backup to {}", target.display()))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durable_fs::sync_dir(parent).context("syncing the backup")?;
    Ok(manifest)
}

fn partial_path(target: &Path) -> Result<PathBuf> {
    let Some(name) = target.file_name() else {
        let detail = format!("{} is not the name of a new folder: give another", target.display());
        return Err(Error::invalid("invalid_backup_folder", detail));
    };
    let mut partial = name.to_os_string();
    partial.push(".partial");
    Ok(target.with_file_name(partial))
}

fn remove_dir_if_exists(dir: &Path) -> io::Result<()> {
    durable_fs::ignore_not_found(fs::remove_dir_all(dir))
}

async fn check_schema_version(database: &mut dyn Dump) -> Result<i64> {
    let newest = dump::newest_schema_version();
    let detail = match database.schema_version().await? {
        Some(version) if version == newest => return Ok(version),
        Some(version) => format!(
            "the database has migration {version}, and this espalier has {newest}: make the backup with the version that serves it"
        ),
        None => "the database has no tables of espalier: give the one that a server uses".to_string(),
    };
    Err(Error::invalid("database_of_other_version", detail))
}

async fn export_table(
    database: &mut dyn Dump,
    table: &Table,
    partial: &Path,
    references: &mut References,
) -> Result<(TableManifest, FileDigest)> {
    let path = partial.join("rows").join(format!("{}.jsonl", table.name));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut writer = BufWriter::new(DigestWriter::new(file));
    let mut rows = 0;
    let mut sink = |row: &str| {
        rows += 1;
        references.add(table, row)?;
        writeln!(writer, "{row}").context("writing the rows of a backup")
    };
    database.export(table, &mut sink).await?;
    let finish = || -> io::Result<FileDigest> {
        let (file, digest) = writer.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
        file.sync_all()?;
        Ok(digest)
    };
    let digest = finish().context("writing the rows of a backup")?;
    let columns = table.columns.iter().map(|column| column.name.clone()).collect();
    Ok((TableManifest { name: table.name.clone(), columns, rows }, digest))
}

impl References {
    fn add(&mut self, table: &Table, row: &str) -> Result<()> {
        if !["datasets", "adapters", "jobs"].contains(&table.name.as_str()) {
            return Ok(());
        }
        let values: Vec<Value> = serde_json::from_str(row).context("reading a row for a backup")?;
        let names = table.columns.iter().map(|column| column.name.as_str());
        let columns: BTreeMap<&str, &str> =
            names.zip(&values).filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
        let column = |name: &str| columns.get(name).map(|text| (*text).to_string());
        match table.name.as_str() {
            "datasets" => self.dataset_hashes.extend(column("hash")),
            "adapters" => self.adapter_versions.extend(column("version")),
            _ if !matches!(columns.get("status"), Some(&"succeeded" | &"cancelled")) => {
                let id = column("id").map(|id| Uuid::parse_str(&id)).transpose().context("reading the id of a job")?;
                self.resumable_jobs.extend(id);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Writes the blobs that are not in the data folder into the backup, and the newest checkpoints.
async fn download_blobs(
    objects: &ObjectStorage,
    source: &BackupSource,
    partial: &Path,
    references: &References,
) -> Result<()> {
    for hash in &references.dataset_hashes {
        if !source.dataset_path(hash).exists() {
            objects.copy_dataset(hash, &partial.join("datasets").join(hash)).await?;
        }
    }
    for version in &references.adapter_versions {
        if !source.adapter_dir(version).exists() {
            objects.copy_adapter(version, &partial.join("adapters").join(version)).await?;
        }
    }
    for job in &references.resumable_jobs {
        objects.copy_checkpoint(*job, &partial.join("checkpoints").join(job.to_string())).await?;
    }
    Ok(())
}

/// Copies blobs from the data folder, and digests those that were downloaded.
fn copy_blobs(
    source: &BackupSource,
    partial: &Path,
    references: &References,
    manifest: &mut Manifest,
) -> io::Result<()> {
    for hash in &references.dataset_hashes {
        let path = format!("datasets/{hash}");
        let target = partial.join(&path);
        let copied = match target.exists() {
            true => digest(&target),
            false => files::copy(&source.dataset_path(hash), &target),
        };
        match copied {
            Ok(digest) => {
                if digest.sha256 != *hash {
                    manifest.damaged.push(path.clone());
                }
                manifest.files.insert(path, digest);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => manifest.damaged.push(path),
            Err(error) => return Err(error),
        }
    }
    for version in &references.adapter_versions {
        let path = format!("adapters/{version}");
        let mut copied = BTreeMap::new();
        let mut insert = |name: String, digest: FileDigest| drop(copied.insert(name, digest));
        let target = partial.join(&path);
        let result = match target.exists() {
            true => files::digest_dir(&target, &mut insert),
            false => files::copy_dir(&source.adapter_dir(version), &target, &mut insert),
        };
        match result {
            Ok(()) if adapter_version(&copied) == *version => {}
            Ok(()) => manifest.damaged.push(path.clone()),
            Err(error) if error.kind() == ErrorKind::NotFound => manifest.damaged.push(path.clone()),
            Err(error) => return Err(error),
        }
        manifest.files.extend(copied.into_iter().map(|(name, digest)| (format!("{path}/{name}"), digest)));
    }
    for job in &references.resumable_jobs {
        copy_checkpoints(source, partial, *job, manifest)?;
    }
    Ok(())
}

/// The version of an adapter folder: the sha256 of the output of `sha256sum` on its files.
fn adapter_version(files: &BTreeMap<String, FileDigest>) -> String {
    let lines = files.iter().map(|(name, digest)| format!("{}  {name}\n", digest.sha256));
    hex::encode(Sha256::digest(lines.collect::<String>()))
}

/// Copies the checkpoints of a job, if it has some. A file that the job removes meanwhile belongs to an old checkpoint: then the
/// newer ones are copied. A checkpoint's manifest is listed after its other files are written, so a complete copy of what was listed
/// has a complete checkpoint.
fn copy_checkpoints(source: &BackupSource, partial: &Path, job: Uuid, manifest: &mut Manifest) -> io::Result<()> {
    let (from, target) = (source.checkpoint_dir(job), partial.join("checkpoints").join(job.to_string()));
    if target.exists() {
        let mut insert =
            |name: String, digest| drop(manifest.files.insert(format!("checkpoints/{job}/{name}"), digest));
        return files::digest_dir(&target, &mut insert);
    }
    for _ in 0..CHECKPOINT_ATTEMPTS {
        let mut copied = Vec::new();
        remove_dir_if_exists(&target)?;
        match files::copy_dir(&from, &target, &mut |name, digest| copied.push((name, digest))) {
            Ok(()) => {
                let paths = copied.into_iter().map(|(name, digest)| (format!("checkpoints/{job}/{name}"), digest));
                manifest.files.extend(paths);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::NotFound && from.exists() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return remove_dir_if_exists(&target),
            Err(error) => return Err(error),
        }
    }
    // The job starts from the beginning then.
    manifest.damaged.push(format!("checkpoints/{job}"));
    remove_dir_if_exists(&target)
}

fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    durable_fs::sync_dir(dir)
}

//! Checkpoints in object storage, from which a job resumes on another host.
//!
//! An object is an archive of the checkpoint folder of a job. Its key names the step and the sha256 of the archive. A checkpoint of any
//! step gives the same result, so a worker that has lost its lease does no harm by uploading an older one.

use super::blob_store::{BlobStore, blocking};
use super::checksum_mismatches::ChecksumMismatches;
use super::file_digest::DigestWriter;
use super::object_storage::{ListedObject, ObjectStorage};
use espalier_core::durable_fs;
use espalier_core::error::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// File in a checkpoint folder with the step that is at least in it.
const STEP_FILE: &str = "step";
/// Attempts to archive a folder from which the job removes old checkpoints meanwhile.
const ARCHIVE_ATTEMPTS: usize = 20;

/// A checkpoint in a listing.
struct StoredCheckpoint {
    key: String,
    step: u64,
    sha256: String,
}

impl BlobStore {
    /// Uploads the checkpoints of a job, the newest of which is that of `step`, and deletes the older ones in object storage. Does nothing
    /// without object storage.
    pub async fn upload_checkpoint(&self, job: Uuid, step: u64) -> Result<()> {
        let Some(objects) = self.object_storage() else { return Ok(()) };
        let folder = self.data_dir().job_checkpoint_dir(job);
        let archive = self.data_dir().temp_dir().join(format!("{}.tar", Uuid::now_v7()));
        let path = archive.clone();
        let sha256 = blocking("archiving a checkpoint", move || write_archive(&folder, &path, step)).await?;
        let key = format!("checkpoints/{job}/{step:012}-{sha256}.tar");
        let uploaded = objects.upload(&key, &archive).await;
        drop(tokio::fs::remove_file(&archive).await);
        uploaded?;
        for older in list(objects, job).await?.iter().filter(|stored| stored.step < step) {
            objects.delete(&older.key).await?;
        }
        Ok(())
    }

    /// Puts the newest checkpoint of a job into the data directory, unless the one that is there is as new. Does nothing without object
    /// storage.
    pub async fn download_checkpoint(&self, job: Uuid) -> Result<()> {
        let Some(objects) = self.object_storage() else { return Ok(()) };
        let folder = self.data_dir().job_checkpoint_dir(job);
        let local_step = fs::read_to_string(folder.join(STEP_FILE)).ok().and_then(|step| step.trim().parse().ok());
        let archive = self.data_dir().temp_dir().join(format!("{}.tar", Uuid::now_v7()));
        if let Some(step) = download_newest(objects, job, local_step, &archive).await? {
            tracing::info!(step, "resuming from a checkpoint in object storage");
            let temp_dir = self.data_dir().temp_dir();
            blocking("unpacking a checkpoint", move || replace_folder(&archive, &folder, &temp_dir)).await?;
        }
        Ok(())
    }

    /// Bytes of the checkpoints of each job that has some. If the caller lists them before it reads the resumable jobs, a job that is not
    /// among those is finished, and its checkpoints can be removed.
    pub async fn checkpoint_bytes(&self) -> Result<BTreeMap<Uuid, u64>> {
        let data_dir = self.data_dir().clone();
        let mut bytes = blocking("listing checkpoints", move || {
            let jobs = data_dir.jobs_with_checkpoints()?.into_iter();
            Ok(jobs.map(|job| (job, data_dir.checkpoint_bytes(job))).collect::<BTreeMap<_, _>>())
        })
        .await?;
        let Some(objects) = self.object_storage() else { return Ok(bytes) };
        for object in objects.list("checkpoints").await? {
            if let Some(job) = object.key.split('/').nth(1).and_then(|job| Uuid::parse_str(job).ok()) {
                *bytes.entry(job).or_default() += object.bytes;
            }
        }
        Ok(bytes)
    }

    /// Removes the checkpoints of a finished job.
    pub async fn remove_checkpoints(&self, job: Uuid) -> Result<()> {
        let data_dir = self.data_dir().clone();
        blocking("removing checkpoints", move || data_dir.remove_checkpoints(job)).await?;
        if let Some(objects) = self.object_storage() {
            for checkpoint in list(objects, job).await? {
                objects.delete(&checkpoint.key).await?;
            }
        }
        Ok(())
    }
}

impl ObjectStorage {
    /// Extracts the newest checkpoint of a job into a new folder, if there is one.
    pub async fn copy_checkpoint(&self, job: Uuid, target: &Path) -> Result<()> {
        let archive = target.with_extension("tar");
        match download_newest(self, job, None, &archive).await? {
            Some(_) => extract(&archive, target).with_context(|| format!("unpacking the checkpoint of the job {job}")),
            None => Ok(()),
        }
    }
}

/// Downloads the newest intact checkpoint of a job of a step after `after`, and returns its step. Damaged ones are quarantined.
async fn download_newest(
    objects: &ObjectStorage,
    job: Uuid,
    after: Option<u64>,
    archive: &Path,
) -> Result<Option<u64>> {
    for checkpoint in list(objects, job).await?.into_iter().rev() {
        if after.is_some_and(|step| checkpoint.step <= step) {
            break;
        }
        let mut mismatches = ChecksumMismatches::default();
        while let Some(found) = objects.download(&checkpoint.key, archive).await? {
            if found == checkpoint.sha256 {
                return Ok(Some(checkpoint.step));
            }
            drop(tokio::fs::remove_file(archive).await);
            objects.metrics().record_damage();
            if mismatches.record(&checkpoint.key, found)? {
                tracing::warn!(key = checkpoint.key, "a checkpoint in object storage is damaged; using an older one");
                objects.quarantine(&checkpoint.key).await?;
                break;
            }
        }
    }
    Ok(None)
}

/// Checkpoints of a job in object storage, oldest first.
async fn list(objects: &ObjectStorage, job: Uuid) -> Result<Vec<StoredCheckpoint>> {
    let parse = |object: ListedObject| {
        let (step, sha256) = object.key.rsplit('/').next()?.strip_suffix(".tar")?.split_once('-')?;
        Some(StoredCheckpoint { step: step.parse().ok()?, sha256: sha256.to_string(), key: object.key.clone() })
    };
    let mut stored: Vec<_> = objects.list(&format!("checkpoints/{job}")).await?.into_iter().filter_map(parse).collect();
    stored.sort_by_key(|checkpoint| checkpoint.step);
    Ok(stored)
}

/// Archives a folder into a file and returns its sha256. A checkpoint's manifest is written after its other files, so an archive of
/// everything that was listed has a complete checkpoint.
fn write_archive(folder: &Path, archive: &Path, step: u64) -> Result<String> {
    durable_fs::write_atomically(folder, STEP_FILE, step.to_string().as_bytes())
        .context("writing the step of a checkpoint")?;
    for _ in 0..ARCHIVE_ATTEMPTS {
        match try_write_archive(folder, archive) {
            Err(error) if error.kind() == ErrorKind::NotFound && folder.exists() => {}
            written => return written.context("archiving a checkpoint"),
        }
    }
    Err(io::Error::from(ErrorKind::NotFound)).context("archiving a checkpoint that changes all the time")
}

fn try_write_archive(folder: &Path, archive: &Path) -> io::Result<String> {
    let mut builder = tar::Builder::new(DigestWriter::new(File::create(archive)?));
    for file in files_below(folder, Path::new(""))? {
        let opened = File::open(folder.join(&file))?;
        // The file of metrics rows may grow meanwhile; a checkpoint names the rows that it needs.
        let bytes = opened.metadata()?.len();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes);
        header.set_mode(0o600);
        builder.append_data(&mut header, &file, opened.take(bytes))?;
    }
    let (file, digest) = builder.into_inner()?.finish()?;
    file.sync_all()?;
    Ok(digest.sha256)
}

/// Paths of the files of a folder, relative to it. Files that are still being written have names that begin with a dot.
fn files_below(folder: &Path, prefix: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(prefix))? {
        let entry = entry?;
        let path = prefix.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => found.extend(files_below(folder, &path)?),
            false if entry.file_name().to_string_lossy().starts_with('.') => {}
            false => found.push(path),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Extracts an archive in place of a folder, and deletes the archive.
fn replace_folder(archive: &Path, folder: &Path, temp_dir: &Path) -> Result<()> {
    let (staging, replaced) = (temp_dir.join(Uuid::now_v7().to_string()), temp_dir.join(Uuid::now_v7().to_string()));
    let replace = || -> io::Result<()> {
        extract(archive, &staging)?;
        durable_fs::ignore_not_found(fs::rename(folder, &replaced))?;
        fs::rename(&staging, folder)?;
        durable_fs::ignore_not_found(fs::remove_dir_all(&replaced))
    };
    replace().context("unpacking a checkpoint")
}

/// Extracts an archive into a new folder, and deletes the archive.
fn extract(archive: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    tar::Archive::new(File::open(archive)?).unpack(folder)?;
    durable_fs::remove_file_if_exists(archive)
}

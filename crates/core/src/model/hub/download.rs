//! Downloads a model from the hub to the cache and verifies size and sha256 of each file.

use super::cache::RepositoryCache;
use super::client::{FileLookup, FileResponse, HubClient};
use super::repository::{
    self, CONFIG_FILE, ModelId, OPTIONAL_FILES, TOKENIZER_FILE, VOCABULARY_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE,
};
use crate::error::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

const CHUNK_BYTES: usize = 1 << 20;

/// Downloads the files that the cache lacks and returns the commit. The revision points to the commit only after all files are
/// complete.
///
/// # Errors
/// `Invalid` if the hub does not have the model, or if the model has no safetensors, or neither `tokenizer.json` nor `vocab.txt`.
pub(super) fn download_snapshot(id: &ModelId, client: &HubClient, cache: &RepositoryCache) -> Result<String> {
    // The first response resolves the revision to a commit. All other files are requested by commit, so that they match.
    let FileLookup::Found(config) = client.request_file(id, &id.revision, CONFIG_FILE)? else {
        return Err(client.missing_content(id, "has no config.json for it"));
    };
    let commit = config.commit.clone();
    store_file(CONFIG_FILE, config, &commit, cache)?;
    let snapshot = SnapshotDownload { id, commit: &commit, client, cache };
    let is_absent = |file: &str| Ok::<_, Error>(snapshot.fetch_file(file)? == Presence::Absent);
    if is_absent(TOKENIZER_FILE)? && is_absent(VOCABULARY_FILE)? {
        return Err(client.missing_content(id, "has neither a tokenizer.json nor a vocab.txt for it"));
    }
    snapshot.fetch_optional(&OPTIONAL_FILES)?;
    snapshot.fetch_weights()?;
    cache.write_ref(&id.revision, &commit)?;
    tracing::info!(model = id.repository, commit, "base model downloaded");
    Ok(commit)
}

/// Downloads those of `names` that the repository has.
pub(super) fn download_optional_files(
    id: &ModelId,
    commit: &str,
    names: &[&str],
    client: &HubClient,
    cache: &RepositoryCache,
) -> Result<()> {
    SnapshotDownload { id, commit, client, cache }.fetch_optional(names)
}

/// One commit of a repository, on the hub and in the cache.
struct SnapshotDownload<'a> {
    id: &'a ModelId,
    commit: &'a str,
    client: &'a HubClient,
    cache: &'a RepositoryCache,
}

#[derive(PartialEq, Eq)]
enum Presence {
    Present,
    Absent,
}

impl SnapshotDownload<'_> {
    fn fetch_file(&self, file: &str) -> Result<Presence> {
        if self.cache.has_file(self.commit, file) {
            return Ok(Presence::Present);
        }
        match self.client.request_file(self.id, self.commit, file)? {
            FileLookup::NotFound => Ok(Presence::Absent),
            FileLookup::Found(response) => {
                store_file(file, response, self.commit, self.cache).map(|()| Presence::Present)
            }
        }
    }

    fn fetch_optional(&self, names: &[&str]) -> Result<()> {
        for name in names.iter().filter(|name| !self.cache.is_presence_known(self.commit, name)) {
            if self.fetch_file(name)? == Presence::Absent {
                self.cache.mark_absent(self.commit, name)?;
            }
        }
        Ok(())
    }

    fn fetch_weights(&self) -> Result<()> {
        if self.fetch_file(WEIGHTS_FILE)? == Presence::Present {
            return Ok(());
        }
        if self.fetch_file(WEIGHTS_INDEX_FILE)? == Presence::Absent {
            return Err(self
                .client
                .missing_content(self.id, "has no model.safetensors for it: choose a model that has"));
        }
        let index = self.cache.snapshot_path(self.commit).join(WEIGHTS_INDEX_FILE);
        let bytes = fs::read(&index).with_context(|| format!("reading {}", index.display()))?;
        let shards = repository::shard_files(&bytes).map_err(|reason| {
            self.client.missing_content(self.id, &format!("has a damaged {WEIGHTS_INDEX_FILE} for it: {reason}"))
        })?;
        for shard in shards {
            if self.fetch_file(&shard)? == Presence::Absent {
                return Err(self
                    .client
                    .missing_content(self.id, &format!("lacks {shard}, which {WEIGHTS_INDEX_FILE} names")));
            }
        }
        Ok(())
    }
}

/// Writes a file to the cache, unless its blob exists, and links the snapshot to it.
pub(super) fn store_file(file: &str, response: FileResponse, commit: &str, cache: &RepositoryCache) -> Result<()> {
    if response.commit != commit {
        let message =
            format!("the hub answered for {file} with the commit {}, not {commit}: try again", response.commit);
        return Err(Error::internal(message));
    }
    let etag = response.etag.clone();
    let lock = cache.lock_blob(&etag)?;
    let (blob, incomplete) = cache.blob_paths(&etag)?;
    if !is_complete_blob(&blob, &response.expected_sizes) {
        tracing::info!(file, bytes = response.expected_sizes.first(), "downloading");
        if let Err(error) = stream_to_file(file, response, &incomplete) {
            // The error of the download is reported. A remaining file would be overwritten.
            let _ = fs::remove_file(&incomplete);
            return Err(error);
        }
        fs::rename(&incomplete, &blob).with_context(|| format!("writing {}", blob.display()))?;
    }
    drop(lock);
    cache.link_snapshot_file(commit, file, &etag)
}

/// Whether the blob exists with these sizes. A blob was verified before it got its name; the size detects later truncation.
fn is_complete_blob(blob: &Path, expected_sizes: &[u64]) -> bool {
    fs::metadata(blob)
        .is_ok_and(|metadata| metadata.is_file() && expected_sizes.iter().all(|bytes| *bytes == metadata.len()))
}

/// Writes the body to a file and verifies its size and, if the ETag is one, its sha256.
fn stream_to_file(file: &str, mut response: FileResponse, path: &Path) -> Result<()> {
    let mut out = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut received = 0;
    loop {
        let chunk_bytes = response
            .body
            .read(&mut chunk)
            .map_err(|error| interrupted_download(file, received, &response.expected_sizes, &error))?;
        if chunk_bytes == 0 {
            break;
        }
        received += chunk_bytes as u64;
        hasher.update(&chunk[..chunk_bytes]);
        out.write_all(&chunk[..chunk_bytes]).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(expected_size) = response.expected_sizes.iter().find(|announced| **announced != received) {
        let message =
            format!("{file} came with {received} bytes instead of {expected_size}, and was not kept: try again");
        return Err(Error::internal(message));
    }
    let is_sha256 = response.etag.len() == 64 && response.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_sha256 && hex::encode(hasher.finalize()) != response.etag.to_ascii_lowercase() {
        let message = format!("{file} came damaged (its sha256 is not the hub's), and was not kept: try again");
        return Err(Error::internal(message));
    }
    out.sync_all().with_context(|| format!("writing {}", path.display()))
}

fn interrupted_download(file: &str, received: u64, expected_sizes: &[u64], error: &std::io::Error) -> Error {
    let of_total = expected_sizes.iter().max().map_or(String::new(), |total| format!(" of {total}"));
    Error::internal(format!(
        "the download of {file} broke off after {received}{of_total} bytes ({error}), and was not kept: check the network and try \
         again"
    ))
}

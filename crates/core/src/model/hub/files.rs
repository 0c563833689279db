//! Some files of a repository on the hub, such as those of an adapter.

use super::cache::RepositoryCache;
use super::client::{FileLookup, HubClient, RepositoryContent};
use super::download::store_file;
use super::repository::ModelId;
use super::{NetworkMode, Settings};
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Files to fetch, by their paths in the repository.
pub struct RepositoryFiles<'a> {
    /// The file whose response resolves the revision to a commit.
    pub required: &'a str,
    pub optional: &'a [&'a str],
    /// Bytes of one file, at most.
    pub max_bytes: u64,
}

/// Fetches files of `org/name` or `org/name@revision` to the cache, and returns the folder of the snapshot.
///
/// A branch is looked up on the hub again, unless it is offline; the files of a commit are fetched once.
///
/// # Errors
/// `Invalid`: `invalid_source` for text that is no id, `adapter_not_found`, `adapter_forbidden`, `adapter_too_large`, or
/// `adapter_not_cached` in offline mode. `Internal` for errors of the network and the disk.
pub fn fetch_files(source: &str, files: &RepositoryFiles, settings: &Settings) -> Result<PathBuf> {
    let id = ModelId::parse(source).ok_or_else(|| {
        let detail = format!("\"{source}\" is no id on the hub: give owner/name or owner/name@revision");
        Error::invalid("invalid_source", detail)
    })?;
    let cache = RepositoryCache::new(&settings.cache, &id.repository);
    match settings.network {
        NetworkMode::Offline => {
            let commit = cache.resolve_revision(&id.revision).filter(|commit| cache.has_file(commit, files.required));
            commit.map(|commit| cache.snapshot_path(&commit)).ok_or_else(|| not_cached(&id, settings))
        }
        NetworkMode::Online => {
            let client = HubClient::new(settings, RepositoryContent::Adapter);
            download_files(&id, files, &client, &cache)
        }
    }
}

fn download_files(
    id: &ModelId,
    files: &RepositoryFiles,
    client: &HubClient,
    cache: &RepositoryCache,
) -> Result<PathBuf> {
    let FileLookup::Found(first) = client.request_file(id, &id.revision, files.required)? else {
        return Err(client.missing_content(id, &format!("has no {} for it", files.required)));
    };
    let commit = first.commit.clone();
    check_size(files.required, &first.expected_sizes, files.max_bytes)?;
    store_file(files.required, first, &commit, cache)?;
    for file in files.optional.iter().filter(|file| !cache.is_presence_known(&commit, file)) {
        match client.request_file(id, &commit, file)? {
            FileLookup::NotFound => cache.mark_absent(&commit, file)?,
            FileLookup::Found(response) => {
                check_size(file, &response.expected_sizes, files.max_bytes)?;
                store_file(file, response, &commit, cache)?;
            }
        }
    }
    cache.write_ref(&id.revision, &commit)?;
    Ok(cache.snapshot_path(&commit))
}

/// # Errors
/// `Invalid` (`adapter_too_large`) if the hub announces more bytes, or no size at all.
fn check_size(file: &str, announced_sizes: &[u64], max_bytes: u64) -> Result<()> {
    match announced_sizes.iter().max() {
        Some(bytes) if *bytes <= max_bytes => Ok(()),
        announced => {
            let size = announced.map_or("no announced size".to_string(), |bytes| format!("{bytes} bytes"));
            let detail = format!("{file} has {size}, at most {max_bytes} bytes are accepted (--max-adapter-tensors)");
            Err(Error::invalid("adapter_too_large", detail))
        }
    }
}

fn not_cached(id: &ModelId, settings: &Settings) -> Error {
    let detail = format!(
        "the adapter \"{id}\" is not in the cache {}, and this server runs with HF_HUB_OFFLINE: upload its files, or have \
         the operator put them there",
        settings.cache.display()
    );
    Error::invalid("adapter_not_cached", detail)
}

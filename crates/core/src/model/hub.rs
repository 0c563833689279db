//! Finding the base model's folder: a local folder, a Hugging Face cache, or the hub.
//!
//! Knows which files a model has, not what is in them.

mod cache;
mod client;
mod download;
mod local;
mod model_files;
mod model_id;
mod origin;
mod settings;

pub use settings::{NetworkMode, Settings};

use crate::error::{Error, Result};
use cache::RepositoryCache;
use client::HubClient;
use model_id::ModelId;
use std::path::{Path, PathBuf};

/// A folder with the model's files, or one GGUF file, and the name by which PEFT would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLocation {
    pub path: PathBuf,
    pub name: String,
}

/// Finds `model`: a folder or a GGUF file on disk, else a hub id (`org/name` or `org/name@revision`) in the cache, else downloads it
/// into the cache (in the hub's own layout: `models--org--name/{blobs,refs,snapshots}`).
///
/// A snapshot that is in the cache is used as it is; that its branch has moved on the hub is not looked up.
///
/// # Errors
/// `Invalid` where the name or a setting has to be changed: there is no such model, it is not in the cache and the hub
/// must not be asked, or a token is needed. `Internal` for the network and the disk.
pub fn locate(source: &str, settings: &Settings) -> Result<ModelLocation> {
    if Path::new(source).is_dir() {
        return local::resolve_folder(Path::new(source));
    }
    if Path::new(source).is_file() {
        return local::resolve_gguf_file(Path::new(source));
    }
    let Some(id) = ModelId::parse(source) else {
        return Err(Error::invalid(
            "base_model_not_found",
            format!(
                "the base model \"{source}\" is neither a folder on this machine nor a hub id: give the path of a \
                 folder with config.json or of a .gguf file, or an id like org/name or org/name@revision"
            ),
        ));
    };
    let snapshot = resolve_snapshot(&id, settings)?;
    Ok(ModelLocation { path: snapshot, name: id.repository })
}

fn resolve_snapshot(id: &ModelId, settings: &Settings) -> Result<PathBuf> {
    let cache = RepositoryCache::new(&settings.cache, &id.repository);
    let cached_commit = cache
        .resolve_revision(&id.revision)
        .filter(|commit| model_files::is_complete_model(&cache.snapshot_path(commit)));
    let commit = match (cached_commit, settings.network) {
        (Some(commit), NetworkMode::Offline) => commit,
        (Some(commit), NetworkMode::Online) => {
            fetch_missing_optional_files(id, &commit, &cache, settings);
            commit
        }
        (None, NetworkMode::Online) => download::download_snapshot(id, &HubClient::new(settings), &cache)?,
        (None, NetworkMode::Offline) => return Err(not_cached(id, settings)),
    };
    Ok(cache.snapshot_path(&commit))
}

/// Another tool may have left the small files out that say how to pool. The model works without them, so a hub that
/// does not answer is no reason not to start.
fn fetch_missing_optional_files(id: &ModelId, commit: &str, cache: &RepositoryCache, settings: &Settings) {
    let missing: Vec<&str> =
        model_files::OPTIONAL_FILES.into_iter().filter(|file| !cache.is_presence_known(commit, file)).collect();
    if missing.is_empty() {
        return;
    }
    if let Err(error) = download::download_optional_files(id, commit, &missing, &HubClient::new(settings), cache) {
        tracing::warn!(
            model = id.repository,
            files = ?missing,
            error = %error,
            "the cached base model is used without files that the hub may have"
        );
    }
}

fn not_cached(id: &ModelId, settings: &Settings) -> Error {
    Error::invalid(
        "base_model_not_cached",
        format!(
            "there is no folder \"{id}\" here and no whole copy of it in the cache {}, and HF_HUB_OFFLINE forbids asking \
             the hub: unset it once to download the model, point HF_HUB_CACHE to a cache that holds it, or give the \
             model's folder",
            settings.cache.display()
        ),
    )
}

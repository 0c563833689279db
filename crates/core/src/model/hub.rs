//! Finding the base model's folder: a local folder, a Hugging Face cache, or the hub.
//!
//! Knows which files a model has, not what is in them.

mod cache;
mod download;
mod files;
mod id;
mod local;
mod origin;
mod remote;
mod settings;

pub use settings::{Network, Settings};

use crate::error::{Error, Result};
use cache::Cache;
use id::Id;
use remote::Remote;
use std::path::{Path, PathBuf};

/// A folder with the model's files, or one GGUF file, and the name by which PEFT would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub folder: PathBuf,
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
pub fn locate(model: &str, settings: &Settings) -> Result<Located> {
    if Path::new(model).is_dir() {
        return local::locate(Path::new(model));
    }
    if Path::new(model).is_file() {
        return local::file(Path::new(model));
    }
    let Some(id) = Id::parse(model) else {
        return Err(Error::invalid(
            "base_model_not_found",
            format!(
                "the base model \"{model}\" is neither a folder on this machine nor a hub id: give the path of a \
                 folder with config.json or of a .gguf file, or an id like org/name or org/name@revision"
            ),
        ));
    };
    let folder = in_cache_or_hub(&id, settings)?;
    Ok(Located { folder, name: id.repository })
}

fn in_cache_or_hub(id: &Id, settings: &Settings) -> Result<PathBuf> {
    let cache = Cache::new(&settings.cache, &id.repository);
    let cached = cache.commit(&id.revision).filter(|commit| files::are_whole(&cache.snapshot(commit)));
    let commit = match (cached, settings.network) {
        (Some(commit), Network::Offline) => commit,
        (Some(commit), Network::Allowed) => {
            complete(id, &commit, &cache, settings);
            commit
        }
        (None, Network::Allowed) => download::download(id, &Remote::new(settings), &cache)?,
        (None, Network::Offline) => return Err(not_cached(id, settings)),
    };
    Ok(cache.snapshot(&commit))
}

/// Another tool may have left the small files out that say how to pool. The model works without them, so a hub that
/// does not answer is no reason not to start.
fn complete(id: &Id, commit: &str, cache: &Cache, settings: &Settings) {
    let unknown: Vec<&str> = files::OPTIONAL.into_iter().filter(|file| !cache.is_known(commit, file)).collect();
    if unknown.is_empty() {
        return;
    }
    if let Err(error) = download::optional(id, commit, &unknown, &Remote::new(settings), cache) {
        tracing::warn!(
            model = id.repository,
            files = ?unknown,
            error = %error,
            "the cached base model is used without files that the hub may have"
        );
    }
}

fn not_cached(id: &Id, settings: &Settings) -> Error {
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

//! Finds the files of the base model: a local folder or GGUF file, the Hugging Face cache, or the Hugging Face hub.
//! [`Settings`] come from the environment variables of Hugging Face's tools.

use crate::error::{Context, Error, Result};
use cache::{RepositoryCache, repository_from_folder_name};
use client::{HubClient, RepositoryContent};
use repository::ModelId;
use std::fmt;
use std::path::{Path, PathBuf};

mod cache;
mod client;
mod download;
mod files;
mod repository;

pub use files::{RepositoryFiles, fetch_files};

/// Folder or GGUF file of a model, and its name for PEFT's `base_model_name_or_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLocation {
    pub path: PathBuf,
    pub name: String,
}

/// Finds `source`: a folder or GGUF file on disk, or a hub id (`org/name` or `org/name@revision`), which is downloaded unless it is
/// in the cache. The cache has the hub's layout (`models--org--name/{blobs,refs,snapshots}`).
///
/// A cached snapshot is used even if its branch has a newer commit on the hub.
///
/// # Errors
/// `Invalid` if the model does not exist, is not cached in offline mode, or needs a token. `Internal` for errors of the network and
/// the disk.
pub fn locate(source: &str, settings: &Settings) -> Result<ModelLocation> {
    if Path::new(source).is_dir() {
        return resolve_folder(Path::new(source));
    }
    if Path::new(source).is_file() {
        return resolve_gguf_file(Path::new(source));
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
        .filter(|commit| repository::is_complete_model(&cache.snapshot_path(commit)));
    let commit = match (cached_commit, settings.network) {
        (Some(commit), NetworkMode::Offline) => commit,
        (Some(commit), NetworkMode::Online) => {
            fetch_missing_optional_files(id, &commit, &cache, settings);
            commit
        }
        (None, NetworkMode::Online) => {
            download::download_snapshot(id, &HubClient::new(settings, RepositoryContent::BaseModel), &cache)?
        }
        (None, NetworkMode::Offline) => return Err(not_cached(id, settings)),
    };
    Ok(cache.snapshot_path(&commit))
}

/// Downloads optional files that another tool left out of the cache, for example the pooling settings. The model works without them,
/// so errors are only logged.
fn fetch_missing_optional_files(id: &ModelId, commit: &str, cache: &RepositoryCache, settings: &Settings) {
    let missing: Vec<&str> =
        repository::OPTIONAL_FILES.into_iter().filter(|file| !cache.is_presence_known(commit, file)).collect();
    if missing.is_empty() {
        return;
    }
    if let Err(error) = download::download_optional_files(
        id,
        commit,
        &missing,
        &HubClient::new(settings, RepositoryContent::BaseModel),
        cache,
    ) {
        tracing::warn!(
            model = id.repository,
            files = ?missing,
            error = %error,
            "cannot download optional files of the cached base model"
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

fn resolve_folder(folder: &Path) -> Result<ModelLocation> {
    let absolute = std::path::absolute(folder).with_context(|| format!("finding the folder {}", folder.display()))?;
    if let Some(cached_model) = resolve_cache_folder(&absolute)? {
        return Ok(cached_model);
    }
    if !absolute.join(repository::CONFIG_FILE).is_file() {
        return Err(Error::invalid(
            "base_model_not_found",
            format!(
                "the folder {} holds no config.json, so it is no model: give the folder that holds the model's \
                 config.json, tokenizer.json and safetensors",
                absolute.display()
            ),
        ));
    }
    let name = model_name(&absolute)?;
    Ok(ModelLocation { path: absolute, name })
}

fn resolve_gguf_file(path: &Path) -> Result<ModelLocation> {
    let absolute_path = std::path::absolute(path).with_context(|| format!("finding the file {}", path.display()))?;
    if absolute_path.extension().is_none_or(|extension| extension != "gguf") {
        let detail = format!("the file {} is no .gguf file: give one, or the model's folder", absolute_path.display());
        return Err(Error::invalid("base_model_not_found", detail));
    }
    let name = absolute_path.file_stem().map_or_else(|| "base".to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(ModelLocation { path: absolute_path, name })
}

/// Resolves a cache folder `models--org--name`: to the snapshot of `main`, or to the only snapshot.
fn resolve_cache_folder(folder: &Path) -> Result<Option<ModelLocation>> {
    let Some(repository) = folder.file_name().and_then(|name| repository_from_folder_name(name.to_str()?)) else {
        return Ok(None);
    };
    if !folder.join("snapshots").is_dir() {
        return Ok(None);
    }
    let cache = RepositoryCache::from_folder(folder);
    match cache.resolve_revision("main").or_else(|| cache.single_snapshot()) {
        Some(commit) if cache.snapshot_path(&commit).join(repository::CONFIG_FILE).is_file() => {
            Ok(Some(ModelLocation { path: cache.snapshot_path(&commit), name: repository }))
        }
        _ => Err(Error::invalid(
            "base_model_not_found",
            format!(
                "the cache folder {} holds no snapshot for \"main\": give one of the folders in its snapshots/, or \
                 download the model again",
                folder.display()
            ),
        )),
    }
}

/// Name of the model in a folder: the hub id if the folder is in a hub cache, else the name of the folder.
fn model_name(folder: &Path) -> Result<String> {
    let canonical = folder.canonicalize().with_context(|| format!("finding the folder {}", folder.display()))?;
    let cached_repository = [folder, canonical.as_path()].into_iter().find_map(repository_of_snapshot);
    let file_name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends in `..` has no file name.
    Ok(cached_repository
        .or_else(|| file_name(&folder.to_path_buf()))
        .or_else(|| file_name(&canonical))
        .unwrap_or_else(|| "base".to_string()))
}

/// Repository of a snapshot folder `…/models--org--name/snapshots/commit`.
fn repository_of_snapshot(snapshot: &Path) -> Option<String> {
    let snapshots = snapshot.parent()?;
    if snapshots.file_name()? != "snapshots" {
        return None;
    }
    repository_from_folder_name(snapshots.parent()?.file_name()?.to_str()?)
}

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Address, credentials and cache of the hub.
#[derive(Clone)]
pub struct Settings {
    /// `HF_ENDPOINT`; by default the public hub.
    pub endpoint: String,
    /// `HF_TOKEN`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub network: NetworkMode,
    /// Further headers of every request to the hub itself, such as a trace context.
    pub headers: Vec<(&'static str, String)>,
    /// `HF_HUB_CACHE`, or `HF_HOME`/hub, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
}

/// Whether the hub may be contacted (`HF_HUB_OFFLINE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    Online,
    Offline,
}

impl Settings {
    /// Reads the environment through `variable`. Empty variables count as unset.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let non_empty =
            |name: &str| variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let home = non_empty("HOME").map_or_else(PathBuf::new, PathBuf::from);
        let path_variable = |name: &str| {
            non_empty(name).map(|path| match path.strip_prefix("~/") {
                Some(relative) => home.join(relative),
                None => PathBuf::from(path),
            })
        };
        let cache_home = || path_variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = || path_variable("HF_HOME").unwrap_or_else(|| cache_home().join("huggingface"));
        let offline = non_empty("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true"));
        Self {
            endpoint: non_empty("HF_ENDPOINT")
                .map_or(DEFAULT_ENDPOINT.into(), |url| url.trim_end_matches('/').to_string()),
            token: non_empty("HF_TOKEN"),
            network: if offline { NetworkMode::Offline } else { NetworkMode::Online },
            headers: Vec::new(),
            cache: path_variable("HF_HUB_CACHE").unwrap_or_else(|| hf_home().join("hub")),
        }
    }
}

/// Hides the token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("network", &self.network)
            .field("cache", &self.cache)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_from(variables: &[(&str, &str)]) -> Settings {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Settings::from_env(get)
    }

    #[test]
    fn cache_folder_follows_hugging_face_variables() {
        let cache = |variables: &[(&str, &str)]| settings_from(variables).cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/home/a")]), "/home/a/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("HF_HOME", "~/hf")]), "/home/a/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), "/models");
    }

    #[test]
    fn defaults_to_public_hub() {
        let settings = settings_from(&[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(
            (settings.endpoint.as_str(), settings.token, settings.network),
            (DEFAULT_ENDPOINT, None, NetworkMode::Online)
        );
        let settings =
            settings_from(&[("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", "hf_a\n"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!((settings.endpoint.as_str(), settings.token.as_deref()), ("http://mirror", Some("hf_a")));
        assert_eq!(settings.network, NetworkMode::Offline);
    }

    #[test]
    fn debug_output_hides_token() {
        let shown = format!("{:?}", settings_from(&[("HF_TOKEN", "hf_secret")]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

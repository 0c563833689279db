//! A model in a folder that the user names: a plain one, or one inside a Hugging Face cache.

use super::cache::{RepositoryCache, repository_from_folder_name};
use super::{ModelLocation, model_files};
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};

pub(super) fn resolve_folder(folder: &Path) -> Result<ModelLocation> {
    let absolute = std::path::absolute(folder).with_context(|| format!("finding the folder {}", folder.display()))?;
    if let Some(cached_model) = resolve_cache_folder(&absolute)? {
        return Ok(cached_model);
    }
    if !absolute.join(model_files::CONFIG_FILE).is_file() {
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

/// A GGUF file, which is a whole model.
pub(super) fn resolve_gguf_file(path: &Path) -> Result<ModelLocation> {
    let absolute_path = std::path::absolute(path).with_context(|| format!("finding the file {}", path.display()))?;
    if absolute_path.extension().is_none_or(|extension| extension != "gguf") {
        let detail = format!("the file {} is no .gguf file: give one, or the model's folder", absolute_path.display());
        return Err(Error::invalid("base_model_not_found", detail));
    }
    let name = absolute_path.file_stem().map_or_else(|| "base".to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(ModelLocation { path: absolute_path, name })
}

/// `models--org--name` itself: the snapshot that `main` points to, or the only one.
fn resolve_cache_folder(folder: &Path) -> Result<Option<ModelLocation>> {
    let Some(repository) = folder.file_name().and_then(|name| repository_from_folder_name(name.to_str()?)) else {
        return Ok(None);
    };
    if !folder.join("snapshots").is_dir() {
        return Ok(None);
    }
    let cache = RepositoryCache::from_folder(folder);
    match cache.resolve_revision("main").or_else(|| cache.single_snapshot()) {
        Some(commit) if cache.snapshot_path(&commit).join(model_files::CONFIG_FILE).is_file() => {
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

/// What PEFT would call the model: its hub id where it lies in a hub cache, else the folder's own name.
fn model_name(folder: &Path) -> Result<String> {
    let canonical = folder.canonicalize().with_context(|| format!("finding the folder {}", folder.display()))?;
    let cached_repository = [folder, canonical.as_path()].into_iter().find_map(repository_of_snapshot);
    let file_name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends in `..` has no name of its own.
    Ok(cached_repository
        .or_else(|| file_name(&folder.to_path_buf()))
        .or_else(|| file_name(&canonical))
        .unwrap_or_else(|| "base".to_string()))
}

/// The repository of `…/models--org--name/snapshots/commit`.
fn repository_of_snapshot(snapshot: &Path) -> Option<String> {
    let snapshots = snapshot.parent()?;
    if snapshots.file_name()? != "snapshots" {
        return None;
    }
    repository_from_folder_name(snapshots.parent()?.file_name()?.to_str()?)
}

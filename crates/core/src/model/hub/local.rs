//! A model in a folder that the user names: a plain one, or one inside a Hugging Face cache.

use super::cache::{Cache, repository_of};
use super::{Located, files};
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};

pub(super) fn locate(folder: &Path) -> Result<Located> {
    let absolute = std::path::absolute(folder).with_context(|| format!("finding the folder {}", folder.display()))?;
    if let Some(located) = in_cache_folder(&absolute)? {
        return Ok(located);
    }
    if !absolute.join(files::CONFIG).is_file() {
        return Err(Error::invalid(
            "base_model_not_found",
            format!(
                "the folder {} holds no config.json, so it is no model: give the folder that holds the model's \
                 config.json, tokenizer.json and safetensors",
                absolute.display()
            ),
        ));
    }
    let name = name(&absolute)?;
    Ok(Located { folder: absolute, name })
}

/// A GGUF file, which is a whole model.
pub(super) fn file(path: &Path) -> Result<Located> {
    let absolute = std::path::absolute(path).with_context(|| format!("finding the file {}", path.display()))?;
    if absolute.extension().is_none_or(|extension| extension != "gguf") {
        let detail = format!("the file {} is no .gguf file: give one, or the model's folder", absolute.display());
        return Err(Error::invalid("base_model_not_found", detail));
    }
    let name = absolute.file_stem().map_or_else(|| "base".to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(Located { folder: absolute, name })
}

/// `models--org--name` itself: the snapshot that `main` points to, or the only one.
fn in_cache_folder(folder: &Path) -> Result<Option<Located>> {
    let Some(repository) = folder.file_name().and_then(|name| repository_of(name.to_str()?)) else { return Ok(None) };
    if !folder.join("snapshots").is_dir() {
        return Ok(None);
    }
    let cache = Cache::at(folder);
    match cache.commit("main").or_else(|| cache.only_snapshot()) {
        Some(commit) if cache.snapshot(&commit).join(files::CONFIG).is_file() => {
            Ok(Some(Located { folder: cache.snapshot(&commit), name: repository }))
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
fn name(folder: &Path) -> Result<String> {
    let real = folder.canonicalize().with_context(|| format!("finding the folder {}", folder.display()))?;
    let in_cache = [folder, real.as_path()].into_iter().find_map(repository_above);
    let own = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends in `..` has no name of its own.
    Ok(in_cache.or_else(|| own(&folder.to_path_buf())).or_else(|| own(&real)).unwrap_or_else(|| "base".to_string()))
}

/// The repository of `…/models--org--name/snapshots/commit`.
fn repository_above(snapshot: &Path) -> Option<String> {
    let snapshots = snapshot.parent()?;
    if snapshots.file_name()? != "snapshots" {
        return None;
    }
    repository_of(snapshots.parent()?.file_name()?.to_str()?)
}

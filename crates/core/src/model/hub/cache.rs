//! Folder of one model in the Hugging Face cache, in the layout of `huggingface_hub`.
//!
//! ```text
//! models--org--name/blobs/<etag>                     content, renamed into place when complete
//! models--org--name/snapshots/<commit>/config.json   -> ../../blobs/<etag>
//! models--org--name/refs/main                        the commit, written last
//! models--org--name/.no_exist/<commit>/modules.json  marker of a file that the hub does not have
//! .locks/models--org--name/<etag>.lock               lock of a blob that is being written
//! ```

use crate::error::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Folder of one repository in the Hugging Face cache.
pub(super) struct RepositoryCache {
    repository_folder: PathBuf,
    locks_folder: PathBuf,
}

/// Hub id of a cache folder name.
pub(super) fn repository_from_folder_name(folder_name: &str) -> Option<String> {
    folder_name.strip_prefix("models--").filter(|rest| !rest.is_empty()).map(|rest| rest.replace("--", "/"))
}

impl RepositoryCache {
    pub fn new(cache_root: &Path, repository: &str) -> Self {
        Self::from_folder(&cache_root.join(format!("models--{}", repository.replace('/', "--"))))
    }

    /// Opens the folder of a model.
    pub fn from_folder(folder: &Path) -> Self {
        let name = folder.file_name().unwrap_or_default();
        let locks = folder.parent().unwrap_or(Path::new("")).join(".locks").join(name);
        Self { repository_folder: folder.to_path_buf(), locks_folder: locks }
    }

    /// Commit of a revision, if the cache has a snapshot of it.
    pub fn resolve_revision(&self, revision: &str) -> Option<String> {
        let commit = match fs::read_to_string(self.repository_folder.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_string(),
            Err(_) => revision.to_string(),
        };
        (is_safe_file_name(&commit) && self.snapshot_path(&commit).is_dir()).then_some(commit)
    }

    /// Commit of the only snapshot; `None` if there are several.
    pub fn single_snapshot(&self) -> Option<String> {
        let mut entries = fs::read_dir(self.repository_folder.join("snapshots")).ok()?.flatten();
        let snapshot_name = entries.next()?.file_name().into_string().ok()?;
        entries.next().is_none().then_some(snapshot_name)
    }

    pub fn snapshot_path(&self, commit: &str) -> PathBuf {
        self.repository_folder.join("snapshots").join(commit)
    }

    /// Whether the cache has the file or a marker that the hub does not have it.
    pub fn is_presence_known(&self, commit: &str, file: &str) -> bool {
        self.has_file(commit, file) || self.no_exist_path(commit, file).is_file()
    }

    pub fn has_file(&self, commit: &str, file: &str) -> bool {
        self.snapshot_path(commit).join(file).is_file()
    }

    pub fn mark_absent(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.no_exist_path(commit, file);
        create_parent(&path)?;
        fs::write(&path, "").with_context(|| write_context(&path))
    }

    /// Locks a blob against other writers until the file is dropped.
    pub fn lock_blob(&self, etag: &str) -> Result<File> {
        let path = self.locks_folder.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).with_context(|| write_context(&path))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// Final path of a blob, and the path to which it is downloaded.
    pub fn blob_paths(&self, etag: &str) -> Result<(PathBuf, PathBuf)> {
        let blob = self.repository_folder.join("blobs").join(etag);
        create_parent(&blob)?;
        let incomplete = blob.with_file_name(format!("{etag}.incomplete"));
        Ok((blob, incomplete))
    }

    /// Links a file of a snapshot to its blob.
    pub fn link_snapshot_file(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot_path(commit).join(file);
        create_parent(&path)?;
        let parent_prefix = "../".repeat(2 + file.matches('/').count());
        let link_target = format!("{parent_prefix}blobs/{etag}");
        write_atomically(&path, |temporary| std::os::unix::fs::symlink(&link_target, temporary))
    }

    /// Points a revision to a commit. Written last, after all files of the snapshot.
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.repository_folder.join("refs").join(revision);
        create_parent(&path)?;
        write_atomically(&path, |temporary| File::create_new(temporary)?.write_all(commit.as_bytes()))
    }

    fn no_exist_path(&self, commit: &str, file: &str) -> PathBuf {
        self.repository_folder.join(".no_exist").join(commit).join(file)
    }
}

/// Whether a name from a hub response is safe as a file name.
pub(super) fn is_safe_file_name(name: &str) -> bool {
    let has_allowed_characters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    has_allowed_characters && (1..=128).contains(&name.len()) && !name.starts_with('.')
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| {
        format!("creating {}; HF_HUB_CACHE says where models are kept, and it has to be writable", parent.display())
    })
}

/// Creates a temporary file and renames it into place.
fn write_atomically(path: &Path, create: impl FnMut(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let temporary_file =
        tempfile::Builder::new().suffix(".tmp").make_in(folder, create).with_context(|| write_context(path))?;
    temporary_file.persist(path).map_err(|persist_error| persist_error.error).with_context(|| write_context(path))
}

fn write_context(path: &Path) -> String {
    format!("writing {}", path.display())
}

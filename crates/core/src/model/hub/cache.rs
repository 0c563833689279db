//! One model's folder in a Hugging Face cache, in the layout that its other users share.
//!
//! ```text
//! models--org--name/blobs/<etag>                     the bytes, renamed into place when they are whole
//! models--org--name/snapshots/<commit>/config.json   -> ../../blobs/<etag>
//! models--org--name/refs/main                        the commit, written last
//! models--org--name/.no_exist/<commit>/modules.json  known not to be on the hub
//! .locks/models--org--name/<etag>.lock               held while a blob is written
//! ```

use crate::error::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// The hub id that a cache folder's name stands for.
pub(super) fn repository_of(folder_name: &str) -> Option<String> {
    folder_name.strip_prefix("models--").filter(|rest| !rest.is_empty()).map(|rest| rest.replace("--", "/"))
}

impl Cache {
    pub fn new(cache: &Path, repository: &str) -> Self {
        Self::at(&cache.join(format!("models--{}", repository.replace('/', "--"))))
    }

    /// `folder` is the model's own.
    pub fn at(folder: &Path) -> Self {
        let name = folder.file_name().unwrap_or_default();
        let locks = folder.parent().unwrap_or(Path::new("")).join(".locks").join(name);
        Self { folder: folder.to_path_buf(), locks }
    }

    /// The commit that a revision stands for, as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let commit = match fs::read_to_string(self.folder.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_string(),
            Err(_) => revision.to_string(),
        };
        (is_plain(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// The commit of the only snapshot, where there is but one.
    pub fn only_snapshot(&self) -> Option<String> {
        let mut entries = fs::read_dir(self.folder.join("snapshots")).ok()?.flatten();
        let only = entries.next()?.file_name().into_string().ok()?;
        entries.next().is_none().then_some(only)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Whether it is known that the commit has this file, or that it has not.
    pub fn is_known(&self, commit: &str, file: &str) -> bool {
        self.has(commit, file) || self.absence(commit, file).is_file()
    }

    pub fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    pub fn remember_absence(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.absence(commit, file);
        create_parent(&path)?;
        fs::write(&path, "").with_context(|| writing(&path))
    }

    /// Lets nobody else write this blob until the lock is dropped.
    pub fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).with_context(|| writing(&path))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// The place of a blob, and the place where it is written until it is whole.
    pub fn blob(&self, etag: &str) -> Result<(PathBuf, PathBuf)> {
        let blob = self.folder.join("blobs").join(etag);
        create_parent(&blob)?;
        let unfinished = blob.with_file_name(format!("{etag}.incomplete"));
        Ok((blob, unfinished))
    }

    /// Makes a file of the snapshot point to its blob.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        put(&path, |temporary| std::os::unix::fs::symlink(&target, temporary))
    }

    /// The last thing to be written: from here on the revision is in the cache.
    pub fn point(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        put(&path, |temporary| File::create_new(temporary)?.write_all(commit.as_bytes()))
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }
}

/// Whether a word that the hub sent may become a file's name.
pub(super) fn is_plain(word: &str) -> bool {
    let allowed = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    allowed && (1..=128).contains(&word.len()) && !word.starts_with('.')
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| {
        format!("creating {}; HF_HUB_CACHE says where models are kept, and it has to be writable", parent.display())
    })
}

/// Makes a file under a name that nobody else has, and renames it into place.
fn put(path: &Path, make: impl FnMut(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let made = tempfile::Builder::new().suffix(".tmp").make_in(folder, make).with_context(|| writing(path))?;
    made.persist(path).map_err(|fault| fault.error).with_context(|| writing(path))
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}

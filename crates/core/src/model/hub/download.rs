//! From the hub into the cache: which files, in which order, and that each is whole.

use super::cache::Cache;
use super::files::{self, CONFIG, INDEX, OPTIONAL, TOKENIZER, WEIGHTS};
use super::id::Id;
use super::remote::{Answer, Opened, Remote};
use crate::error::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

const PIECE_BYTES: usize = 1 << 20;

/// Downloads what the cache does not have of a model, and answers the commit. The revision points to the commit only
/// once everything is there.
///
/// # Errors
/// `Invalid` where the hub has no such model, or not as safetensors with a `tokenizer.json`.
pub(super) fn download(id: &Id, remote: &Remote, cache: &Cache) -> Result<String> {
    // The first answer says which commit the revision is; all other files are asked for by it, so that they fit.
    let Answer::Opened(config) = remote.open(id, &id.revision, CONFIG)? else {
        return Err(remote.incomplete(id, "has no config.json for it"));
    };
    let commit = config.commit.clone();
    keep(CONFIG, config, &commit, cache)?;
    let here = Place { id, commit: &commit, remote, cache };
    if here.fetch(TOKENIZER)? == Presence::Absent {
        return Err(remote.incomplete(id, "has no tokenizer.json for it, and a fast tokenizer is needed"));
    }
    here.fetch_optional(&OPTIONAL)?;
    here.fetch_weights()?;
    cache.point(&id.revision, &commit)?;
    tracing::info!(model = id.repository, commit, "base model downloaded");
    Ok(commit)
}

/// Asks for files of which it is not known whether the model has them.
pub(super) fn optional(id: &Id, commit: &str, names: &[&str], remote: &Remote, cache: &Cache) -> Result<()> {
    Place { id, commit, remote, cache }.fetch_optional(names)
}

/// One commit of one model, there and here.
struct Place<'a> {
    id: &'a Id,
    commit: &'a str,
    remote: &'a Remote,
    cache: &'a Cache,
}

#[derive(PartialEq, Eq)]
enum Presence {
    Here,
    Absent,
}

impl Place<'_> {
    fn fetch(&self, file: &str) -> Result<Presence> {
        if self.cache.has(self.commit, file) {
            return Ok(Presence::Here);
        }
        match self.remote.open(self.id, self.commit, file)? {
            Answer::Absent => Ok(Presence::Absent),
            Answer::Opened(opened) => keep(file, opened, self.commit, self.cache).map(|()| Presence::Here),
        }
    }

    fn fetch_optional(&self, names: &[&str]) -> Result<()> {
        for name in names.iter().filter(|name| !self.cache.is_known(self.commit, name)) {
            if self.fetch(name)? == Presence::Absent {
                self.cache.remember_absence(self.commit, name)?;
            }
        }
        Ok(())
    }

    fn fetch_weights(&self) -> Result<()> {
        if self.fetch(WEIGHTS)? == Presence::Here {
            return Ok(());
        }
        if self.fetch(INDEX)? == Presence::Absent {
            return Err(self.remote.incomplete(self.id, "has no model.safetensors for it: choose a model that has"));
        }
        let index = self.cache.snapshot(self.commit).join(INDEX);
        let bytes = fs::read(&index).with_context(|| format!("reading {}", index.display()))?;
        let shards = files::shards(&bytes)
            .map_err(|reason| self.remote.incomplete(self.id, &format!("has a damaged {INDEX} for it: {reason}")))?;
        for shard in shards {
            if self.fetch(&shard)? == Presence::Absent {
                return Err(self.remote.incomplete(self.id, &format!("lacks {shard}, which {INDEX} names")));
            }
        }
        Ok(())
    }
}

/// Writes a file into the cache, unless its blob is there, and makes the snapshot point to it.
fn keep(file: &str, opened: Opened, commit: &str, cache: &Cache) -> Result<()> {
    if opened.commit != commit {
        let message = format!("the hub answered for {file} with the commit {}, not {commit}: try again", opened.commit);
        return Err(Error::internal(message));
    }
    let etag = opened.etag.clone();
    let lock = cache.lock(&etag)?;
    let (blob, unfinished) = cache.blob(&etag)?;
    if !is_whole(&blob, &opened.bytes) {
        tracing::info!(file, bytes = opened.bytes.first(), "downloading");
        if let Err(error) = write(file, opened, &unfinished) {
            // The fault to report is the download's; what is left over would be written anew anyway.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, &blob).with_context(|| format!("writing {}", blob.display()))?;
    }
    drop(lock);
    cache.link(commit, file, &etag)
}

/// A blob has its name only once it was verified; the size guards against what happened to the disk since.
fn is_whole(blob: &Path, announced: &[u64]) -> bool {
    fs::metadata(blob).is_ok_and(|found| found.is_file() && announced.iter().all(|bytes| *bytes == found.len()))
}

/// Reads the body into a file on disk, and checks its size and, where the hub names files by it, its sha256.
fn write(file: &str, mut opened: Opened, path: &Path) -> Result<()> {
    let mut out = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let count = opened.body.read(&mut piece).map_err(|error| broken_off(file, bytes, &opened.bytes, &error))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        hasher.update(&piece[..count]);
        out.write_all(&piece[..count]).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(announced) = opened.bytes.iter().find(|announced| **announced != bytes) {
        let message = format!("{file} came with {bytes} bytes instead of {announced}, and was not kept: try again");
        return Err(Error::internal(message));
    }
    let is_sha256 = opened.etag.len() == 64 && opened.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_sha256 && hexadecimal(&hasher.finalize()) != opened.etag.to_ascii_lowercase() {
        let message = format!("{file} came damaged (its sha256 is not the hub's), and was not kept: try again");
        return Err(Error::internal(message));
    }
    out.sync_all().with_context(|| format!("writing {}", path.display()))
}

fn broken_off(file: &str, bytes: u64, announced: &[u64], error: &std::io::Error) -> Error {
    let of = announced.iter().max().map_or(String::new(), |whole| format!(" of {whole}"));
    Error::internal(format!(
        "the download of {file} broke off after {bytes}{of} bytes ({error}), and was not kept: check the network and try \
         again"
    ))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

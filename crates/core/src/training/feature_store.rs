//! Feature store: files with the features of datasets, used from epoch to epoch and by later jobs on the same data.
//!
//! A file has the rows of all examples, concatenated, and their sha256. Its name is a hash of everything that the rows depend on, so a
//! file that verifies is valid regardless of its writer. The page cache of the operating system serves repeated reads. Features that exceed
//! the budget are not stored.

use super::job::Settings;
use crate::error::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// Age after which an unfinished file is considered abandoned.
const STALE_PART_AGE: Duration = Duration::from_secs(24 * 3600);

/// Buffer size for verifying a file.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// Size of the sha256 at the end of a file.
const DIGEST_BYTES: u64 = 32;

/// Finished file.
pub struct FeatureFile {
    file: File,
    layout: FeatureLayout,
}

/// Offsets of the examples' rows, and the width of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureLayout {
    row_offsets: Vec<u64>,
    width: usize,
}

impl FeatureLayout {
    /// From the number of rows of each example.
    pub fn new(rows: impl Iterator<Item = usize>, width: usize) -> Self {
        let mut end = 0;
        let mut starts = vec![0];
        starts.extend(rows.map(|rows| {
            end += rows as u64;
            end
        }));
        Self { row_offsets: starts, width }
    }

    pub fn row_width(&self) -> usize {
        self.width
    }

    /// Number of rows of an example.
    pub fn row_count(&self, example: usize) -> usize {
        (self.row_offsets[example + 1] - self.row_offsets[example]) as usize
    }

    /// Range of an example's values among those of all examples.
    pub fn value_range(&self, example: usize) -> Range<usize> {
        self.row_offsets[example] as usize * self.width..self.row_offsets[example + 1] as usize * self.width
    }

    /// Number of values of all examples.
    pub fn value_count(&self) -> usize {
        self.row_offsets[self.row_offsets.len() - 1] as usize * self.width
    }

    fn byte_offset(&self, example: usize) -> u64 {
        self.row_offsets[example] * (self.width * size_of::<f32>()) as u64
    }

    fn byte_len(&self) -> u64 {
        self.byte_offset(self.row_offsets.len() - 1)
    }
}

impl FeatureFile {
    /// Opens the file of an earlier run, where it verifies. Removes a damaged file.
    pub fn open(folder: &Path, key: &str, layout: &FeatureLayout) -> Option<Self> {
        let path = folder.join(key);
        let mut file = File::open(&path).ok()?;
        let verification = verify(&mut file, layout.byte_len());
        if !matches!(verification, Ok(true)) {
            tracing::warn!(file = %path.display(), "cached features are damaged and are computed again");
            let _ = fs::remove_file(&path);
            return None;
        }
        // The modification time is the time of the last use. If it cannot be set, the file is evicted earlier.
        let _ = file.set_modified(SystemTime::now());
        Some(Self { file, layout: layout.clone() })
    }

    /// Values of some examples, concatenated.
    pub fn read(&self, examples: &[usize]) -> Result<Vec<f32>> {
        let mut bytes = Vec::new();
        for example in examples {
            let start = bytes.len();
            let length = self.layout.row_count(*example) * self.layout.width * size_of::<f32>();
            bytes.resize(start + length, 0);
            let read = self.file.read_exact_at(&mut bytes[start..], self.layout.byte_offset(*example));
            read.context("reading cached features")?;
        }
        Ok(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
    }
}

/// File that is being written. Dropping it unfinished removes the file.
pub struct FeatureFileWriter {
    file: NamedTempFile,
    path: PathBuf,
    layout: FeatureLayout,
}

impl FeatureFileWriter {
    /// Evicts files until one of this layout fits; `None` where the budget or the disk is too small.
    pub fn new(settings: &Settings, folder: &Path, key: &str, layout: &FeatureLayout) -> Option<Self> {
        let file_bytes = layout.byte_len() + DIGEST_BYTES;
        if file_bytes > settings.feature_cache_bytes {
            let budget = settings.feature_cache_bytes;
            tracing::info!(file_bytes, budget, "features exceed the cache size and are computed in every epoch");
            return None;
        }
        match reserve_file(folder, settings.feature_cache_bytes, file_bytes) {
            Ok(file) => Some(Self { file, path: folder.join(key), layout: layout.clone() }),
            Err(error) => {
                tracing::warn!(%error, file_bytes, "no disk space for features: they are computed in every epoch");
                None
            }
        }
    }

    /// Writes the values of an example. Every example is written once, in any order.
    pub fn write(&self, example: usize, values: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let result = self.file.as_file().write_all_at(&bytes, self.layout.byte_offset(example));
        result.context("caching features")
    }

    pub fn finish(self) -> Result<FeatureFile> {
        let context = "caching features";
        let (mut file, bytes) = (self.file.reopen().context(context)?, self.layout.byte_len());
        let digest = hash_file(&mut file, bytes).context(context)?;
        file.write_all_at(&digest, bytes).context(context)?;
        self.file.persist(&self.path).map_err(|error| error.error).context(context)?;
        Ok(FeatureFile { file, layout: self.layout })
    }
}

/// Name of a file: a hash of everything that its content depends on.
pub fn cache_key(key_parts: impl Iterator<Item = Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for part in key_parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn verify(file: &mut File, bytes: u64) -> std::io::Result<bool> {
    if file.metadata()?.len() != bytes + DIGEST_BYTES {
        return Ok(false);
    }
    let actual = hash_file(file, bytes)?;
    let mut stored = [0; DIGEST_BYTES as usize];
    file.read_exact_at(&mut stored, bytes)?;
    Ok(stored == actual)
}

/// sha256 of the first `bytes` bytes. The position of the file must be its beginning.
fn hash_file(file: &mut File, bytes: u64) -> std::io::Result<[u8; DIGEST_BYTES as usize]> {
    let (mut hash, mut remaining, mut buffer) = (Sha256::new(), bytes, vec![0; READ_BUFFER_BYTES]);
    while remaining > 0 {
        let length = remaining.min(READ_BUFFER_BYTES as u64) as usize;
        file.read_exact(&mut buffer[..length])?;
        hash.update(&buffer[..length]);
        remaining -= length as u64;
    }
    Ok(hash.finalize().into())
}

/// Creates a temporary file and reserves its disk space.
fn reserve_file(folder: &Path, budget: u64, file_bytes: u64) -> std::io::Result<NamedTempFile> {
    fs::create_dir_all(folder)?;
    evict_lru(folder, budget - file_bytes)?;
    let file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
    match rustix::fs::fallocate(file.as_file(), rustix::fs::FallocateFlags::empty(), 0, file_bytes) {
        // Some file systems cannot reserve space.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(file),
        Err(error) => Err(error.into()),
    }
}

/// Removes the least recently used files until the others are within the budget. Open files stay readable.
fn evict_lru(folder: &Path, budget: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have removed it since.
        let Ok(metadata) = entry.metadata() else { continue };
        let last_used = metadata.modified()?;
        let is_partial = entry.file_name().to_string_lossy().starts_with('.');
        if !is_partial || last_used.elapsed().is_ok_and(|age| age > STALE_PART_AGE) {
            files.push((last_used, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, length, path) in files {
        if bytes <= budget {
            break;
        }
        let _ = fs::remove_file(path);
        bytes -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(feature_cache_bytes: u64) -> Settings {
        Settings { threads: 1, checkpoint_interval: Duration::ZERO, feature_cache_bytes, activation_memory_bytes: 0 }
    }

    fn write(folder: &Path, key: &str, budget: u64, values: [f32; 4]) -> Option<FeatureFile> {
        let shape = FeatureLayout::new([1, 0, 1].into_iter(), 2);
        let writer = FeatureFileWriter::new(&settings(budget), folder, key, &shape)?;
        writer.write(2, &values[2..]).unwrap();
        writer.write(0, &values[..2]).unwrap();
        Some(writer.finish().unwrap())
    }

    #[test]
    fn written_rows_are_read_in_any_order_now_and_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let values = [1.0, f32::MIN_POSITIVE, -0.0, 1.0 / 3.0];
        let written = write(folder.path(), "a", 100, values).unwrap();
        let reopened = FeatureFile::open(folder.path(), "a", &FeatureLayout::new([1, 0, 1].into_iter(), 2)).unwrap();
        for file in [written, reopened] {
            assert_eq!(file.read(&[2, 1, 0]).unwrap(), [-0.0, 1.0 / 3.0, 1.0, f32::MIN_POSITIVE]);
        }
        assert!(FeatureFile::open(folder.path(), "b", &FeatureLayout::new([1].into_iter(), 2)).is_none());
    }

    #[test]
    fn a_damaged_file_is_rejected_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let shape = FeatureLayout::new([1, 0, 1].into_iter(), 2);
        let damages: [fn(&mut Vec<u8>); 3] = [|bytes| bytes[5] ^= 1, |bytes| bytes.truncate(20), |bytes| bytes.push(0)];
        for damage in damages {
            write(folder.path(), "a", 100, [1.0; 4]);
            let mut bytes = fs::read(folder.path().join("a")).unwrap();
            damage(&mut bytes);
            fs::write(folder.path().join("a"), bytes).unwrap();
            assert!(FeatureFile::open(folder.path(), "a", &shape).is_none());
            assert!(!folder.path().join("a").exists());
        }
    }

    #[test]
    fn the_least_recently_used_file_is_evicted() {
        let folder = tempfile::tempdir().unwrap();
        let shape = FeatureLayout::new([1, 0, 1].into_iter(), 2);
        let exists = |key: &str| folder.path().join(key).exists();
        for (age, key) in [(300, "a"), (200, "b")] {
            write(folder.path(), key, 1000, [1.0; 4]);
            let file = File::open(folder.path().join(key)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert!(FeatureFile::open(folder.path(), "a", &shape).is_some(), "used now");
        assert!(write(folder.path(), "c", 100, [1.0; 4]).is_some());
        assert!(exists("a") && !exists("b") && exists("c"));
        assert!(write(folder.path(), "d", 47, [1.0; 4]).is_none(), "one byte too many");
        assert!(exists("a") && exists("c"), "a file that is too large evicts nothing");
    }

    #[test]
    fn an_uncreatable_folder_disables_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "in the way").unwrap();
        assert!(write(&folder.path().join("file"), "a", 1000, [1.0; 4]).is_none());
    }
}

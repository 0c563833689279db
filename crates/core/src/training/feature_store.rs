//! Feature store: files with the features of datasets, used from epoch to epoch and by later jobs on the same data.
//!
//! A file has the rows of all examples, concatenated, and their sha256. Its name is a hash of everything that the rows depend on, so a
//! file that verifies is valid regardless of its writer. The page cache of the operating system serves repeated reads. Features that exceed
//! the budget are not stored. An unfinished file is continued by the next job on the same data.

mod part_file;

use super::job::Settings;
use crate::error::{Context, Result};
use part_file::PartFile;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

    fn example_count(&self) -> usize {
        self.row_offsets.len() - 1
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
        let file = File::open(&path).ok()?;
        let verification = verify(&file, layout.byte_len());
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

/// File that is being written. Dropping it unfinished keeps what is written for the next attempt.
pub struct FeatureFileWriter {
    part: PartFile,
    path: PathBuf,
    layout: FeatureLayout,
    /// Examples that the file lacks.
    missing: Vec<usize>,
}

impl FeatureFileWriter {
    /// Evicts files until one of this layout fits; `None` where the budget or the disk is too small. Goes on with the file of an
    /// interrupted attempt.
    pub fn new(settings: &Settings, folder: &Path, key: &str, layout: &FeatureLayout) -> Option<Self> {
        let file_bytes = layout.byte_len() + DIGEST_BYTES;
        if file_bytes > settings.feature_cache_bytes {
            let budget = settings.feature_cache_bytes;
            tracing::info!(file_bytes, budget, "features exceed the cache size and are computed in every epoch");
            return None;
        }
        let opened = reserve_file(folder, key, settings.feature_cache_bytes, file_bytes);
        match opened.and_then(|part| Self::resume(part, folder.join(key), layout)) {
            Ok(writer) => Some(writer),
            Err(error) => {
                tracing::warn!(%error, file_bytes, "no disk space for features: they are computed in every epoch");
                None
            }
        }
    }

    fn resume(part: PartFile, path: PathBuf, layout: &FeatureLayout) -> std::io::Result<Self> {
        let mut is_missing = vec![true; layout.example_count()];
        let byte_range = |example: u64| {
            let example = usize::try_from(example).ok().filter(|example| *example < layout.example_count())?;
            Some(layout.byte_offset(example)..layout.byte_offset(example + 1))
        };
        for example in part.verified_examples(byte_range)? {
            is_missing[example] = false;
        }
        let missing: Vec<usize> = (0..layout.example_count()).filter(|example| is_missing[*example]).collect();
        if missing.len() < layout.example_count() {
            let (examples, missing) = (layout.example_count(), missing.len());
            tracing::info!(examples, missing, "features of an interrupted attempt are continued");
        }
        Ok(Self { part, path, layout: layout.clone(), missing })
    }

    /// Examples that are to be written, in order.
    pub fn missing_examples(&self) -> &[usize] {
        &self.missing
    }

    /// Writes the values of an example. Every missing example is written once, in any order.
    pub fn write(&mut self, example: usize, values: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.part.write(example, self.layout.byte_offset(example), &bytes).context("caching features")
    }

    pub fn finish(self) -> Result<FeatureFile> {
        let (file, bytes) = (self.part.as_file(), self.layout.byte_len());
        let digest = hash_file(file, bytes).and_then(|digest| file.write_all_at(&digest, bytes));
        digest.context("caching features")?;
        let file = self.part.finish(&self.path).context("caching features")?;
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

fn verify(file: &File, bytes: u64) -> std::io::Result<bool> {
    if file.metadata()?.len() != bytes + DIGEST_BYTES {
        return Ok(false);
    }
    let actual = hash_file(file, bytes)?;
    let mut stored = [0; DIGEST_BYTES as usize];
    file.read_exact_at(&mut stored, bytes)?;
    Ok(stored == actual)
}

/// sha256 of the first `bytes` bytes.
fn hash_file(file: &File, bytes: u64) -> std::io::Result<[u8; DIGEST_BYTES as usize]> {
    let (mut hash, mut offset, mut buffer) = (Sha256::new(), 0, vec![0; READ_BUFFER_BYTES]);
    while offset < bytes {
        let length = (bytes - offset).min(READ_BUFFER_BYTES as u64) as usize;
        file.read_exact_at(&mut buffer[..length], offset)?;
        hash.update(&buffer[..length]);
        offset += length as u64;
    }
    Ok(hash.finalize().into())
}

/// Opens the unfinished file of `key` and reserves its disk space.
fn reserve_file(folder: &Path, key: &str, budget: u64, file_bytes: u64) -> std::io::Result<PartFile> {
    fs::create_dir_all(folder)?;
    let part = PartFile::open(folder, key, file_bytes)?;
    evict_lru(folder, budget - file_bytes)?;
    match rustix::fs::fallocate(part.as_file(), rustix::fs::FallocateFlags::empty(), 0, file_bytes) {
        // Some file systems cannot reserve space.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(part),
        Err(error) => {
            // The error of the reservation is the one to report.
            let _ = part.remove();
            Err(error.into())
        }
    }
}

/// Removes the least recently used files until the others are within the budget. Open files stay readable, and unfinished files that
/// are being written are kept.
fn evict_lru(folder: &Path, budget: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have removed it since.
        let Ok(metadata) = entry.metadata() else { continue };
        if !(part_file::is_part_file(&entry.file_name().to_string_lossy()) && part_file::is_in_use(&entry.path())) {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
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
    use std::time::Duration;

    fn settings(feature_cache_bytes: u64) -> Settings {
        Settings { threads: 1, checkpoint_interval: Duration::ZERO, feature_cache_bytes, activation_memory_bytes: 0 }
    }

    fn write(folder: &Path, key: &str, budget: u64, values: [f32; 4]) -> Option<FeatureFile> {
        let shape = FeatureLayout::new([1, 0, 1].into_iter(), 2);
        let mut writer = FeatureFileWriter::new(&settings(budget), folder, key, &shape)?;
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

    /// One value per example.
    fn unfinished(folder: &Path, key: &str, examples: usize) -> FeatureFileWriter {
        let shape = FeatureLayout::new(vec![1; examples].into_iter(), 1);
        FeatureFileWriter::new(&settings(1000), folder, key, &shape).unwrap()
    }

    #[test]
    fn an_interrupted_file_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let mut killed = unfinished(folder.path(), "a", 4);
        assert_eq!(killed.missing_examples(), [0, 1, 2, 3]);
        killed.write(2, &[2.0]).unwrap();
        killed.write(0, &[0.5]).unwrap();
        drop(killed);
        let mut next = unfinished(folder.path(), "a", 4);
        assert_eq!(next.missing_examples(), [1, 3]);
        next.write(3, &[3.0]).unwrap();
        next.write(1, &[1.0]).unwrap();
        assert_eq!(next.finish().unwrap().read(&[0, 1, 2, 3]).unwrap(), [0.5, 1.0, 2.0, 3.0]);
        let layout = FeatureLayout::new(vec![1; 4].into_iter(), 1);
        assert!(FeatureFile::open(folder.path(), "a", &layout).is_some(), "the journal is removed");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn features_damaged_by_a_crash_are_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut killed = unfinished(folder.path(), "a", 4);
        (0..3).for_each(|example| killed.write(example, &[example as f32]).unwrap());
        drop(killed);
        let part = folder.path().join(".part-a");
        let mut bytes = fs::read(&part).unwrap();
        bytes[4] ^= 1;
        bytes.truncate(bytes.len() - 7);
        fs::write(&part, bytes).unwrap();
        assert_eq!(unfinished(folder.path(), "a", 4).missing_examples(), [1, 2, 3]);
    }

    #[test]
    fn two_writers_of_one_key_have_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut writers = [unfinished(folder.path(), "a", 1), unfinished(folder.path(), "a", 1)];
        writers.iter_mut().for_each(|writer| writer.write(0, &[1.0]).unwrap());
        for writer in writers {
            assert_eq!(writer.finish().unwrap().read(&[0]).unwrap(), [1.0]);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_file_is_evicted_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        drop(unfinished(folder.path(), "abandoned", 50));
        let in_use = unfinished(folder.path(), "in-use", 50);
        assert!(write(folder.path(), "c", 100, [1.0; 4]).is_some());
        assert!(!folder.path().join(".part-abandoned").exists() && folder.path().join(".part-in-use").exists());
        drop(in_use);
    }

    #[test]
    fn an_uncreatable_folder_disables_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "in the way").unwrap();
        assert!(write(&folder.path().join("file"), "a", 1000, [1.0; 4]).is_none());
    }
}

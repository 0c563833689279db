//! Metrics rows of a run, as JSON lines in a file that all checkpoints share. A checkpoint appends the rows since the one before it,
//! so its size does not depend on the number of rows of the run, and its manifest names the part of the file that it covers.

use crate::error::{Context, Error, Result};
use crate::training::progress::MetricsRow;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "rows.jsonl";

/// Beginning of the file that a checkpoint covers. What follows it belongs to a checkpoint that was not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsPrefix {
    rows: usize,
    bytes: u64,
    sha256: String,
}

/// The file, and the part of it that is written.
pub struct RowsFile {
    path: PathBuf,
    rows: usize,
    bytes: u64,
    hash: Sha256,
}

impl RowsFile {
    /// A file without rows. Rows that an earlier attempt wrote are kept by [`Self::load`] alone.
    pub fn new(checkpoint_dir: &Path) -> Self {
        Self { path: checkpoint_dir.join(FILE_NAME), rows: 0, bytes: 0, hash: Sha256::new() }
    }

    /// Writes those of a run's rows that are not in the file yet, and syncs them. The file's name is durable after a sync of the
    /// folder.
    pub fn append(&mut self, rows: &[MetricsRow]) -> Result<RowsPrefix> {
        let missing = || Error::internal("a checkpoint has fewer metrics rows than the one before it");
        let new_rows = rows.get(self.rows..).ok_or_else(missing)?;
        let mut lines = Vec::new();
        for row in new_rows {
            serde_json::to_writer(&mut lines, row).context("serializing a checkpoint's rows")?;
            lines.push(b'\n');
        }
        // At its position, not at the end: a failed write is repeated, and the tail of an unfinished checkpoint is replaced.
        let write = |file: File| file.write_all_at(&lines, self.bytes).and_then(|()| file.sync_data());
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        opened.and_then(write).with_context(|| format!("writing the checkpoint file {FILE_NAME}"))?;
        self.rows = rows.len();
        self.bytes += lines.len() as u64;
        self.hash.update(&lines);
        let sha256 = hex::encode(self.hash.clone().finalize());
        Ok(RowsPrefix { rows: self.rows, bytes: self.bytes, sha256 })
    }

    /// Reads the rows that a checkpoint covers. Further rows are appended after them.
    ///
    /// # Errors
    /// The reason why the file does not verify.
    pub fn load(&mut self, prefix: &RowsPrefix) -> std::result::Result<Vec<MetricsRow>, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(prefix.bytes).read_to_end(&mut bytes));
        read.map_err(|error| format!("{FILE_NAME}: {error}"))?;
        let hash = Sha256::new_with_prefix(&bytes);
        if hex::encode(hash.clone().finalize()) != prefix.sha256 {
            return Err(format!("{FILE_NAME} is not what was written"));
        }
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows: Vec<MetricsRow> =
            lines.map(serde_json::from_slice).collect::<serde_json::Result<_>>().map_err(|error| error.to_string())?;
        (self.rows, self.bytes, self.hash) = (rows.len(), prefix.bytes, hash);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(count: u64) -> Vec<MetricsRow> {
        let row = |step| MetricsRow { step, split: "train".to_string(), metrics: json!({"loss": step as f64 / 3.0}) };
        (0..count).map(row).collect()
    }

    #[test]
    fn rows_are_appended_and_a_prefix_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RowsFile::new(folder.path());
        let prefixes = [0, 2, 2, 5].map(|count| file.append(&rows(count)).unwrap());
        for (prefix, count) in prefixes.iter().zip([0, 2, 2, 5]) {
            assert_eq!(RowsFile::new(folder.path()).load(prefix).unwrap(), rows(count));
        }
        assert_eq!(prefixes[1], prefixes[2]);
    }

    #[test]
    fn the_tail_of_an_unfinished_checkpoint_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RowsFile::new(folder.path());
        let finished = file.append(&rows(3)).unwrap();
        file.append(&rows(9)).unwrap();
        let mut resumed = RowsFile::new(folder.path());
        assert_eq!(resumed.load(&finished).unwrap(), rows(3));
        let next = resumed.append(&rows(4)).unwrap();
        assert_eq!(RowsFile::new(folder.path()).load(&next).unwrap(), rows(4));
    }

    #[test]
    fn a_damaged_or_short_file_does_not_verify() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = RowsFile::new(folder.path()).append(&rows(3)).unwrap();
        let path = folder.path().join(FILE_NAME);
        let intact = std::fs::read(&path).unwrap();
        let mut flipped = intact.clone();
        flipped[5] ^= 1;
        for damaged in [&flipped[..], &intact[..10], b""] {
            std::fs::write(&path, damaged).unwrap();
            assert!(RowsFile::new(folder.path()).load(&prefix).unwrap_err().contains("is not what was written"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(RowsFile::new(folder.path()).load(&prefix).is_err());
    }
}

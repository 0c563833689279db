//! Checkpoints of a run.
//!
//! A checkpoint is two blobs (`step-N.safetensors`, `step-N.json`), the beginning of the file of metrics rows, and a manifest with the
//! sha256 of each. Rows and blobs are written and synced first, then the manifest is renamed into place. The newest manifest that
//! verifies is loaded, and two checkpoints are kept.

mod rows_file;

use super::optimizer::Moments;
use super::progress::MetricsRow;
use crate::durable_fs;
use crate::error::{Context, Result};
use crate::task::objective::PairLogProbs;
use espalier_tensor::Tensor;
use rows_file::{RowsFile, RowsPrefix};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// State of a run: everything besides its data and its specification.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    pub parameters: Vec<Tensor>,
    pub moments: Moments,
    /// Parameters of the best evaluation so far.
    pub best: Option<Vec<Tensor>>,
    pub trainer_state: TrainerState,
}

impl TrainingState {
    /// Keeps the current parameters where their evaluation is the best so far; a tie keeps the earlier ones.
    pub fn update_best(&mut self, score: Score) {
        let best = self.trainer_state.best.as_ref();
        match best.is_none_or(|best| score.is_better_than(&best.score)) {
            true => {
                self.trainer_state.best = Some(BestEvaluation { step: self.trainer_state.step, score });
                self.best = Some(self.parameters.clone());
                self.trainer_state.evaluations_since_best = 0;
            }
            false => self.trainer_state.evaluations_since_best += 1,
        }
    }
}

/// State of a run besides its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Finished steps.
    pub step: u64,
    /// Step of the last evaluation, `None` before the first.
    pub last_evaluated_step: Option<u64>,
    pub best: Option<BestEvaluation>,
    /// Evaluations since the best one.
    pub evaluations_since_best: u32,
    /// Sums of loss and denominators since the last `train` row.
    pub log_window_loss: f64,
    pub log_window_examples: u64,
    /// All rows of the run, in a file of their own.
    #[serde(skip)]
    pub metrics_rows: Vec<MetricsRow>,
    /// Log-probabilities of all pairs before the first step, for preference optimisation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference_logprobs: Vec<PairLogProbs>,
}

/// Best evaluation of a run so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEvaluation {
    pub step: u64,
    #[serde(flatten)]
    pub score: Score,
}

/// Score of an evaluation. Evaluations are compared by score, then by loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Higher is better.
    pub score: f64,
    pub loss: f64,
}

impl Score {
    pub fn is_better_than(&self, other: &Self) -> bool {
        self.score > other.score || (self.score == other.score && self.loss < other.loss)
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    step: u64,
    /// sha256 of the specification. A checkpoint of another specification is ignored.
    spec_hash: String,
    /// sha256 by file name.
    files: BTreeMap<String, String>,
    metrics_rows: RowsPrefix,
}

const KEPT_CHECKPOINTS: usize = 2;

/// Folder with the checkpoints of a run.
pub struct CheckpointDir {
    path: PathBuf,
    spec_hash: String,
    rows_file: RowsFile,
}

impl CheckpointDir {
    /// `spec` is the serialized specification of the run.
    pub fn new(path: PathBuf, spec: &[u8]) -> Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| format!("creating the checkpoint folder {}", path.display()))?;
        let rows_file = RowsFile::new(&path);
        Ok(Self { path, spec_hash: hex::encode(Sha256::digest(spec)), rows_file })
    }

    /// Saves the state of a run. A folder has one run: each state has the rows of the one saved or loaded before it.
    pub fn save(&mut self, state: &TrainingState, names: &[String]) -> Result<()> {
        let step = state.trainer_state.step;
        let metrics_rows = self.rows_file.append(&state.trainer_state.metrics_rows)?;
        let counters = serde_json::to_vec(&state.trainer_state).context("serializing a checkpoint's state")?;
        let blobs = [
            (format!("step-{step}.safetensors"), serialize_tensors(state, names)?),
            (format!("step-{step}.json"), counters),
        ];
        let mut files = BTreeMap::new();
        for (name, bytes) in blobs {
            files.insert(name.clone(), hex::encode(Sha256::digest(&bytes)));
            self.write(&name, &bytes)?;
        }
        let manifest = Manifest { step, spec_hash: self.spec_hash.clone(), files, metrics_rows };
        let manifest = serde_json::to_vec(&manifest).context("serializing a checkpoint's manifest")?;
        self.write(&format!("manifest-{step}.json"), &manifest)?;
        tracing::debug!(step, "checkpoint saved");
        self.prune()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let written = durable_fs::write_atomically(&self.path, name, bytes);
        written.with_context(|| format!("writing the checkpoint file {name}"))
    }

    /// Newest checkpoint that verifies. A damaged one is skipped with a warning.
    pub fn load(&mut self, names: &[String]) -> Result<Option<TrainingState>> {
        for step in self.manifest_steps()?.into_iter().rev() {
            match self.load_verified(step, names) {
                Ok(state) => return Ok(Some(state)),
                Err(reason) => tracing::warn!(step, reason, "skipping a checkpoint that does not verify"),
            }
        }
        Ok(None)
    }

    fn load_verified(&mut self, step: u64, names: &[String]) -> std::result::Result<TrainingState, String> {
        let read = |name: &str| std::fs::read(self.path.join(name)).map_err(|error| format!("{name}: {error}"));
        let manifest: Manifest =
            serde_json::from_slice(&read(&format!("manifest-{step}.json"))?).map_err(|error| error.to_string())?;
        if manifest.spec_hash != self.spec_hash {
            return Err("it belongs to another specification".to_string());
        }
        let read_verified = |name: String| {
            let bytes = read(&name)?;
            match manifest.files.get(&name) {
                Some(hash) if *hash == hex::encode(Sha256::digest(&bytes)) => Ok(bytes),
                _ => Err(format!("{name} is not what was written")),
            }
        };
        let counters = read_verified(format!("step-{step}.json"))?;
        let counters: TrainerState = serde_json::from_slice(&counters).map_err(|error| error.to_string())?;
        let blob = read_verified(format!("step-{step}.safetensors"))?;
        let blob = SafeTensors::deserialize(&blob).map_err(|error| error.to_string())?;
        let mut state = deserialize_state(&blob, counters, names)?;
        state.trainer_state.metrics_rows = self.rows_file.load(&manifest.metrics_rows)?;
        Ok(state)
    }

    /// Steps that have a manifest, in ascending order.
    fn manifest_steps(&self) -> Result<Vec<u64>> {
        let entries = std::fs::read_dir(&self.path).context("listing checkpoints")?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let step = |name: String| name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok();
        let mut steps: Vec<u64> = names.filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn prune(&self) -> Result<()> {
        let steps = self.manifest_steps()?;
        for step in &steps[..steps.len().saturating_sub(KEPT_CHECKPOINTS)] {
            // The manifest is removed first: blobs without a manifest are ignored.
            for name in
                [format!("manifest-{step}.json"), format!("step-{step}.json"), format!("step-{step}.safetensors")]
            {
                let removed = durable_fs::remove_file_if_exists(&self.path.join(&name));
                removed.with_context(|| format!("removing the checkpoint file {name}"))?;
            }
        }
        Ok(())
    }
}

/// Serializes the tensors `parameters.NAME`, `first.NAME`, `second.NAME` and, with a best evaluation, `best.NAME`.
fn serialize_tensors(state: &TrainingState, names: &[String]) -> Result<Vec<u8>> {
    let mut groups = vec![("parameters", &state.parameters), ("first", &state.moments.exp_avg)];
    groups.push(("second", &state.moments.exp_avg_sq));
    groups.extend(state.best.as_ref().map(|best| ("best", best)));
    let mut views = BTreeMap::new();
    let bytes: Vec<(String, &Tensor, Vec<u8>)> = groups
        .into_iter()
        .flat_map(|(group, tensors)| {
            names.iter().zip(tensors).map(move |(name, tensor)| (format!("{group}.{name}"), tensor))
        })
        .map(|(name, tensor)| (name, tensor, tensor.to_le_bytes()))
        .collect();
    for (name, tensor, bytes) in &bytes {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).context("serializing a checkpoint")?;
        views.insert(name.clone(), view);
    }
    safetensors::serialize(views, None).context("serializing a checkpoint")
}

fn deserialize_state(
    blob: &SafeTensors,
    trainer_state: TrainerState,
    names: &[String],
) -> std::result::Result<TrainingState, String> {
    let group = |group: &str| -> std::result::Result<Vec<Tensor>, String> {
        let read_tensor = |name: &String| {
            let view = blob.tensor(&format!("{group}.{name}")).map_err(|error| error.to_string())?;
            let values = view.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
            Ok(Tensor::new(view.shape(), values))
        };
        names.iter().map(read_tensor).collect()
    };
    let best = trainer_state.best.as_ref().map(|_| group("best")).transpose()?;
    let moments = Moments { exp_avg: group("first")?, exp_avg_sq: group("second")? };
    Ok(TrainingState { parameters: group("parameters")?, moments, best, trainer_state })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State with one metrics row per step.
    fn state(step: u64) -> TrainingState {
        let parameters = vec![Tensor::new([2, 2], vec![1.0, 0.1, -0.0, step as f32])];
        let best = Some(BestEvaluation { step, score: Score { score: 0.1 + 0.2, loss: 1.0 / 3.0 } });
        let row = |step| MetricsRow {
            step,
            split: "train".to_string(),
            metrics: serde_json::json!({"loss": 1.0 / (step as f64 + 3.0)}),
        };
        let metrics_rows = (1..=step).map(row).collect();
        let counters = TrainerState { step, best, log_window_loss: 0.1, metrics_rows, ..TrainerState::default() };
        let moments = Moments::zeros(&parameters);
        TrainingState { best: Some(parameters.clone()), parameters, moments, trainer_state: counters }
    }

    fn test_dir() -> (tempfile::TempDir, CheckpointDir, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let folder = reopen(&directory, b"spec");
        (directory, folder, vec!["a".to_string()])
    }

    /// The folder as another attempt opens it.
    fn reopen(directory: &tempfile::TempDir, spec: &[u8]) -> CheckpointDir {
        CheckpointDir::new(directory.path().join("job"), spec).unwrap()
    }

    #[test]
    fn a_state_is_restored_bit_for_bit_and_two_checkpoints_are_kept() {
        let (directory, mut folder, names) = test_dir();
        for step in [0, 5, 9] {
            folder.save(&state(step), &names).unwrap();
        }
        let mut reopened = reopen(&directory, b"spec");
        assert_eq!(reopened.load(&names).unwrap(), Some(state(9)));
        assert_eq!(folder.manifest_steps().unwrap(), [5, 9]);
        let file_count = std::fs::read_dir(&folder.path).unwrap().count();
        assert_eq!(file_count, 7, "a manifest and two blobs for each, and the rows");
        reopened.save(&state(12), &names).unwrap();
        assert_eq!(reopen(&directory, b"spec").load(&names).unwrap(), Some(state(12)), "after a resume");
    }

    #[test]
    fn a_damaged_checkpoint_is_skipped_and_written_again() {
        let (directory, mut folder, names) = test_dir();
        folder.save(&state(5), &names).unwrap();
        folder.save(&state(9), &names).unwrap();
        std::fs::write(folder.path.join("step-9.json"), b"{}").unwrap();
        let mut reopened = reopen(&directory, b"spec");
        assert_eq!(reopened.load(&names).unwrap(), Some(state(5)));
        reopened.save(&state(7), &names).unwrap();
        reopened.save(&state(9), &names).unwrap();
        assert_eq!(reopen(&directory, b"spec").load(&names).unwrap(), Some(state(9)));
    }

    #[test]
    fn a_checkpoint_of_another_specification_is_ignored() {
        let (directory, mut folder, names) = test_dir();
        folder.save(&state(5), &names).unwrap();
        let mut other_dir = reopen(&directory, b"other");
        assert_eq!(other_dir.load(&names).unwrap(), None);
        other_dir.save(&state(2), &names).unwrap();
        assert_eq!(reopen(&directory, b"other").load(&names).unwrap(), Some(state(2)));
    }

    #[test]
    fn bytes_per_checkpoint_do_not_depend_on_the_number_of_rows() {
        let (directory, mut folder, names) = test_dir();
        let path = directory.path().join("job");
        let bytes = |name: &str| std::fs::metadata(path.join(name)).map_or(0, |file| file.len());
        let mut written = Vec::new();
        for step in (0..=4000).step_by(10) {
            let rows_before = bytes(rows_file::FILE_NAME);
            folder.save(&state(step), &names).unwrap();
            let blobs = ["step-{}.json", "step-{}.safetensors", "manifest-{}.json"];
            let blob_bytes: u64 = blobs.iter().map(|name| bytes(&name.replace("{}", &step.to_string()))).sum();
            written.push(blob_bytes + bytes(rows_file::FILE_NAME) - rows_before);
        }
        let (early, late) = (written[1], written[written.len() - 1]);
        // Numbers have more digits.
        assert!(late <= early + 300, "the last checkpoint has {late} bytes, an early one {early}");
    }
}

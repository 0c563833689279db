//! Output head: selects rows of the last layer and computes a task's outputs from them.

use super::head::{self, Head};
use super::{Config, lm_loss};
use crate::error::Result;
use crate::model::{BaseModel, Hooks, Pooling, RequiredRows, Tokens};
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};

/// Head that a task needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSpec {
    pub rows: HeadRows,
    pub kind: HeadType,
}

/// Rows that a task's head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadRows {
    /// One pooled row per sequence.
    Pooled,
    /// The rows at the target positions of each sequence.
    TargetPositions,
}

/// Outputs that a task's head computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadType {
    /// Outputs of a head that is trained with the adapter.
    Trained { outputs: usize, activation: Option<Activation> },
    /// Logits of the base's masked language model head, which is frozen.
    MaskedLm,
    /// Logits of the base's causal language model head, which is frozen.
    CausalLm,
    /// The rows themselves.
    Identity,
}

impl HeadSpec {
    pub const MASKED_LM: Self = Self { rows: HeadRows::TargetPositions, kind: HeadType::MaskedLm };
    pub const CAUSAL_LM: Self = Self { rows: HeadRows::TargetPositions, kind: HeadType::CausalLm };
    pub const POOLED_ROW: Self = Self { rows: HeadRows::Pooled, kind: HeadType::Identity };

    /// Trained head on the pooled row of each sequence.
    pub fn pooled(outputs: usize, layers: Option<&head::Config>) -> Self {
        let activation = layers.and_then(head::Config::activation);
        Self { rows: HeadRows::Pooled, kind: HeadType::Trained { outputs, activation } }
    }

    /// Trained linear head on the row of each word.
    pub fn per_word(outputs: usize) -> Self {
        Self { rows: HeadRows::TargetPositions, kind: HeadType::Trained { outputs, activation: None } }
    }
}

/// Rows of the last layer that a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSelection {
    /// One pooled row per sequence.
    Pooled(Pooling),
    /// The rows at the target positions of each sequence.
    TargetPositions,
}

impl RowSelection {
    pub fn for_task(task: &Config, default_pooling: Pooling) -> Self {
        match task.head(&[]).rows {
            HeadRows::Pooled => Self::Pooled(task.pooling().unwrap_or(default_pooling)),
            HeadRows::TargetPositions => Self::TargetPositions,
        }
    }

    pub fn required_rows(self) -> RequiredRows {
        match self {
            Self::Pooled(pooling) => pooling.required_rows(),
            Self::TargetPositions => RequiredRows::All,
        }
    }

    /// Number of rows of a sequence.
    pub fn row_count(self, tokens: &Tokens) -> usize {
        match self {
            Self::Pooled(_) => 1,
            Self::TargetPositions => tokens.target_positions.len(),
        }
    }
}

/// Outputs that a head computes.
#[derive(Debug, Clone, Copy)]
pub enum HeadKind {
    /// Outputs of a trained head.
    Trained(Head),
    /// Logits over the vocabulary, by the base's own language model head.
    LmHead,
    /// The rows themselves.
    Identity,
}

/// Output head of an adapter: row selection and head.
#[derive(Debug, Clone, Copy)]
pub struct OutputHead {
    pub row_selection: RowSelection,
    pub kind: HeadKind,
}

impl OutputHead {
    /// Selected rows of the last layer, `(rows, hidden)`.
    pub fn select_rows<'a>(
        &self,
        base: &BaseModel,
        tape: &mut Tape,
        hidden: Var,
        hooks: &dyn Hooks,
        sequences: impl IntoIterator<Item = &'a Tokens>,
    ) -> Result<Var> {
        match self.row_selection {
            RowSelection::Pooled(pooling) => base.pool(tape, hidden, pooling, hooks),
            RowSelection::TargetPositions => {
                Ok(tape.gather_rows(hidden, sequences.into_iter().map(|tokens| tokens.target_positions.as_slice()))?)
            }
        }
    }

    /// Head of an adapter with these labels. `add_linear` adds the parameters of a linear map by name, outputs and inputs.
    pub fn build(
        task: &Config,
        labels: &[String],
        pooling: Pooling,
        hidden_size: usize,
        add_linear: impl FnMut(&str, usize, usize) -> (ParamId, ParamId),
    ) -> Self {
        let kind = match task.head(labels).kind {
            HeadType::Trained { outputs, activation } => {
                HeadKind::Trained(Head::build(activation, outputs, hidden_size, add_linear))
            }
            HeadType::MaskedLm | HeadType::CausalLm => HeadKind::LmHead,
            HeadType::Identity => HeadKind::Identity,
        };
        Self { row_selection: RowSelection::for_task(task, pooling), kind }
    }

    /// Head whose outputs a probe compares: without masks or targets a language model has no outputs, so its mean row is used.
    pub fn probe_head(self) -> Self {
        match self.kind {
            HeadKind::LmHead => Self { row_selection: RowSelection::Pooled(Pooling::Mean), kind: HeadKind::Identity },
            HeadKind::Trained(_) | HeadKind::Identity => self,
        }
    }

    pub fn trained_head(&self) -> Option<Head> {
        match self.kind {
            HeadKind::Trained(head) => Some(head),
            HeadKind::LmHead | HeadKind::Identity => None,
        }
    }

    /// Outputs that the training loss reads, `(rows, outputs)`; for a language model the rows before the vocabulary projection.
    pub fn training_outputs(&self, base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<Var> {
        match self.kind {
            HeadKind::Trained(head) => head.forward(tape, rows),
            HeadKind::LmHead => base.lm_head_transform(tape, rows),
            HeadKind::Identity => Ok(rows),
        }
    }

    /// Outputs that a prediction is made from, per sequence: those of the head, rows scaled to norm 1, or the most probable
    /// tokens of the vocabulary.
    pub fn serving_outputs<'a>(
        &self,
        base: &BaseModel,
        tape: &mut Tape,
        hidden: Var,
        hooks: &dyn Hooks,
        sequences: impl IntoIterator<Item = &'a Tokens>,
    ) -> Result<Vec<Vec<f32>>> {
        let rows = self.select_rows(base, tape, hidden, hooks, sequences)?;
        let layout = tape.layout(rows);
        let (values, width) = match self.kind {
            HeadKind::LmHead => top_tokens(base, tape, rows)?,
            HeadKind::Trained(_) | HeadKind::Identity => {
                let outputs = self.training_outputs(base, tape, rows)?;
                (tape.to_host(outputs)?.values, tape.width(outputs))
            }
        };
        let mut per_sequence: Vec<Vec<f32>> =
            layout.row_ranges().map(|range| values[range.start * width..range.end * width].to_vec()).collect();
        if matches!(self.kind, HeadKind::Identity) {
            per_sequence.iter_mut().for_each(|row| l2_normalize(row));
        }
        Ok(per_sequence)
    }
}

/// Most probable tokens of each row, flattened, and the number of values per row.
fn top_tokens(base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<(Vec<f32>, usize)> {
    let (lm_rows, mut values) = (base.lm_head_transform(tape, rows)?, Vec::new());
    let vocabulary_size = base.info().vocabulary_size;
    lm_loss::for_each_logits_chunk(base, tape, lm_rows, |logits, _| {
        let logits = base.backend().download(logits)?.values;
        values.extend(logits.chunks_exact(vocabulary_size).flat_map(lm_loss::top_tokens));
        Ok(())
    })?;
    let width = values.len() / tape.layout(rows).num_rows().max(1);
    Ok((values, width))
}

/// Scales a row to norm 1; a row of zeros stays unchanged.
pub fn l2_normalize(row: &mut [f32]) {
    let norm = l2_norm(row).max(1e-12);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
}

pub fn l2_norm(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

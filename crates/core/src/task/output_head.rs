//! From the last layer's rows to a task's outputs: the rows that it reads, and what is made of them.
//!
//! Knows nothing of how the head's tensors came about.

use super::embedding::l2_normalize;
use super::head::Head;
use super::{Config, lm_loss, masked_language_model};
use crate::error::Result;
use crate::model::{BaseModel, Hooks, Pooling, RequiredRows, Tokens};
use espalier_tensor::{Tape, Var};

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSelection {
    /// One for each sequence.
    Pooled(Pooling),
    /// One for each word: those that its tokens name as picked.
    TargetPositions,
}

impl RowSelection {
    pub fn for_task(task: &Config, default_pooling: Pooling) -> Self {
        match task {
            Config::TokenClassification(_) | Config::MaskedLanguageModel(_) => Self::TargetPositions,
            task if task.is_generative() => Self::TargetPositions,
            _ => Self::Pooled(task.pooling().unwrap_or(default_pooling)),
        }
    }

    pub fn required_rows(self) -> RequiredRows {
        match self {
            Self::Pooled(pooling) => pooling.required_rows(),
            Self::TargetPositions => RequiredRows::All,
        }
    }

    /// How many of a sequence.
    pub fn row_count(self, tokens: &Tokens) -> usize {
        match self {
            Self::Pooled(_) => 1,
            Self::TargetPositions => tokens.target_positions.len(),
        }
    }
}

/// What is made of the rows.
#[derive(Debug, Clone, Copy)]
pub enum HeadKind {
    /// The outputs of a head that is trained.
    Trained(Head),
    /// A number for each word of the vocabulary, by the base's own head.
    LmHead,
    /// Nothing: they are compared with each other.
    Identity,
}

/// Reads rows and makes outputs of them.
#[derive(Debug, Clone, Copy)]
pub struct OutputHead {
    pub row_selection: RowSelection,
    pub kind: HeadKind,
}

impl OutputHead {
    /// The rows that are read: `(sequences or words, hidden)`.
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

    /// `head` is the trained one, where the task has one.
    pub fn new(task: &Config, pooling: Pooling, head: Option<Head>) -> Self {
        let kind = match (task, head) {
            (_, Some(head)) => HeadKind::Trained(head),
            (Config::MaskedLanguageModel(_), None) => HeadKind::LmHead,
            (task, None) if task.is_generative() => HeadKind::LmHead,
            (_, None) => HeadKind::Identity,
        };
        Self { row_selection: RowSelection::for_task(task, pooling), kind }
    }

    pub fn trained_head(&self) -> Option<Head> {
        match self.kind {
            HeadKind::Trained(head) => Some(head),
            HeadKind::LmHead | HeadKind::Identity => None,
        }
    }

    /// What training looks at: `(rows, outputs)`; of a language model the rows that its words are compared with.
    pub fn training_outputs(&self, base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<Var> {
        match self.kind {
            HeadKind::Trained(head) => head.forward(tape, rows),
            HeadKind::LmHead => base.lm_head_transform(tape, rows),
            HeadKind::Identity => Ok(rows),
        }
    }

    /// What a request is answered from: the outputs of each sequence's rows, end to end; rows themselves of length 1; of a
    /// vocabulary only its likeliest words.
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
            _ => {
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

/// The likeliest words of each row, end to end, and the numbers of one.
fn top_tokens(base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<(Vec<f32>, usize)> {
    let (lm_rows, mut values) = (base.lm_head_transform(tape, rows)?, Vec::new());
    let vocabulary_size = base.info().vocabulary_size;
    lm_loss::for_each_logits_chunk(base, tape, lm_rows, |logits, _| {
        let logits = base.backend().download(logits)?.values;
        values.extend(logits.chunks_exact(vocabulary_size).flat_map(masked_language_model::top_tokens));
        Ok(())
    })?;
    let width = values.len() / tape.layout(rows).num_rows().max(1);
    Ok((values, width))
}

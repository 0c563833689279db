//! From the last layer's rows to a task's outputs: the rows that it reads, and what is made of them.
//!
//! Knows nothing of how the head's tensors came about.

use super::embedding::normalize;
use super::head::Head;
use super::{Config, language, masked_language_model};
use crate::error::Result;
use crate::model::{Base, Hooks, Pooling, Tokens, Wanted};
use espalier_tensor::{Rows, Tape};

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// One for each sequence.
    Pooled(Pooling),
    /// One for each word: those that its tokens name as picked.
    Words,
}

impl Reading {
    pub fn of(task: &Config, default: Pooling) -> Self {
        match task {
            Config::TokenClassification(_) | Config::MaskedLanguageModel(_) => Self::Words,
            task if task.generates() => Self::Words,
            _ => Self::Pooled(task.pooling().unwrap_or(default)),
        }
    }

    pub fn wanted(self) -> Wanted {
        match self {
            Self::Pooled(pooling) => pooling.wanted(),
            Self::Words => Wanted::All,
        }
    }

    /// How many of a sequence.
    pub fn rows(self, tokens: &Tokens) -> usize {
        match self {
            Self::Pooled(_) => 1,
            Self::Words => tokens.picked.len(),
        }
    }
}

/// What is made of the rows.
#[derive(Debug, Clone, Copy)]
pub enum Reads {
    /// The outputs of a head that is trained.
    Trained(Head),
    /// A number for each word of the vocabulary, by the base's own head.
    Language,
    /// Nothing: they are compared with each other.
    Rows,
}

/// Reads rows and makes outputs of them.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    pub reading: Reading,
    pub reads: Reads,
}

impl Reader {
    /// The rows that are read: `(sequences or words, hidden)`.
    pub fn rows<'a>(
        &self,
        base: &Base,
        tape: &mut Tape,
        hidden: Rows,
        hooks: &dyn Hooks,
        sequences: impl IntoIterator<Item = &'a Tokens>,
    ) -> Result<Rows> {
        match self.reading {
            Reading::Pooled(pooling) => base.pool(tape, hidden, pooling, hooks),
            Reading::Words => Ok(tape.pick(hidden, sequences.into_iter().map(|tokens| tokens.picked.as_slice()))?),
        }
    }

    /// `head` is the trained one, where the task has one.
    pub fn new(task: &Config, pooling: Pooling, head: Option<Head>) -> Self {
        let reads = match (task, head) {
            (_, Some(head)) => Reads::Trained(head),
            (Config::MaskedLanguageModel(_), None) => Reads::Language,
            (task, None) if task.generates() => Reads::Language,
            (_, None) => Reads::Rows,
        };
        Self { reading: Reading::of(task, pooling), reads }
    }

    pub fn head(&self) -> Option<Head> {
        match self.reads {
            Reads::Trained(head) => Some(head),
            Reads::Language | Reads::Rows => None,
        }
    }

    /// What training looks at: `(rows, outputs)`; of a language model the rows that its words are compared with.
    pub fn outputs(&self, base: &Base, tape: &mut Tape, rows: Rows) -> Result<Rows> {
        match self.reads {
            Reads::Trained(head) => head.logits(tape, rows),
            Reads::Language => base.before_words(tape, rows),
            Reads::Rows => Ok(rows),
        }
    }

    /// What a request is answered from: the outputs of each sequence's rows, end to end; rows themselves of length 1; of a
    /// vocabulary only its likeliest words.
    pub fn answers<'a>(
        &self,
        base: &Base,
        tape: &mut Tape,
        hidden: Rows,
        hooks: &dyn Hooks,
        sequences: impl IntoIterator<Item = &'a Tokens>,
    ) -> Result<Vec<Vec<f32>>> {
        let rows = self.rows(base, tape, hidden, hooks, sequences)?;
        let layout = tape.layout(rows);
        let (values, width) = match self.reads {
            Reads::Language => likeliest(base, tape, rows)?,
            _ => {
                let outputs = self.outputs(base, tape, rows)?;
                (tape.read(outputs)?.values, tape.width(outputs))
            }
        };
        let mut answers: Vec<Vec<f32>> =
            layout.ranges().map(|range| values[range.start * width..range.end * width].to_vec()).collect();
        if matches!(self.reads, Reads::Rows) {
            answers.iter_mut().for_each(|row| normalize(row));
        }
        Ok(answers)
    }
}

/// The likeliest words of each row, end to end, and the numbers of one.
fn likeliest(base: &Base, tape: &mut Tape, rows: Rows) -> Result<(Vec<f32>, usize)> {
    let (transformed, mut values) = (base.before_words(tape, rows)?, Vec::new());
    let vocabulary = base.info().vocabulary_size;
    language::each(base, tape, transformed, |logits, _| {
        let logits = base.kernels().download(logits)?.values;
        values.extend(logits.chunks_exact(vocabulary).flat_map(masked_language_model::likeliest));
        Ok(())
    })?;
    let width = values.len() / tape.layout(rows).rows().max(1);
    Ok((values, width))
}

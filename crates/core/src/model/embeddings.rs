//! Word embeddings with absolute positions, token types where there are any, and a norm of their sum: BERT's, and those of
//! its descendants.

use super::adapted::{self, Norm};
use super::{Batch, Hooks, Module, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::kernels::FrozenTable;
use espalier_tensor::{Buffer, Kernels, Rows, Tape};
use std::sync::Arc;

pub const NORM: Site = Site { layer: None, module: Module::EmbeddingNorm };

/// The words of a batch with the prompts of its adapters in front; a sequence that has begun has its own behind it.
pub fn prompted(tape: &mut Tape, word: &FrozenTable, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
    let words = tape.embed(&[(word, &batch.ids)], Arc::clone(&batch.layout))?;
    let mut prompts = hooks.prompt(tape, 0..batch.layout.sequences())?;
    if let Some(pasts) = tape.pasts() {
        prompts = prompts.into_iter().flat_map(|front| front.some(|sequence| pasts[sequence].is_fresh())).collect();
    }
    match prompts.is_empty() {
        true => Ok(words),
        false => Ok(tape.prepend(words, &prompts)?),
    }
}

pub struct Embeddings {
    pub word: FrozenTable,
    pub position: FrozenTable,
    /// The row of a sequence's first position: RoBERTa's and MPNet's tables begin with rows for padding.
    pub first: u32,
    pub types: Types,
    pub norm: Norm,
}

pub enum Types {
    None,
    /// Every token is of the first type, as where transformers' tokenizer says nothing of types.
    First(FrozenTable),
    Own(FrozenTable),
}

impl Types {
    fn table(&self) -> Option<&FrozenTable> {
        match self {
            Self::None => None,
            Self::First(table) | Self::Own(table) => Some(table),
        }
    }
}

impl Embeddings {
    /// What goes into the first layer `(tokens, hidden)`.
    pub fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        let word: (&FrozenTable, &[u32]) = (&self.word, &batch.ids);
        let shifted: Vec<u32>;
        let positions = match self.first {
            0 => batch.positions.as_slice(),
            first => {
                shifted = batch.positions.iter().map(|position| position + first).collect();
                &shifted
            }
        };
        let zeros: Vec<u32>;
        let mut others: Vec<(&FrozenTable, &[u32])> = vec![(&self.position, positions)];
        match &self.types {
            Types::None => {}
            Types::Own(table) => others.push((table, &batch.type_ids)),
            Types::First(table) => {
                zeros = vec![0; positions.len()];
                others.push((table, &zeros));
            }
        }
        let prompts = hooks.prompt(tape, 0..batch.layout.sequences())?;
        let embedded = match prompts.is_empty() {
            true => {
                others.insert(0, word);
                tape.embed(&others, Arc::clone(&batch.layout))?
            }
            false => {
                let words = tape.embed(&[word], Arc::clone(&batch.layout))?;
                let all = tape.prepend(words, &prompts)?;
                tape.embed_onto(&others, all)?
            }
        };
        adapted::norm(tape, hooks, NORM, &self.norm, embedded, None)
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer> {
        Ok(kernels.embed(&[(&self.word, ids)], None)?)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let tables = [Some(&self.word), Some(&self.position), self.types.table()].into_iter().flatten();
        tables.flat_map(FrozenTable::buffers).chain(self.norm.whole.buffers())
    }

    /// Of the norm.
    pub fn site(&self, path: String) -> SiteInfo {
        self.norm.site(NORM, &path)
    }
}

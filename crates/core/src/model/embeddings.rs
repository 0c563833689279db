//! Word embeddings with absolute positions, token types where there are any, and a norm of their sum: BERT's, and those of
//! its descendants.

use super::hooked_ops::{self, HookedNorm};
use super::{Batch, Hooks, Module, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::FrozenEmbedding;
use espalier_tensor::{Backend, Buffer, Tape, Var};
use std::sync::Arc;

pub const EMBEDDING_NORM_SITE: Site = Site { layer: None, module: Module::EmbeddingNorm };

/// The words of a batch with the prompts of its adapters in front; a sequence that has begun has its own behind it.
pub fn embed_with_prompts(
    tape: &mut Tape,
    word_embeddings: &FrozenEmbedding,
    batch: &Batch,
    hooks: &dyn Hooks,
) -> Result<Var> {
    let embedded = tape.embed(&[(word_embeddings, &batch.ids)], Arc::clone(&batch.layout))?;
    let mut prompts = hooks.soft_prompts(tape, 0..batch.layout.num_sequences())?;
    if let Some(pasts) = tape.kv_caches() {
        prompts =
            prompts.into_iter().flat_map(|front| front.restrict_to(|sequence| pasts[sequence].is_empty())).collect();
    }
    match prompts.is_empty() {
        true => Ok(embedded),
        false => Ok(tape.prepend_rows(embedded, &prompts)?),
    }
}

pub struct Embeddings {
    pub word_embeddings: FrozenEmbedding,
    pub position_embeddings: FrozenEmbedding,
    /// The row of a sequence's first position: RoBERTa's and MPNet's tables begin with rows for padding.
    pub position_offset: u32,
    pub token_types: TokenTypes,
    pub norm: HookedNorm,
}

pub enum TokenTypes {
    Absent,
    /// Every token is of the first type, as where transformers' tokenizer says nothing of types.
    AlwaysZero(FrozenEmbedding),
    PerToken(FrozenEmbedding),
}

impl TokenTypes {
    fn table(&self) -> Option<&FrozenEmbedding> {
        match self {
            Self::Absent => None,
            Self::AlwaysZero(table) | Self::PerToken(table) => Some(table),
        }
    }
}

impl Embeddings {
    /// What goes into the first layer `(tokens, hidden)`.
    pub fn forward(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        let word: (&FrozenEmbedding, &[u32]) = (&self.word_embeddings, &batch.ids);
        let offset_positions: Vec<u32>;
        let positions = match self.position_offset {
            0 => batch.positions.as_slice(),
            first => {
                offset_positions = batch.positions.iter().map(|position| position + first).collect();
                &offset_positions
            }
        };
        let zero_type_ids: Vec<u32>;
        let mut embeddings: Vec<(&FrozenEmbedding, &[u32])> = vec![(&self.position_embeddings, positions)];
        match &self.token_types {
            TokenTypes::Absent => {}
            TokenTypes::PerToken(table) => embeddings.push((table, &batch.type_ids)),
            TokenTypes::AlwaysZero(table) => {
                zero_type_ids = vec![0; positions.len()];
                embeddings.push((table, &zero_type_ids));
            }
        }
        let prompts = hooks.soft_prompts(tape, 0..batch.layout.num_sequences())?;
        let embedded = match prompts.is_empty() {
            true => {
                embeddings.insert(0, word);
                tape.embed(&embeddings, Arc::clone(&batch.layout))?
            }
            false => {
                let embedded_words = tape.embed(&[word], Arc::clone(&batch.layout))?;
                let prompted = tape.prepend_rows(embedded_words, &prompts)?;
                tape.add_embeddings(&embeddings, prompted)?
            }
        };
        hooked_ops::norm(tape, hooks, EMBEDDING_NORM_SITE, &self.norm, embedded, None)
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn embedding_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer> {
        Ok(backend.embed(&[(&self.word_embeddings, ids)], None)?)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let tables = [Some(&self.word_embeddings), Some(&self.position_embeddings), self.token_types.table()]
            .into_iter()
            .flatten();
        tables.flat_map(FrozenEmbedding::buffers).chain(self.norm.weighted.buffers())
    }

    /// Of the norm.
    pub fn norm_site_info(&self, path: String) -> SiteInfo {
        self.norm.site_info(EMBEDDING_NORM_SITE, &path)
    }
}

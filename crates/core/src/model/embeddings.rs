//! Input embeddings: words, positions and token types, and a norm of their sum.

use super::hooks::{HookedNorm, Hooks};
use super::loader::{BiasPresence, CheckpointLoader};
use super::site::{Site, SiteInfo};
use super::tokens::Batch;
use crate::error::Result;
use espalier_tensor::backend::{FrozenEmbedding, PrependedRows};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::{Backend, Buffer, RaggedLayout, Tape, Tensor, Var};
use std::ops::Range;
use std::sync::Arc;

/// Token embeddings, and the parts that only some architectures add to them before the first layer.
pub struct Embeddings {
    pub words: FrozenEmbedding,
    pub positions: Option<PositionEmbeddings>,
    pub token_types: TokenTypes,
    pub token_dropout: Option<TokenDropout>,
    pub norm: Option<EmbeddingNorm>,
}

/// Learned absolute positions.
pub struct PositionEmbeddings {
    pub table: FrozenEmbedding,
    /// Row of the first position. The tables of RoBERTa and MPNet begin with rows for padding.
    pub offset: u32,
}

/// Token type embeddings (`token_type_ids`) of an architecture.
pub enum TokenTypes {
    Absent,
    /// Every token has type 0, whatever the tokenizer returns.
    AlwaysZero(FrozenEmbedding),
    PerToken(FrozenEmbedding),
}

/// Scaling of word embeddings in ESM-2: masked tokens are zeroed, and the others are scaled by the ratio of unmasked tokens in
/// training to those in the sequence.
pub struct TokenDropout {
    pub mask_token_id: Option<u32>,
}

/// Norm after the sum of the embeddings.
pub struct EmbeddingNorm {
    norm: HookedNorm,
    /// Path in the model with a head.
    module_path: String,
}

impl EmbeddingNorm {
    /// Loads the norm `name` of the base model `base_model_prefix`.
    pub fn load(
        loader: &mut CheckpointLoader,
        base_model_prefix: &str,
        name: &str,
        width: usize,
        bias: BiasPresence,
    ) -> Result<Self> {
        Ok(Self { norm: loader.norm(name, width, bias)?, module_path: format!("{base_model_prefix}.{name}") })
    }
}

/// Share of tokens that are masked and zeroed in the training of ESM-2.
const TRAINING_MASK_RATIO: f32 = 0.15 * 0.8;

impl Embeddings {
    /// Word embeddings alone.
    pub fn words(words: FrozenEmbedding) -> Self {
        Self { words, positions: None, token_types: TokenTypes::Absent, token_dropout: None, norm: None }
    }

    /// Embeds a batch, with the soft prompts of its adapters: `(rows, hidden)`.
    pub fn forward(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        let prompts = soft_prompts(tape, batch, hooks)?;
        let is_changed = hooks.has_word_embedding_hook();
        let embedded = match prompts.is_empty() && self.token_dropout.is_none() && !is_changed {
            true => {
                let (positions, type_ids) = (self.position_ids(tape, batch, &batch.layout), self.type_ids(batch));
                let mut tables = vec![(&self.words, batch.ids.as_slice())];
                tables.extend(self.position_and_type_tables(&positions, &type_ids));
                tape.embed(&tables, Arc::clone(&batch.layout))?
            }
            false => {
                let words = tape.embed(&[(&self.words, &batch.ids)], Arc::clone(&batch.layout))?;
                let words = match is_changed {
                    true => hooks.on_word_embeddings(tape, &batch.ids, words, words)?,
                    false => words,
                };
                let words = self.apply_token_dropout(tape, batch, &prompts, words)?;
                let rows = if prompts.is_empty() { words } else { tape.prepend_rows(words, &prompts)? };
                let layout = tape.layout(rows);
                let (positions, type_ids) = (self.position_ids(tape, batch, &layout), self.type_ids(batch));
                let tables: Vec<_> = self.position_and_type_tables(&positions, &type_ids).collect();
                if tables.is_empty() { rows } else { tape.add_embeddings(&tables, rows)? }
            }
        };
        match &self.norm {
            Some(EmbeddingNorm { norm, .. }) => norm.forward(tape, hooks, Site::EMBEDDING_NORM, embedded, None),
            None => Ok(embedded),
        }
    }

    fn position_and_type_tables<'a>(
        &'a self,
        positions: &'a [u32],
        type_ids: &'a [u32],
    ) -> impl Iterator<Item = (&'a FrozenEmbedding, &'a [u32])> {
        let positions = self.positions.iter().map(move |embeddings| (&embeddings.table, positions));
        positions.chain(self.token_types.table().map(|table| (table, type_ids)))
    }

    /// Rows of the position table, for all rows of `layout`. A sequence with a KV cache continues at the end of the cache.
    fn position_ids(&self, tape: &Tape, batch: &Batch, layout: &RaggedLayout) -> Vec<u32> {
        let Some(PositionEmbeddings { offset, .. }) = &self.positions else { return Vec::new() };
        let Some(caches) = tape.kv_caches() else {
            return batch.positions.iter().map(|position| position + offset).collect();
        };
        let positions = |(rows, cache): (Range<usize>, &SequenceKvCache)| {
            let start = if cache.is_empty() { batch.positions[rows.start] } else { cache.next_position() as u32 };
            start + offset..start + offset + rows.len() as u32
        };
        layout.row_ranges().zip(caches).flat_map(positions).collect()
    }

    /// Token types of all rows, including soft prompts.
    fn type_ids(&self, batch: &Batch) -> Vec<u32> {
        match &self.token_types {
            TokenTypes::Absent => Vec::new(),
            TokenTypes::AlwaysZero(_) => vec![0; batch.type_ids.len()],
            TokenTypes::PerToken(_) => batch.type_ids.clone(),
        }
    }

    fn apply_token_dropout(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        prompts: &[PrependedRows<Var>],
        words: Var,
    ) -> Result<Var> {
        let Some(token_dropout) = &self.token_dropout else { return Ok(words) };
        let scales = token_dropout.scales(batch, prompts);
        let width = self.words.width;
        let values = scales.iter().flat_map(|scale| std::iter::repeat_n(*scale, width)).collect();
        let scales = tape.constant_from_host(&Tensor::new([scales.len(), width], values), Arc::clone(&batch.layout))?;
        Ok(tape.mul_constant(words, scales)?)
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn word_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer> {
        Ok(backend.embed(&[(&self.words, ids)], None)?)
    }

    pub fn norm(&self) -> Option<&HookedNorm> {
        self.norm.as_ref().map(|embedding_norm| &embedding_norm.norm)
    }

    /// Site of the norm.
    pub fn site(&self) -> Option<SiteInfo> {
        let site = |EmbeddingNorm { norm, module_path }: &EmbeddingNorm| {
            norm.site_info(Site::EMBEDDING_NORM, module_path.clone())
        };
        self.norm.as_ref().map(site)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let positions = self.positions.iter().map(|embeddings| &embeddings.table);
        let tables = std::iter::once(&self.words).chain(positions).chain(self.token_types.table());
        tables
            .flat_map(FrozenEmbedding::buffers)
            .chain(self.norm().into_iter().flat_map(|norm| norm.weighted.buffers()))
    }
}

impl TokenTypes {
    fn table(&self) -> Option<&FrozenEmbedding> {
        match self {
            Self::Absent => None,
            Self::AlwaysZero(table) | Self::PerToken(table) => Some(table),
        }
    }
}

impl TokenDropout {
    /// Factor of the word embedding of each real token. Sequences with a soft prompt are not scaled: transformers gets their
    /// input as embeddings, so it does not know which tokens are masked.
    fn scales(&self, batch: &Batch, prompts: &[PrependedRows<Var>]) -> Vec<f32> {
        let is_masked = |id: &u32| Some(*id) == self.mask_token_id;
        let sequence_scales = |(sequence, rows): (usize, Range<usize>)| {
            let ids = &batch.ids[rows];
            let mask_ratio = ids.iter().filter(|id| is_masked(id)).count() as f32 / ids.len() as f32;
            let scale = (1.0 - TRAINING_MASK_RATIO) / (1.0 - mask_ratio);
            let has_prompt = prompts.iter().any(|prompt| prompt.sequences.contains(&sequence));
            ids.iter().map(move |id| match (has_prompt, is_masked(id)) {
                (true, _) => 1.0,
                (false, true) => 0.0,
                (false, false) => scale,
            })
        };
        batch.layout.row_ranges().enumerate().flat_map(sequence_scales).collect()
    }
}

/// Soft prompts of the sequences that have no KV cache entries yet.
fn soft_prompts(tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Vec<PrependedRows<Var>>> {
    let prompts = hooks.soft_prompts(tape, 0..batch.layout.num_sequences())?;
    Ok(match tape.kv_caches() {
        Some(caches) => {
            prompts.into_iter().flat_map(|prompt| prompt.restrict_to(|sequence| caches[sequence].is_empty())).collect()
        }
        None => prompts,
    })
}

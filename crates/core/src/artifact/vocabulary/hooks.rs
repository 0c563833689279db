//! The change of the word embeddings as hooks around those of the adapter's method.

use crate::error::Result;
use crate::model::hooks::{PrefixKeyValues, Sublayer, SublayerContext};
use crate::model::{FirstTrainableLayer, Hooks, Site, VirtualTokens};
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use std::ops::Range;

/// Change of the word embeddings, in the memory of the host: a batch reads few of its rows.
pub struct EmbeddingChange {
    /// `(vocabulary, hidden)`, in place of the base's.
    pub table: Option<Tensor>,
    /// A `(rank, vocabulary)`, B `(hidden, rank)` and the scaling of a low-rank update.
    pub low_rank: Option<(Tensor, Tensor, f64)>,
    pub token_ids: Vec<u32>,
    /// Rows of the tokens, `(tokens, hidden)`.
    pub token_rows: Tensor,
    pub hidden: usize,
}

impl EmbeddingChange {
    pub fn token_rows(&self) -> Option<(&[u32], &Tensor)> {
        (!self.token_ids.is_empty()).then_some((&self.token_ids, &self.token_rows))
    }

    /// Changes the embedding of a token to the adapter's.
    fn apply(&self, id: u32, row: &mut [f32]) {
        let row_of =
            |table: &Tensor, index: usize| table.values[index * self.hidden..(index + 1) * self.hidden].to_vec();
        if let Some(table) = &self.table {
            row.copy_from_slice(&row_of(table, id as usize));
        }
        if let Some((a, b, scaling)) = &self.low_rank {
            let (rank, vocabulary) = (a.shape[0], a.shape[1]);
            for (value, b_row) in row.iter_mut().zip(b.values.chunks_exact(rank)) {
                let products =
                    b_row.iter().enumerate().map(|(index, b)| b * a.values[index * vocabulary + id as usize]);
                *value += (products.map(f64::from).sum::<f64>() * scaling) as f32;
            }
        }
        if let Some(index) = self.token_ids.iter().position(|token| *token == id) {
            row.copy_from_slice(&row_of(&self.token_rows, index));
        }
    }

    /// What is added to the embeddings `base_rows` of tokens.
    fn difference(&self, ids: &[u32], base_rows: &Tensor) -> Tensor {
        let mut rows = base_rows.values.clone();
        for ((id, row), base_row) in
            ids.iter().zip(rows.chunks_exact_mut(self.hidden)).zip(base_rows.values.chunks_exact(self.hidden))
        {
            self.apply(*id, row);
            row.iter_mut().zip(base_row).for_each(|(value, base)| *value -= base);
        }
        Tensor::new(base_rows.shape.clone(), rows)
    }
}

/// Hooks of a method, and the change of the word embeddings.
pub struct WithEmbeddingChange {
    pub hooks: Box<dyn Hooks>,
    pub change: EmbeddingChange,
}

impl Hooks for WithEmbeddingChange {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Embeddings
    }

    fn has_word_embedding_hook(&self) -> bool {
        true
    }

    fn on_word_embeddings(&self, tape: &mut Tape, ids: &[u32], base_rows: Var, output: Var) -> Result<Var> {
        let difference = self.change.difference(ids, &tape.to_host(base_rows)?);
        let layout = tape.layout(output);
        let difference = tape.constant_from_host(&difference, layout)?;
        Ok(tape.add_rows_scaled(output, difference, 1.0)?)
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.hooks.has_output_hook(site)
    }

    fn has_input_hook(&self, site: Site) -> bool {
        self.hooks.has_input_hook(site)
    }

    fn has_sublayer_hook(&self, layer: usize, sublayer: Sublayer) -> bool {
        self.hooks.has_sublayer_hook(layer, sublayer)
    }

    fn on_linear_input(&self, tape: &mut Tape, site: Site, input: Var) -> Result<Var> {
        self.hooks.on_linear_input(tape, site, input)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, input: Var, output: Var) -> Result<Var> {
        self.hooks.on_linear_output(tape, site, input, output)
    }

    fn on_norm_output(&self, tape: &mut Tape, site: Site, normalised: Var, output: Var) -> Result<Var> {
        self.hooks.on_norm_output(tape, site, normalised, output)
    }

    fn on_sublayer_output(&self, tape: &mut Tape, context: &SublayerContext, output: Var) -> Result<Var> {
        self.hooks.on_sublayer_output(tape, context, output)
    }

    fn soft_prompts(&self, tape: &mut Tape, sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        self.hooks.soft_prompts(tape, sequences)
    }

    fn prefix_key_values(
        &self,
        tape: &mut Tape,
        layer: usize,
        sequences: Range<usize>,
    ) -> Result<Vec<PrefixKeyValues>> {
        self.hooks.prefix_key_values(tape, layer, sequences)
    }

    fn lora_pairs(&self) -> Vec<[ParamId; 2]> {
        self.hooks.lora_pairs()
    }

    fn virtual_tokens(&self) -> VirtualTokens {
        self.hooks.virtual_tokens()
    }
}

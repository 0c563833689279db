//! The vocabulary's changes on the device.

use super::hooks::{EmbeddingChange, WithEmbeddingChange};
use super::{EMBEDDINGS, LM_HEAD, LORA_A, LORA_B, ModuleChange, TOKEN_ROWS, Vocabulary, WEIGHT, tensor_name};
use crate::adapter::tensor_spec::{ValidationErrors, shape_mismatch};
use crate::adapter::{ParameterBuilder, TensorMap};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Hooks};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use std::sync::Arc;

/// The changes of one adapter, ready for inference.
pub struct LoadedVocabulary {
    embeddings: Option<EmbeddingChange>,
    pub lm_head: Option<LmHeadChange>,
    pub bytes: u64,
}

impl LoadedVocabulary {
    /// Takes the tensors of `weights`, which are the vocabulary's; `builder` gets those that are parameters.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) naming every missing and misshapen tensor.
    pub fn load(
        vocabulary: &Vocabulary,
        weights: &mut TensorMap,
        base: &BaseModel,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        let bytes = weights.values().map(|tensor| tensor.bytes() as u64).sum();
        let mut tensors = Tensors { weights, errors: ValidationErrors::default() };
        let embeddings = load_embeddings(&vocabulary.embeddings, &mut tensors, base);
        let token_rows = embeddings.as_ref().filter(|_| base.ties_lm_head()).and_then(EmbeddingChange::token_rows);
        let lm_head = load_lm_head(&vocabulary.lm_head, token_rows, &mut tensors, base, builder)?;
        let Tensors { weights, mut errors } = tensors;
        weights.keys().for_each(|name| errors.push(format!("{name} is not a tensor of this adapter")));
        errors.into_result("adapter_tensors", "the adapter's tensors do not fit")?;
        Ok(Self { embeddings, lm_head, bytes })
    }

    /// The hooks of the method, with the change of the word embeddings.
    pub fn wrap_hooks(&mut self, hooks: Box<dyn Hooks>) -> Box<dyn Hooks> {
        match self.embeddings.take() {
            Some(change) => Box::new(WithEmbeddingChange { hooks, change }),
            None => hooks,
        }
    }
}

struct Tensors<'a> {
    weights: &'a mut TensorMap,
    errors: ValidationErrors,
}

impl Tensors<'_> {
    /// Takes a tensor. If it is missing or misshapen, records the error and returns zeros.
    fn take(&mut self, module: &str, tensor: &str, shape: [usize; 2]) -> Tensor {
        let name = tensor_name(module, tensor);
        match self.weights.remove(&name) {
            Some(tensor) if tensor.shape == shape => return tensor,
            Some(tensor) => self.errors.push(shape_mismatch(&name, &tensor.shape, &shape)),
            None => self.errors.push(format!("{name} {shape:?} is missing")),
        }
        Tensor::zeros(shape)
    }
}

fn load_embeddings(change: &ModuleChange, tensors: &mut Tensors, base: &BaseModel) -> Option<EmbeddingChange> {
    if change.is_none() {
        return None;
    }
    let (vocabulary, hidden) = (base.info().vocabulary_size, base.info().hidden_size);
    let table = change.replaced.then(|| tensors.take(EMBEDDINGS, WEIGHT, [vocabulary, hidden]));
    let low_rank = change.low_rank.map(|low_rank| {
        let a = tensors.take(EMBEDDINGS, LORA_A, [low_rank.rank, vocabulary]);
        (a, tensors.take(EMBEDDINGS, LORA_B, [hidden, low_rank.rank]), low_rank.scaling())
    });
    let token_rows = match change.token_ids.is_empty() {
        true => Tensor::zeros([0, hidden]),
        false => tensors.take(EMBEDDINGS, TOKEN_ROWS, [change.token_ids.len(), hidden]),
    };
    Some(EmbeddingChange { table, low_rank, token_ids: change.token_ids.clone(), token_rows, hidden })
}

/// An adapter's own head of a causal language model.
pub struct LmHeadChange {
    /// In place of the base's output projection.
    weight: Option<Arc<FrozenLinear>>,
    low_rank: Option<([ParamId; 2], f64)>,
    /// Tokens with rows of their own.
    tokens: Option<(Vec<u32>, Arc<FrozenLinear>)>,
}

fn load_lm_head(
    change: &ModuleChange,
    tied_rows: Option<(&[u32], &Tensor)>,
    tensors: &mut Tensors,
    base: &BaseModel,
    builder: &mut ParameterBuilder,
) -> Result<Option<LmHeadChange>> {
    let (vocabulary, hidden) = (base.info().vocabulary_size, base.info().hidden_size);
    let own_rows = match change.token_ids.as_slice() {
        [] => tied_rows.map(|(ids, rows)| (ids.to_vec(), rows.clone())),
        ids => Some((ids.to_vec(), tensors.take(LM_HEAD, TOKEN_ROWS, [ids.len(), hidden]))),
    };
    let has_head = base.info().is_causal_lm;
    if change.is_none() && own_rows.is_none() || !has_head {
        return Ok(None);
    }
    let weight = change.replaced.then(|| tensors.take(LM_HEAD, WEIGHT, [vocabulary, hidden]));
    let mut add_parameter = |tensor: &str, shape: [usize; 2]| {
        let value = tensors.take(LM_HEAD, tensor, shape);
        builder.add_given(tensor_name(LM_HEAD, tensor), value)
    };
    let low_rank = change.low_rank.map(|low_rank| {
        let a = add_parameter(LORA_A, [low_rank.rank, hidden]);
        ([a, add_parameter(LORA_B, [vocabulary, low_rank.rank])], low_rank.scaling())
    });
    let tokens = own_rows.map(|(ids, rows)| Ok::<_, Error>((ids, base.share_linear(rows)?))).transpose()?;
    Ok(Some(LmHeadChange { weight: weight.map(|weight| base.share_linear(weight)).transpose()?, low_rank, tokens }))
}

impl LmHeadChange {
    /// Logits of the language model's head, flattened: `(rows, hidden)` → `(rows, vocabulary)`. The adapter's parameters are on the tape.
    pub fn logits(&self, base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<Vec<f32>> {
        let rows = base.lm_head_transform(tape, rows)?;
        let linear = match &self.weight {
            Some(weight) => weight,
            None => base.lm_head_linear()?,
        };
        let mut logits = tape.linear(rows, linear)?;
        if let Some(([a, b], scaling)) = self.low_rank {
            logits = tape.lora_add(logits, rows, a, b, scaling)?;
        }
        let mut values = tape.to_host(logits)?.values;
        if let Some((ids, linear)) = &self.tokens {
            let own = tape.linear(rows, linear)?;
            let own = tape.to_host(own)?.values;
            let vocabulary = base.info().vocabulary_size;
            for (row, own_row) in values.chunks_exact_mut(vocabulary).zip(own.chunks_exact(ids.len())) {
                ids.iter().zip(own_row).for_each(|(id, value)| row[*id as usize] = *value);
            }
        }
        Ok(values)
    }
}

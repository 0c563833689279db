//! The PEFT files of methods with virtual tokens: prompt tuning, P-tuning and prefix tuning.

use super::mapping::{ConfigFields, ExportContext, PeftFields, fields_that_differ, is_default, positive_integer};
use super::naming::ModuleNaming;
use crate::adapter::soft_prompt::PROMPT_TENSOR_NAME;
use crate::adapter::target_modules::hidden_size;
use crate::adapter::tensor_spec::TensorSpec;
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};
use std::fmt::Debug;
use std::marker::PhantomData;

/// PEFT's key of the virtual tokens, of every kind.
pub const EMBEDDINGS_KEY: &str = "prompt_embeddings";

const NUM_VIRTUAL_TOKENS: &str = "num_virtual_tokens";
const NUM_SUBMODULES: &str = "num_transformer_submodules";

/// The tensor of a soft prompt.
pub fn prompt_spec(num_virtual_tokens: usize, sites: &[SiteInfo]) -> TensorSpec {
    let shape = vec![num_virtual_tokens, hidden_size(sites)];
    TensorSpec::with_key(EMBEDDINGS_KEY.to_string(), PROMPT_TENSOR_NAME.to_string(), shape)
}

/// The fields that all three methods write.
pub fn common_fields(num_virtual_tokens: usize, context: &ExportContext) -> ConfigFields {
    ConfigFields::from([
        ("num_attention_heads", json!(context.info.attention_heads)),
        ("num_layers", json!(context.info.layers)),
        (NUM_SUBMODULES, json!(1)),
        (NUM_VIRTUAL_TOKENS, json!(num_virtual_tokens)),
        ("token_dim", json!(context.info.hidden_size)),
    ])
}

/// A method whose number of virtual tokens is all that its PEFT file determines.
pub trait PromptLearning: Debug {
    const PEFT_TYPE: &'static str;
    /// As [`PeftFields::ACCEPTED_FIELDS`].
    const ACCEPTED_FIELDS: &'static [&'static str];
    /// As [`PeftFields::accepts_kv_size`].
    const ACCEPTS_KV_SIZE: bool;

    /// The configuration with this number of virtual tokens, and defaults.
    fn with_virtual_tokens(num_virtual_tokens: usize) -> Self;

    fn virtual_tokens(&self) -> usize;
}

/// The fields of a [`PromptLearning`] method.
#[derive(Debug, Clone)]
pub struct PromptLearningFields<C> {
    num_virtual_tokens: usize,
    config: PhantomData<C>,
}

impl<C: PromptLearning> PeftFields for PromptLearningFields<C> {
    type Config = C;
    const PEFT_TYPE: &'static str = C::PEFT_TYPE;
    const ACCEPTED_FIELDS: &'static [&'static str] = C::ACCEPTED_FIELDS;

    fn value_error(field: &str, value: &Value) -> Option<String> {
        let is_unsupported = field == NUM_SUBMODULES && !is_default(value) && *value != 1;
        is_unsupported.then(|| format!("{NUM_SUBMODULES} is {value}, expected 1: this base is an encoder"))
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self { num_virtual_tokens: positive_integer(fields, NUM_VIRTUAL_TOKENS)?, config: PhantomData })
    }

    fn to_config(&self, _: &[SiteInfo], _: ModuleNaming) -> Result<C> {
        Ok(C::with_virtual_tokens(self.num_virtual_tokens))
    }

    fn differing_fields(&self, config: &C, _: &[SiteInfo], _: ModuleNaming) -> Result<Vec<&'static str>> {
        Ok(fields_that_differ([(NUM_VIRTUAL_TOKENS, self.num_virtual_tokens == config.virtual_tokens())]))
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        Some(self.num_virtual_tokens)
    }

    fn accepts_kv_size(&self) -> bool {
        C::ACCEPTS_KV_SIZE
    }
}

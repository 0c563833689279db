//! What the PEFT files of prompt tuning, P-tuning and prefix tuning have in common.

use super::fields::{is_default, positive_integer};
use super::mapping::{ConfigFields, ExportContext};
use crate::adapter::sites::hidden_size;
use crate::adapter::soft_prompt::PROMPT_TENSOR_NAME;
use crate::adapter::tensor_spec::TensorSpec;
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};

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

/// Parses the number of virtual tokens.
pub fn num_virtual_tokens(fields: &Map<String, Value>) -> Result<usize> {
    positive_integer(fields, NUM_VIRTUAL_TOKENS)
}

/// The error message for a value that is not implemented.
pub fn value_error(field: &str, value: &Value) -> Option<String> {
    let is_unsupported = field == NUM_SUBMODULES && !is_default(value) && *value != 1;
    is_unsupported.then(|| format!("{NUM_SUBMODULES} is {value}, expected 1: this base is an encoder"))
}

/// The fields that contradict the number of virtual tokens in `espalier.json`.
pub fn differing_fields(found: usize, expected: usize) -> Vec<&'static str> {
    if found == expected { Vec::new() } else { vec![NUM_VIRTUAL_TOKENS] }
}

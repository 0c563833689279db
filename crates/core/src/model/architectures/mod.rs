//! The table of supported architectures. Adding one takes a file in this folder and a line in the table.

mod bert;
mod distilbert;
mod esm;
mod gpt2;
mod llama;
mod modernbert;
mod mpnet;
mod post_norm;
mod pre_norm;
mod roberta;

use super::architecture::ArchitectureEntry;
use super::config_checks;
use crate::error::Result;
use serde_json::Value;

const ARCHITECTURES: [ArchitectureEntry; 13] = [
    bert::ENTRY,
    roberta::ROBERTA,
    roberta::XLM_ROBERTA,
    roberta::CAMEMBERT,
    distilbert::ENTRY,
    esm::ENTRY,
    modernbert::ENTRY,
    mpnet::ENTRY,
    llama::LLAMA,
    llama::MISTRAL,
    llama::QWEN2,
    llama::QWEN3,
    gpt2::ENTRY,
];

/// Supported values of `model_type`.
pub const SUPPORTED_MODEL_TYPES: [&str; ARCHITECTURES.len()] = {
    let mut names = [""; ARCHITECTURES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = ARCHITECTURES[index].model_type;
        index += 1;
    }
    names
};

/// The entry of a `model_type`.
pub fn find_entry(model_type: &str) -> Option<&'static ArchitectureEntry> {
    const TABLE: &[ArchitectureEntry] = &ARCHITECTURES;
    TABLE.iter().find(|entry| entry.model_type == model_type)
}

/// The entry of a `config.json`.
///
/// # Errors
/// `Invalid` (`unsupported_model`) if the `model_type` is not supported, with those that are, or if an encoder is configured
/// as a decoder.
pub fn entry_for_config(config: &Value) -> Result<&'static ArchitectureEntry> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let Some(entry) = find_entry(model_type) else {
        let supported = SUPPORTED_MODEL_TYPES.join(", ");
        let detail = format!("model_type \"{model_type}\" is not supported; supported are: {supported}");
        return config_checks::unsupported_model(detail);
    };
    if config["is_decoder"].as_bool() == Some(true) {
        let detail = format!("is_decoder is not supported for {model_type}: only encoders are");
        return config_checks::unsupported_model(detail);
    }
    Ok(entry)
}

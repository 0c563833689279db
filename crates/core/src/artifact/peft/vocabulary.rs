//! PEFT's keys and settings of the vocabulary's changes.
//!
//! PEFT saves the whole module for `modules_to_save`, and beside LoRA of an embedding also its base weight. Trainable tokens are rows
//! by `trainable_token_indices`; a head that is tied to the embeddings shares them.

use super::config::{Config, EmbeddingRole, is_head_module};
use crate::adapter::TensorMap;
use crate::adapter::lora::LowRank;
use crate::adapter::peft::{ConfigFields, KEY_PREFIX, ModuleNaming};
use crate::adapter::target_modules::has_module_suffix;
use crate::adapter::tensor_spec::{CONFIG_FILE, TensorSpec, ValidationErrors, unsupported_file};
use crate::artifact::base::BaseSummary;
use crate::artifact::safetensors::{build_tensor, take_tensor};
use crate::artifact::vocabulary::{
    EMBEDDINGS, LM_HEAD, LORA_A, LORA_B, ModuleChange, TOKEN_ROWS, Vocabulary, WEIGHT, tensor_name,
};
use crate::error::Result;
use crate::task;
use serde_json::{Map, Value, json};

/// A module with a row per token, in one file.
struct VocabularyModule<'a> {
    name: &'static str,
    path: &'a str,
    lora_suffixes: [&'static str; 2],
}

/// Path of the language model's head in transformers' decoders.
const LM_HEAD_PATH: &str = "lm_head";

fn modules(naming: ModuleNaming, summary: &BaseSummary) -> Vec<VocabularyModule<'_>> {
    let embeddings = summary.info.word_embeddings_path().map(|path| VocabularyModule {
        name: EMBEDDINGS,
        path: naming.strip_prefix(path),
        lora_suffixes: ["lora_embedding_A", "lora_embedding_B"],
    });
    let head =
        VocabularyModule { name: LM_HEAD, path: LM_HEAD_PATH, lora_suffixes: ["lora_A.weight", "lora_B.weight"] };
    embeddings.into_iter().chain(summary.info.is_causal_lm.then_some(head)).collect()
}

impl VocabularyModule<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{KEY_PREFIX}{}.{suffix}", self.path)
    }

    fn role(&self) -> EmbeddingRole {
        if self.name == LM_HEAD { EmbeddingRole::Output } else { EmbeddingRole::Input }
    }

    fn has_name(&self, name: &str) -> bool {
        has_module_suffix(self.path, name)
    }

    fn weight_key(&self, change: &ModuleChange) -> String {
        match (change.low_rank, change.token_ids.is_empty()) {
            (Some(_), _) => self.key("base_layer.weight"),
            (None, false) => self.key("token_adapter.base_layer.weight"),
            (None, true) => self.key("weight"),
        }
    }

    fn tensor_specs(&self, change: &ModuleChange, vocabulary: usize, hidden: usize) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        let mut add = |key: String, tensor: &str, shape: [usize; 2]| {
            specs.push(TensorSpec::with_key(key, tensor_name(self.name, tensor), shape.to_vec()));
        };
        if change.replaced {
            add(self.weight_key(change), WEIGHT, [vocabulary, hidden]);
        }
        if let Some(LowRank { rank, .. }) = change.low_rank {
            let [a, b] = self.lora_suffixes.map(|suffix| self.key(suffix));
            let (inputs, outputs) = if self.name == LM_HEAD { (hidden, vocabulary) } else { (vocabulary, hidden) };
            add(a, LORA_A, [rank, inputs]);
            add(b, LORA_B, [outputs, rank]);
        }
        if !change.token_ids.is_empty() {
            add(self.key("token_adapter.trainable_tokens_delta"), TOKEN_ROWS, [change.token_ids.len(), hidden]);
        }
        specs
    }
}

fn change_of<'a>(vocabulary: &'a Vocabulary, module: &VocabularyModule) -> &'a ModuleChange {
    match module.role() {
        EmbeddingRole::Input => &vocabulary.embeddings,
        EmbeddingRole::Output => &vocabulary.lm_head,
    }
}

/// Infers the changes from the settings and the tensors, whose keys are brought to one form.
///
/// # Errors
/// `Invalid` (`unsupported_adapter`) for a module that this base or the task does not have, and for DoRA of these modules.
pub fn infer(
    tensors: &mut TensorMap,
    config: &Config,
    naming: ModuleNaming,
    task: &task::Config,
    summary: &BaseSummary,
) -> Result<Vocabulary> {
    check_names(config, naming, task, summary)?;
    let mut vocabulary = Vocabulary::default();
    for module in modules(naming, summary) {
        let low_rank = match &config.method {
            Some(method) => method.low_rank_at(module.path)?,
            None => None,
        };
        let token_ids = config.trainable_tokens.ids_of(|name| module.has_name(name), module.role());
        check_token_ids(&token_ids, summary)?;
        let mut change = ModuleChange { replaced: false, low_rank, token_ids };
        let weight_keys =
            ["weight", "base_layer.weight", "token_adapter.base_layer.weight"].map(|suffix| module.key(suffix));
        let found = weight_keys.iter().find_map(|key| tensors.remove(key));
        let is_saved = config.modules_to_save.iter().any(|name| module.has_name(name));
        change.replaced = found.is_some() || is_saved;
        if let Some(weight) = found {
            check_row_count(&module, weight.shape.first().copied().unwrap_or(0), summary)?;
            tensors.insert(module.weight_key(&change), weight);
        }
        match module.role() {
            EmbeddingRole::Input => vocabulary.embeddings = change,
            EmbeddingRole::Output => vocabulary.lm_head = change,
        }
    }
    Ok(vocabulary)
}

/// # Errors
/// `Invalid` (`unsupported_adapter`) for a name in `modules_to_save` that means no module, and for the head of a language model
/// beside another task.
fn check_names(config: &Config, naming: ModuleNaming, task: &task::Config, summary: &BaseSummary) -> Result<()> {
    let known = modules(naming, summary);
    let has_low_rank_head = match &config.method {
        Some(method) => method.low_rank_at(LM_HEAD_PATH)?.is_some(),
        None => false,
    };
    let names_head =
        config.modules_to_save.iter().any(|name| has_module_suffix(LM_HEAD_PATH, name)) || has_low_rank_head;
    if names_head && !(summary.info.is_causal_lm && task.is_generative()) {
        let (task, advice) = (task.type_name(), "leave lm_head out of modules_to_save and target_modules");
        let reason = format!("lm_head is trained, and the task {task} on this base does not use it: {advice}");
        return Err(unsupported_file(CONFIG_FILE, reason));
    }
    let is_unknown = |name: &&String| !is_head_module(name) && !known.iter().any(|module| module.has_name(name));
    let saved = config.modules_to_save.iter().find(is_unknown).map(|name| ("modules_to_save", name));
    let tokens = || config.trainable_tokens.names().find(is_unknown).map(|name| ("trainable_token_indices", name));
    match saved.or_else(tokens) {
        None => Ok(()),
        Some((field, name)) => {
            let paths: Vec<&str> = known.iter().map(|module| module.path).collect();
            let reason = format!(
                "{field} holds {name:?}, which is not applied: expected the classifier, or {}",
                paths.join(" or ")
            );
            Err(unsupported_file(CONFIG_FILE, reason))
        }
    }
}

fn check_token_ids(ids: &[u32], summary: &BaseSummary) -> Result<()> {
    let tokens = summary.info.vocabulary_size;
    match ids.iter().find(|id| **id as usize >= tokens) {
        None => Ok(()),
        Some(id) => {
            let reason = format!("trainable_token_indices holds {id}, this base has {tokens} tokens");
            Err(unsupported_file(CONFIG_FILE, reason))
        }
    }
}

fn check_row_count(module: &VocabularyModule, rows: usize, summary: &BaseSummary) -> Result<()> {
    let expected = summary.info.vocabulary_size;
    match rows == expected {
        true => Ok(()),
        false => {
            let path = module.path;
            let reason = format!(
                "{path} has rows for {rows} tokens, this base for {expected}: tokens were added in the training; save the \
                 base with its new vocabulary and serve that"
            );
            Err(unsupported_file(CONFIG_FILE, reason))
        }
    }
}

/// Moves the vocabulary's tensors out of a file's, under native names.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing and misshapen tensor.
pub fn take_tensors(
    tensors: &mut TensorMap,
    vocabulary: &Vocabulary,
    naming: ModuleNaming,
    summary: &BaseSummary,
) -> Result<TensorMap> {
    let (mut errors, mut native_tensors) = (ValidationErrors::default(), TensorMap::new());
    for spec in tensor_specs(vocabulary, naming, summary) {
        take_tensor(&spec, tensors, &mut native_tensors, &mut errors);
    }
    errors.into_result("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(native_tensors)
}

/// The vocabulary's tensors under PEFT's keys.
pub fn file_tensors(
    weights: &TensorMap,
    vocabulary: &Vocabulary,
    naming: ModuleNaming,
    summary: &BaseSummary,
) -> TensorMap {
    let specs = tensor_specs(vocabulary, naming, summary).into_iter();
    specs.filter_map(|spec| Some((spec.key.clone(), build_tensor(&spec, |name| weights.get(name))?))).collect()
}

fn tensor_specs(vocabulary: &Vocabulary, naming: ModuleNaming, summary: &BaseSummary) -> Vec<TensorSpec> {
    let (rows, hidden) = (summary.info.vocabulary_size, summary.info.hidden_size);
    let modules = modules(naming, summary).into_iter();
    modules.flat_map(|module| module.tensor_specs(change_of(vocabulary, &module), rows, hidden)).collect()
}

/// Adds the vocabulary's changes to the fields of an `adapter_config.json`.
pub fn add_config_fields(
    fields: &mut ConfigFields,
    vocabulary: &Vocabulary,
    naming: ModuleNaming,
    summary: &BaseSummary,
) {
    let mut token_ids = Map::new();
    for module in modules(naming, summary) {
        let change = change_of(vocabulary, &module);
        if change.replaced && change.low_rank.is_none() {
            append(fields, "modules_to_save", module.path);
        }
        if let Some(LowRank { rank, alpha, .. }) = change.low_rank {
            append(fields, "target_modules", module.path);
            insert(fields, "rank_pattern", module.path, json!(rank));
            insert(fields, "alpha_pattern", module.path, json!(alpha));
        }
        if !change.token_ids.is_empty() {
            token_ids.insert(module.path.to_string(), json!(change.token_ids));
        }
    }
    if !token_ids.is_empty() {
        fields.insert("trainable_token_indices", Value::Object(token_ids));
    }
}

fn append(fields: &mut ConfigFields, field: &'static str, name: &str) {
    let value = fields.entry(field).or_insert(Value::Null);
    match value {
        Value::Array(names) => names.push(json!(name)),
        other => *other = json!([name]),
    }
}

fn insert(fields: &mut ConfigFields, field: &'static str, name: &str, value: Value) {
    if let Value::Object(entries) = fields.entry(field).or_insert_with(|| json!({})) {
        entries.insert(name.to_string(), value);
    }
}

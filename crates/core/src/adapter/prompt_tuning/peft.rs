//! PEFT's format of prompt tuning.

use super::Config;
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping, prompt_learning};
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(Fields::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let mut fields = prompt_learning::common_fields(self.num_virtual_tokens, context);
        fields.extend([("prompt_tuning_init", json!("RANDOM")), ("tokenizer_name_or_path", Value::Null)]);
        fields
    }
}

/// The fields of `PROMPT_TUNING`.
#[derive(Debug, Clone)]
pub struct Fields {
    num_virtual_tokens: usize,
}

impl PeftFields for Fields {
    type Config = Config;
    const PEFT_TYPE: &'static str = "PROMPT_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[
        "num_virtual_tokens",
        "token_dim",
        "num_layers",
        "num_attention_heads",
        "num_transformer_submodules",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "tokenizer_name_or_path",
        "tokenizer_kwargs",
    ];

    fn value_error(field: &str, value: &Value) -> Option<String> {
        prompt_learning::value_error(field, value)
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self { num_virtual_tokens: prompt_learning::num_virtual_tokens(fields)? })
    }

    fn to_config(&self, _: &[SiteInfo], _: ModuleNaming) -> Result<Config> {
        Ok(Config { num_virtual_tokens: self.num_virtual_tokens, ..Config::default() })
    }

    fn differing_fields(&self, config: &Config) -> Vec<&'static str> {
        prompt_learning::differing_fields(self.num_virtual_tokens, config.num_virtual_tokens)
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        Some(self.num_virtual_tokens)
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}

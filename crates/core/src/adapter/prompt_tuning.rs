//! Prompt tuning: virtual tokens in front of every sequence, whose word embeddings are learned (Lester et al. 2021).

use super::BuildContext;
use super::targets::MethodValidator;
use super::virtual_tokens::{self, SoftPrompt};
use crate::adapter::ParameterBuilder;
use crate::error::Result;
use crate::model::{BaseModel, SiteInfo};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PromptTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    pub init: VirtualTokenInit,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: virtual_tokens::DEFAULT_NUM_VIRTUAL_TOKENS,
            init: VirtualTokenInit::default(),
            dropout: 0.0,
        }
    }
}

/// What virtual tokens start from: `"vocabulary"`, words drawn from the base's vocabulary, or `{"text": "…"}`, whose tokens
/// are repeated or cut to the number of virtual tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VirtualTokenInit)]
pub enum VirtualTokenInit {
    #[default]
    Vocabulary,
    Text(String),
}

impl VirtualTokenInit {
    pub fn validate(&self, check: &mut MethodValidator) {
        if let Self::Text(text) = self {
            check.require(!text.trim().is_empty(), "init/text", "the text is empty: leave init out, or write one");
        }
    }

    /// The ids of so many tokens.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) where the text has no token of its own.
    pub fn token_ids(&self, base: &BaseModel, count: usize, seed: u64, name: &str) -> Result<Vec<u32>> {
        match self {
            Self::Vocabulary => Ok(virtual_tokens::sample_token_ids(base, count, seed, name)),
            Self::Text(text) => virtual_tokens::tile_token_ids(base, text, count),
        }
    }
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        virtual_tokens::check_count(&mut validator, self.num_virtual_tokens, max_tokens);
        self.init.validate(&mut validator);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }

    pub fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<SoftPrompt> {
        let (count, hidden_size) = (self.num_virtual_tokens, context.base.info().hidden_size);
        let init = |seed: u64, name: &str| {
            let embeddings = context.base.embedding_rows(&self.init.token_ids(context.base, count, seed, name)?)?;
            Ok::<_, crate::error::Error>(Tensor::new([count, hidden_size], embeddings.values))
        };
        let prompt_param =
            builder.add_with(virtual_tokens::PROMPT_TENSOR_NAME.to_string(), &[count, hidden_size], init)?;
        Ok(SoftPrompt::learned(prompt_param, count))
    }
}

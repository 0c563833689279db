//! Prompt tuning: virtual tokens in front of every sequence, whose word embeddings are learned (Lester et al. 2021).

use super::Ground;
use super::targets::Check;
use super::virtual_tokens::{self, Prompt};
use crate::adapter::Parameters;
use crate::error::Result;
use crate::model::{Base, SiteInfo};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PromptTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    pub init: Init,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { num_virtual_tokens: virtual_tokens::DEFAULT, init: Init::default(), dropout: 0.0 }
    }
}

/// What virtual tokens start from: `"vocabulary"`, words drawn from the base's vocabulary, or `{"text": "…"}`, whose tokens
/// are repeated or cut to the number of virtual tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VirtualTokenInit)]
pub enum Init {
    #[default]
    Vocabulary,
    Text(String),
}

impl Init {
    pub fn check(&self, check: &mut Check) {
        if let Self::Text(text) = self {
            check.require(!text.trim().is_empty(), "init/text", "the text is empty: leave init out, or write one");
        }
    }

    /// The ids of so many tokens.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) where the text has no token of its own.
    pub fn ids(&self, base: &Base, count: usize, seed: u64, name: &str) -> Result<Vec<u32>> {
        match self {
            Self::Vocabulary => Ok(virtual_tokens::sampled(base, count, seed, name)),
            Self::Text(text) => virtual_tokens::repeated(base, text, count),
        }
    }
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize) -> Result<Self> {
        let mut check = Check::new(sites);
        virtual_tokens::check_number(&mut check, self.num_virtual_tokens, max_tokens);
        self.init.check(&mut check);
        check.dropout(self.dropout);
        check.finish(|| true)?;
        Ok(self.clone())
    }

    pub fn build(&self, ground: &Ground, parameters: &mut Parameters) -> Result<Prompt> {
        let (count, hidden) = (self.num_virtual_tokens, ground.base.info().hidden_size);
        let words = |seed: u64, name: &str| {
            let words = ground.base.words(&self.init.ids(ground.base, count, seed, name)?)?;
            Ok::<_, crate::error::Error>(Tensor::new([count, hidden], words.values))
        };
        let rows = parameters.tensor_from(virtual_tokens::NAME.to_string(), &[count, hidden], words)?;
        Ok(Prompt::plain(rows, count))
    }
}

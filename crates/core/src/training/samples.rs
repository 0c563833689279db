//! Prompts behind which a job's adapter speaks after every epoch, for whoever watches it learn. No figure, and part of no
//! decision.

use crate::error::{Error, FieldError, Result};
use crate::model::BaseModel;
use crate::model::chat::{Message, RenderOptions};
use crate::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MAX_PROMPTS: usize = 16;
const MAX_SAMPLE_TOKENS: u32 = 512;

/// The likeliest words behind each prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// 16 at most.
    pub inputs: Vec<Prompt>,
    /// Of each, 512 at most.
    #[serde(default = "default_max_tokens")]
    #[schema(default = 64, minimum = 1, maximum = 512)]
    pub max_tokens: u32,
}

fn default_max_tokens() -> u32 {
    64
}

/// A text to go on from, or a conversation that the assistant answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Conversation {
        #[schema(value_type = Vec<Object>)]
        messages: Vec<Message>,
    },
}

impl Prompt {
    pub fn tokenize(&self, base: &BaseModel) -> Result<Vec<u32>> {
        match self {
            Self::Text(text) => base.tokenizer().encode_prompt(text),
            Self::Conversation { messages } => {
                base.tokenizer().encode_chat(messages, &RenderOptions::with_fixed_time())
            }
        }
    }
}

impl Samples {
    /// What speaks against them on this base, whose sequences begin with so many virtual tokens.
    ///
    /// # Errors
    /// Where a tokenizer fails.
    pub fn validate(&self, base: &BaseModel, task: &task::Config, virtual_tokens: usize) -> Result<Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut add_error = |pointer: &str, message: String| errors.push(FieldError::at_pointer(pointer, message));
        if !task.is_generative() || base.kv_cache_shape().is_none() {
            add_error(
                "/samples",
                format!("{} says nothing that could be sampled: leave \"samples\" out", task.type_name()),
            );
            return Ok(errors);
        }
        if !(1..=MAX_PROMPTS).contains(&self.inputs.len()) {
            add_error("/samples/inputs", format!("samples need 1 to {MAX_PROMPTS} inputs, not {}", self.inputs.len()));
        }
        if !(1..=MAX_SAMPLE_TOKENS).contains(&self.max_tokens) {
            add_error(
                "/samples/max_tokens",
                format!("max_tokens of samples must be between 1 and {MAX_SAMPLE_TOKENS}"),
            );
        }
        let max_prompt_tokens = base.info().max_tokens.saturating_sub(virtual_tokens + self.max_tokens as usize);
        for (index, input) in self.inputs.iter().enumerate().take(MAX_PROMPTS) {
            let pointer = format!("/samples/inputs/{index}");
            match input.tokenize(base) {
                Ok(ids) if ids.is_empty() => add_error(&pointer, "an input of samples is empty".to_string()),
                Ok(ids) if ids.len() > max_prompt_tokens => {
                    let length = ids.len();
                    add_error(
                        &pointer,
                        format!("an input of samples has {length} tokens, and there is room for {max_prompt_tokens}"),
                    );
                }
                Ok(_) => {}
                Err(Error::Invalid(problem)) => add_error(&pointer, problem.detail),
                Err(other) => return Err(other),
            }
        }
        Ok(errors)
    }
}

//! Samples: prompts that a job's adapter completes after every epoch, as a qualitative view of the training. They affect no decision.

use crate::error::{Error, FieldError, Result};
use crate::model::BaseModel;
use crate::model::chat::{Message, RenderOptions};
use crate::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MAX_PROMPTS: usize = 16;
const MAX_SAMPLE_TOKENS: u32 = 512;

/// Prompts that are completed by greedy decoding after every epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// At most 16.
    pub inputs: Vec<Prompt>,
    /// Tokens to generate per prompt, at most 512.
    #[serde(default = "default_max_tokens")]
    #[schema(default = 64, minimum = 1, maximum = 512)]
    pub max_tokens: u32,
}

fn default_max_tokens() -> u32 {
    64
}

/// Text to continue, or conversation for the assistant's next message.
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
    /// # Errors
    /// `Invalid` where the chat template refuses the conversation.
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
    /// Errors in the settings, for a base whose sequences begin with `virtual_tokens` virtual tokens.
    ///
    /// # Errors
    /// `Internal` where the tokenizer fails.
    pub fn validate(&self, base: &BaseModel, task: &task::Config, virtual_tokens: usize) -> Result<Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut add_error = |pointer: &str, message: String| errors.push(FieldError::at_pointer(pointer, message));
        if !task.is_generative() || base.kv_cache_shape().is_none() {
            add_error(
                "/samples",
                format!("{} generates no text that could be sampled: leave \"samples\" out", task.type_name()),
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
                        format!(
                            "an input of samples has {length} tokens, and at most {max_prompt_tokens} are possible"
                        ),
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

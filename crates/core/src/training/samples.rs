//! Prompts behind which a job's adapter speaks after every epoch, for whoever watches it learn. No figure, and part of no
//! decision.

use crate::error::{Error, Fault, Result};
use crate::model::Base;
use crate::model::chat::{Asked, Message};
use crate::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MOST: usize = 16;
const MOST_TOKENS: u32 = 512;

/// The likeliest words behind each prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// 16 at most.
    pub inputs: Vec<Prompt>,
    /// Of each, 512 at most.
    #[serde(default = "usual_tokens")]
    #[schema(default = 64, minimum = 1, maximum = 512)]
    pub max_tokens: u32,
}

fn usual_tokens() -> u32 {
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
    pub fn tokens(&self, base: &Base) -> Result<Vec<u32>> {
        match self {
            Self::Text(text) => base.tokenizer().prompt(text),
            Self::Conversation { messages } => base.tokenizer().chat(messages, &Asked::steady()),
        }
    }
}

impl Samples {
    /// What speaks against them on this base, whose sequences begin with so many virtual tokens.
    ///
    /// # Errors
    /// Where a tokenizer fails.
    pub fn faults(&self, base: &Base, task: &task::Config, virtual_tokens: usize) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let mut refuse = |pointer: &str, message: String| faults.push(Fault::at_pointer(pointer, message));
        if !task.generates() || base.past().is_none() {
            refuse("/samples", format!("{} says nothing that could be sampled: leave \"samples\" out", task.name()));
            return Ok(faults);
        }
        if !(1..=MOST).contains(&self.inputs.len()) {
            refuse("/samples/inputs", format!("samples need 1 to {MOST} inputs, not {}", self.inputs.len()));
        }
        if !(1..=MOST_TOKENS).contains(&self.max_tokens) {
            refuse("/samples/max_tokens", format!("max_tokens of samples must be between 1 and {MOST_TOKENS}"));
        }
        let room = base.info().max_tokens.saturating_sub(virtual_tokens + self.max_tokens as usize);
        for (index, input) in self.inputs.iter().enumerate().take(MOST) {
            let pointer = format!("/samples/inputs/{index}");
            match input.tokens(base) {
                Ok(ids) if ids.is_empty() => refuse(&pointer, "an input of samples is empty".to_string()),
                Ok(ids) if ids.len() > room => {
                    let length = ids.len();
                    refuse(&pointer, format!("an input of samples has {length} tokens, and there is room for {room}"));
                }
                Ok(_) => {}
                Err(Error::Invalid(problem)) => refuse(&pointer, problem.detail),
                Err(other) => return Err(other),
            }
        }
        Ok(faults)
    }
}

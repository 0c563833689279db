//! Output of one choice, with what the response has of its prompt: `echo`, and vLLM's `prompt_logprobs`.

use crate::serving::RunningGeneration;
use crate::serving::generation::sampling::Logprobs;
use crate::serving::generation::{PromptOutput, PromptText, TokenOutput};
use espalier_core::error::Result;
use std::sync::Arc;

/// Output of one choice.
pub struct ChoiceOutput {
    /// `None` if the response has nothing of the prompt.
    pub prompt: Option<ChoicePrompt>,
    pub text: String,
    pub tokens: Vec<TokenOutput>,
    pub finish_reason: &'static str,
}

/// What the response has of the prompts.
#[derive(Debug, Clone, Copy, Default)]
pub struct PromptParts {
    /// Whether the text of a choice starts with the prompt.
    pub echo: bool,
    /// Most probable tokens at each position of an echoed prompt.
    pub echo_logprobs: Option<u32>,
    /// Most probable tokens at each position in `prompt_logprobs`.
    pub prompt_logprobs: Option<u32>,
}

/// Prompt of a choice.
pub struct ChoicePrompt {
    pub parts: PromptParts,
    pub text: Arc<PromptText>,
    /// Log probabilities of the tokens after the first, if they are computed.
    pub logprobs: Option<Arc<Vec<Logprobs>>>,
}

impl ChoiceOutput {
    /// Number of log probabilities in the response.
    pub fn logprob_count(&self) -> usize {
        let count = |token: &TokenOutput| token.logprobs.as_ref().map_or(0, |logprobs| 1 + logprobs.top.len());
        self.prompt.as_ref().map_or(0, ChoicePrompt::logprob_count) + self.tokens.iter().map(count).sum::<usize>()
    }
}

impl PromptParts {
    /// What generation has to return of the prompts.
    pub fn prompt_output(self) -> PromptOutput {
        let echo_logprobs = self.echo_logprobs.filter(|_| self.echo);
        match echo_logprobs.max(self.prompt_logprobs) {
            Some(top_count) => PromptOutput::Logprobs(top_count),
            None if self.echo => PromptOutput::Text,
            None => PromptOutput::None,
        }
    }
}

impl ChoicePrompt {
    /// Length of the prompt in the choice's text, in characters.
    pub fn echoed_characters(&self) -> usize {
        if self.parts.echo { self.text.text.chars().count() } else { 0 }
    }

    /// Number of log probabilities in the response.
    pub fn logprob_count(&self) -> usize {
        let per_token = |top: Option<u32>| top.map_or(0, |top| 1 + top as usize);
        let per_token = per_token(self.parts.echo_logprobs) + per_token(self.parts.prompt_logprobs);
        self.logprobs.as_ref().map_or(0, |logprobs| logprobs.len() * per_token)
    }
}

/// Waits for the prompt of each choice. The choices of one prompt share it.
///
/// # Errors
/// The error that ended a sequence.
pub async fn choice_prompts(
    running: &mut RunningGeneration,
    parts: PromptParts,
    choices_per_prompt: usize,
) -> Result<Vec<Option<ChoicePrompt>>> {
    let mut prompts = Vec::with_capacity(running.streams.len());
    for choices in running.streams.chunks_mut(choices_per_prompt.max(1)) {
        let logprobs = match choices.first_mut() {
            Some(first) => first.prompt_logprobs().await?,
            None => None,
        };
        prompts.extend(choices.iter().map(|choice| {
            let text = choice.prompt.clone()?;
            Some(ChoicePrompt { parts, text, logprobs: logprobs.clone() })
        }));
    }
    Ok(prompts)
}

//! What a sequence is asked for, and what it answers.

use super::constraint::TokenConstraint;
use super::detokenizer::{FinishReason, StopConditions};
use super::sampling::{self, Logprobs};
use crate::serving::adapters::AdapterHandle;
use espalier_core::error::Error;
use espalier_core::model::chat::{Message, RenderOptions};
use tokio::sync::mpsc::UnboundedReceiver;

/// What is to be gone on from.
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Messages { messages: Vec<Message>, template_options: RenderOptions },
}

/// One sequence to be.
pub struct SequenceRequest {
    pub adapter: AdapterHandle,
    /// The adapter's version; empty for the bare base.
    pub version: String,
    /// The prompt's tokens, at least one.
    pub prompt_ids: Vec<u32>,
    pub sampling: sampling::SamplingParams,
    pub stop_conditions: StopConditions,
    /// What the answer has to be.
    pub constraint: Option<TokenConstraint>,
    /// Its number among those with the same prompt.
    pub choice_index: u32,
}

/// A token that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenOutput {
    pub token_id: u32,
    /// What it adds to the text: nothing while a character is incomplete, or may be the beginning of a stop string.
    pub text_delta: String,
    /// Where it begins, in characters of the whole text.
    pub text_offset: usize,
    pub logprobs: Option<Logprobs>,
}

/// What happens to a sequence.
#[derive(Debug)]
pub enum SequenceEvent {
    Token(TokenOutput),
    /// The last one.
    Finished(FinishReason),
    /// The last one: nothing more comes.
    Failed(Error),
}

/// A sequence that is under way. When it is dropped, its room is free at the next step.
pub struct GenerationStream {
    pub(super) events: UnboundedReceiver<SequenceEvent>,
    pub prompt_tokens: usize,
    /// Once nothing more comes.
    pub finish_reason: Option<FinishReason>,
}

/// All that a sequence has said.
pub struct Completion {
    pub text: String,
    pub tokens: Vec<TokenOutput>,
    pub finish_reason: FinishReason,
}

impl GenerationStream {
    /// What comes next; `None` after the finish.
    ///
    /// # Errors
    /// Where the sequence failed.
    pub async fn next(&mut self) -> Result<Option<TokenOutput>, Error> {
        match self.events.recv().await {
            Some(SequenceEvent::Token(output)) => Ok(Some(output)),
            Some(SequenceEvent::Finished(finish_reason)) => {
                self.finish_reason = Some(finish_reason);
                Ok(None)
            }
            Some(SequenceEvent::Failed(error)) => Err(error),
            None => Err(Error::internal("a step of generation was lost")),
        }
    }

    /// Waits for the finish.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<Completion, Error> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        while let Some(output) = self.next().await? {
            text.push_str(&output.text_delta);
            tokens.push(output);
        }
        Ok(Completion { text, tokens, finish_reason: self.finish_reason.unwrap_or(FinishReason::Stop) })
    }
}

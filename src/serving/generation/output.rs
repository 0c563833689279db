//! Generated tokens of one sequence, and the stream that delivers them.

use super::detokenizer::FinishReason;
use super::sampling::Logprobs;
use espalier_core::error::{Error, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenOutput {
    pub token_id: u32,
    /// Text that the token adds; empty while a character is incomplete or while a stop sequence may follow.
    pub text_delta: String,
    /// Offset of the token in the generated text, in characters.
    pub text_offset: usize,
    pub logprobs: Option<Logprobs>,
    /// Set for the last token of a sequence.
    pub finish_reason: Option<FinishReason>,
}

/// Receives the tokens of one sequence. Dropping it cancels the sequence at the next step.
pub struct GenerationStream {
    outputs: UnboundedReceiver<Result<TokenOutput>>,
    pub prompt_tokens: usize,
    /// Set once the last token was received.
    pub finish_reason: Option<FinishReason>,
}

/// All output of one sequence.
pub struct Completion {
    pub text: String,
    pub tokens: Vec<TokenOutput>,
    pub finish_reason: FinishReason,
}

impl GenerationStream {
    /// The stream, and the sender of its tokens.
    pub fn new(prompt_tokens: usize) -> (UnboundedSender<Result<TokenOutput>>, Self) {
        let (sender, outputs) = unbounded_channel();
        (sender, Self { outputs, prompt_tokens, finish_reason: None })
    }

    /// Waits for the next token; `None` after the last.
    ///
    /// # Errors
    /// The error that ended the sequence: `Busy` (`shutting_down`) when the engine ends all sequences.
    pub async fn next(&mut self) -> Result<Option<TokenOutput>> {
        if self.finish_reason.is_some() {
            return Ok(None);
        }
        let lost = || Err(Error::internal("a step of generation was lost"));
        let output = self.outputs.recv().await.unwrap_or_else(lost)?;
        self.finish_reason = output.finish_reason;
        Ok(Some(output))
    }

    /// Waits for the whole sequence.
    ///
    /// # Errors
    /// The error that ended the sequence.
    pub async fn collect(mut self) -> Result<Completion> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        while let Some(output) = self.next().await? {
            text.push_str(&output.text_delta);
            tokens.push(output);
        }
        Ok(Completion { text, tokens, finish_reason: self.finish_reason.unwrap_or(FinishReason::Stop) })
    }
}

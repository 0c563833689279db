//! Output of one sequence (generated tokens, and log probabilities of its prompt), and the stream that delivers it.

use super::detokenizer::FinishReason;
use super::prompt::PromptText;
use super::sampling::Logprobs;
use espalier_core::error::{Error, Result};
use std::sync::Arc;
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

/// What a sequence sends to its stream.
#[derive(Debug)]
pub enum SequenceOutput {
    /// Log probabilities of the prompt's tokens after the first; sent before the first generated token.
    PromptLogprobs(Vec<Logprobs>),
    Token(TokenOutput),
    /// The end of a sequence that generates no token.
    Finished(FinishReason),
}

pub type OutputSender = UnboundedSender<Result<SequenceOutput>>;

/// Receives the output of one sequence. Dropping it cancels the sequence at the next step.
pub struct GenerationStream {
    outputs: UnboundedReceiver<Result<SequenceOutput>>,
    pub prompt_tokens: usize,
    /// Text and tokens of the prompt, if the request asks for them.
    pub prompt: Option<Arc<PromptText>>,
    /// Whether the sequence computes log probabilities of its prompt: the first of each prompt does so.
    pub scores_prompt: bool,
    prompt_logprobs: Option<Arc<Vec<Logprobs>>>,
    /// Set once the last token was received.
    pub finish_reason: Option<FinishReason>,
    received_tokens: u64,
    meter: Option<TokenMeter>,
}

/// Called with the number of generated tokens that a stream received, when it is dropped.
pub type TokenMeter = Arc<dyn Fn(u64) + Send + Sync>;

/// All output of one sequence.
pub struct Completion {
    pub text: String,
    pub tokens: Vec<TokenOutput>,
    pub finish_reason: FinishReason,
}

impl GenerationStream {
    /// The stream, and the sender of its output.
    pub fn new(prompt_tokens: usize) -> (OutputSender, Self) {
        let (sender, outputs) = unbounded_channel();
        let stream = Self {
            outputs,
            prompt_tokens,
            prompt: None,
            scores_prompt: false,
            prompt_logprobs: None,
            finish_reason: None,
            received_tokens: 0,
            meter: None,
        };
        (sender, stream)
    }

    /// Reports the generated tokens when the stream is dropped, also by a client that disconnects.
    pub fn count_tokens_with(&mut self, meter: TokenMeter) {
        self.meter = Some(meter);
    }

    /// Waits for the log probabilities of the prompt's tokens after the first; `None` if this sequence does not compute them.
    ///
    /// # Errors
    /// The error that ended the sequence.
    pub async fn prompt_logprobs(&mut self) -> Result<Option<Arc<Vec<Logprobs>>>> {
        while self.scores_prompt && self.prompt_logprobs.is_none() {
            match self.receive().await? {
                SequenceOutput::PromptLogprobs(logprobs) => self.prompt_logprobs = Some(Arc::new(logprobs)),
                _ => return Err(Error::internal("a token was generated before its prompt was scored")),
            }
        }
        Ok(self.prompt_logprobs.clone())
    }

    /// Waits for the next token; `None` after the last.
    ///
    /// # Errors
    /// The error that ended the sequence: `Busy` (`shutting_down`) when the engine ends all sequences.
    pub async fn next(&mut self) -> Result<Option<TokenOutput>> {
        while self.finish_reason.is_none() {
            match self.receive().await? {
                SequenceOutput::PromptLogprobs(logprobs) => self.prompt_logprobs = Some(Arc::new(logprobs)),
                SequenceOutput::Finished(reason) => self.finish_reason = Some(reason),
                SequenceOutput::Token(token) => {
                    self.finish_reason = token.finish_reason;
                    self.received_tokens += 1;
                    return Ok(Some(token));
                }
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<SequenceOutput> {
        self.outputs.recv().await.unwrap_or_else(|| Err(Error::internal("a step of generation was lost")))
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

impl Drop for GenerationStream {
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter(self.received_tokens);
        }
    }
}

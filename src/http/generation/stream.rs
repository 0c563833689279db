//! Tokens of all sequences of a generation request as one stream, and token counts.

use crate::serving::RunningGeneration;
use crate::serving::generation::{FinishReason, GenerationStream, TokenOutput};
use espalier_core::error::Error;
use futures_util::future::select_all;
use futures_util::{Stream, stream};
use serde::Serialize;
use utoipa::ToSchema;

/// Number of tokens of a request.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Generated tokens.
    pub completion_tokens: usize,
    /// Sum of both.
    pub total_tokens: usize,
}

impl Usage {
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// OpenAI's name of a finish reason.
pub fn finish_reason_name(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Event of a generation request. `index` counts sequences in the order of the request.
pub enum StreamEvent {
    Token {
        index: usize,
        token: TokenOutput,
    },
    /// The sequence is complete.
    Finished {
        index: usize,
        finish: FinishReason,
        prompt_tokens: usize,
        completion_tokens: usize,
    },
    /// Generation failed; [`Self::Done`] follows.
    Failed(Error),
    /// The stream ends.
    Done,
}

/// Converts a running generation into a stream of events. Dropping the stream cancels the generation.
pub fn event_stream(running_generation: RunningGeneration) -> impl Stream<Item = StreamEvent> + Send + 'static {
    stream::unfold(TokenStream::new(running_generation), |mut tokens| async move {
        let event = tokens.next_event().await?;
        Some((event, tokens))
    })
}

struct TokenStream {
    sequences: Vec<RunningSequence>,
    is_finished: bool,
    /// Keeps the shutdown guard of the request alive until the stream ends.
    _running_generation: RunningGeneration,
}

struct RunningSequence {
    index: usize,
    generation: GenerationStream,
    completion_tokens: usize,
}

impl TokenStream {
    fn new(mut running_generation: RunningGeneration) -> Self {
        let generations = std::mem::take(&mut running_generation.streams).into_iter().enumerate();
        let sequences = generations
            .map(|(index, generation)| RunningSequence { index, generation, completion_tokens: 0 })
            .collect();
        Self { sequences, is_finished: false, _running_generation: running_generation }
    }

    /// Waits for the next event of any sequence; `None` after [`StreamEvent::Done`].
    async fn next_event(&mut self) -> Option<StreamEvent> {
        if self.is_finished {
            return None;
        }
        if self.sequences.is_empty() {
            self.is_finished = true;
            return Some(StreamEvent::Done);
        }
        let (result, position, _) =
            select_all(self.sequences.iter_mut().map(|sequence| Box::pin(sequence.generation.next()))).await;
        match result {
            Ok(Some(token)) => {
                self.sequences[position].completion_tokens += 1;
                Some(StreamEvent::Token { index: self.sequences[position].index, token })
            }
            Ok(None) => {
                let RunningSequence { index, generation, completion_tokens } = self.sequences.remove(position);
                let finish = generation.finish_reason.unwrap_or(FinishReason::Stop);
                let prompt_tokens = generation.prompt_tokens;
                Some(StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens })
            }
            Err(error) => {
                if let Error::Internal(_) = &error {
                    tracing::error!(error = format!("{error:#}"), "generation stream failed");
                }
                self.sequences.clear();
                Some(StreamEvent::Failed(error))
            }
        }
    }
}

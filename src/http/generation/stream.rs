//! Tokens of all sequences of a generation request as one stream, and token counts.

use crate::serving::RunningGeneration;
use crate::serving::generation::{FinishReason, GenerationStream, TokenOutput};
use espalier_core::error::Error;
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
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
pub fn event_stream(mut running_generation: RunningGeneration) -> impl Stream<Item = StreamEvent> + Send + 'static {
    let sequences = Some(merge_sequences(std::mem::take(&mut running_generation.streams)));
    // The running generation keeps the shutdown guard of the request alive until the stream ends.
    stream::unfold((sequences, running_generation), |(sequences, running_generation)| async move {
        let mut sequences = sequences?;
        match sequences.next().await {
            // The other sequences are cancelled.
            Some(StreamEvent::Failed(error)) => {
                Some((StreamEvent::Failed(error), (Some(SelectAll::new()), running_generation)))
            }
            Some(event) => Some((event, (Some(sequences), running_generation))),
            None => Some((StreamEvent::Done, (None, running_generation))),
        }
    })
}

/// Events of all sequences. Those that have tokens take turns, and the order within a sequence is kept.
fn merge_sequences(generations: Vec<GenerationStream>) -> SelectAll<BoxStream<'static, StreamEvent>> {
    stream::select_all(generations.into_iter().enumerate().map(|(index, generation)| {
        let sequence = RunningSequence { index, generation, completion_tokens: 0 };
        stream::unfold(Some(sequence), |sequence| async move { Some(sequence?.next_event().await) }).boxed()
    }))
}

struct RunningSequence {
    index: usize,
    generation: GenerationStream,
    completion_tokens: usize,
}

impl RunningSequence {
    /// Waits for the next event. The sequence is gone after its last.
    async fn next_event(mut self) -> (StreamEvent, Option<Self>) {
        let index = self.index;
        match self.generation.next().await {
            Ok(Some(token)) => {
                self.completion_tokens += 1;
                (StreamEvent::Token { index, token }, Some(self))
            }
            Ok(None) => {
                let finish = self.generation.finish_reason.unwrap_or(FinishReason::Stop);
                let (prompt_tokens, completion_tokens) = (self.generation.prompt_tokens, self.completion_tokens);
                (StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens }, None)
            }
            Err(error) => {
                if let Error::Internal(_) = &error {
                    tracing::error!(error = format!("{error:#}"), "generation stream failed");
                }
                (StreamEvent::Failed(error), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::generation::SequenceOutput;

    fn token(id: u32, finish_reason: Option<FinishReason>) -> TokenOutput {
        TokenOutput { token_id: id, text_delta: String::new(), text_offset: 0, logprobs: None, finish_reason }
    }

    /// Sequence whose tokens, the last with a finish reason, are all there.
    fn sequence(tokens: u32) -> GenerationStream {
        let (sender, stream) = GenerationStream::new(7);
        for id in 0..tokens {
            let token = token(id, (id + 1 == tokens).then_some(FinishReason::Length));
            sender.send(Ok(SequenceOutput::Token(token))).unwrap();
        }
        stream
    }

    #[tokio::test]
    async fn sequences_with_tokens_take_turns_in_their_own_order() {
        let mut events = merge_sequences(vec![sequence(3), sequence(3), sequence(1)]);
        let (mut tokens, mut finished) = (Vec::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event {
                StreamEvent::Token { index, token } => tokens.push((index, token.token_id)),
                StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => {
                    assert_eq!((finish, prompt_tokens), (FinishReason::Length, 7));
                    finished.push((index, completion_tokens));
                }
                StreamEvent::Failed(_) | StreamEvent::Done => panic!("no sequence fails"),
            }
        }
        assert_eq!(tokens, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
        finished.sort_unstable();
        assert_eq!(finished, [(0, 3), (1, 3), (2, 1)]);
    }
}

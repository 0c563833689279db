//! A streamed answer of either call: a frame for each word, the usage where it was asked for, and `[DONE]`. Knows nothing of what
//! a choice looks like.

use super::CompletionMeta;
use super::error;
use super::request::StreamOptions;
use crate::http::error::ApiError;
use crate::http::generate::{Usage, finish_reason};
use crate::http::sse::{self, StreamEvent, TokenStream};
use crate::serving::generation::TokenOutput;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

pub struct ChunkWriter {
    pub meta: CompletionMeta,
    /// Of its frames: `chat.completion.chunk`, `text_completion`.
    pub object: &'static str,
    pub options: StreamOptions,
    /// Choices of each prompt, whose tokens count once.
    pub choices_per_prompt: usize,
}

impl ChunkWriter {
    /// `choice` writes one of the call's: its index, with the token that is said or why it ends.
    pub fn into_events<C>(self, tokens: TokenStream, write_choice: C) -> impl Stream<Item = Event> + Send + 'static
    where
        C: Fn(usize, Option<&TokenOutput>, Option<&'static str>) -> Value + Send + 'static,
    {
        let mut usage = (0, 0);
        let events = stream::unfold(tokens, |mut words| async move {
            let event = words.next_event().await?;
            Some((event, words))
        });
        events.flat_map(move |event| {
            stream::iter(match event {
                StreamEvent::Token { index, token } => {
                    vec![self.choices_event(json!([write_choice(index, Some(&token), None)]))]
                }
                StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => {
                    usage.0 += if index % self.choices_per_prompt == 0 { prompt_tokens } else { 0 };
                    usage.1 += completion_tokens;
                    vec![self.choices_event(json!([write_choice(index, None, Some(finish_reason(finish)))]))]
                }
                StreamEvent::Failed(failure) => {
                    vec![sse::json_event(&error::error_body(&ApiError::from(failure), &self.meta.id))]
                }
                StreamEvent::Done => self.final_events(usage),
            })
        })
    }

    pub fn choices_event(&self, choices: Value) -> Event {
        sse::json_event(&self.chunk(choices))
    }

    fn final_events(&self, (prompt_tokens, completion_tokens): (usize, usize)) -> Vec<Event> {
        let usage = self.options.include_usage.then(|| {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = json!(Usage::new(prompt_tokens, completion_tokens));
            sse::json_event(&chunk)
        });
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }

    fn chunk(&self, choices: Value) -> Value {
        let CompletionMeta { id, created, model } = &self.meta;
        json!({"id": id, "object": self.object, "created": created, "model": model, "choices": choices})
    }
}

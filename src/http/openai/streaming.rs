//! A streamed answer of either call: a frame for each word, the usage where it was asked for, and `[DONE]`. Knows nothing of what
//! a choice looks like.

use super::Stamp;
use super::error;
use super::request::StreamOptions;
use crate::http::error::Refusal;
use crate::http::generate::{Usage, reason};
use crate::http::sse::{self, Word, Words};
use crate::serving::generate::Chosen;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

pub struct Streaming {
    pub stamp: Stamp,
    /// Of its frames: `chat.completion.chunk`, `text_completion`.
    pub object: &'static str,
    pub options: StreamOptions,
    /// Choices of each prompt, whose tokens count once.
    pub each: usize,
}

impl Streaming {
    /// `choice` writes one of the call's: its index, with the token that is said or why it ends.
    pub fn frames<C>(self, words: Words, choice: C) -> impl Stream<Item = Event> + Send + 'static
    where
        C: Fn(usize, Option<&Chosen>, Option<&'static str>) -> Value + Send + 'static,
    {
        let mut usage = (0, 0);
        let words = stream::unfold(words, |mut words| async move {
            let word = words.next().await?;
            Some((word, words))
        });
        words.flat_map(move |word| {
            stream::iter(match word {
                Word::Token { index, chosen } => vec![self.frame(json!([choice(index, Some(&chosen), None)]))],
                Word::Finished { index, finish, prompt_tokens, said } => {
                    usage.0 += if index % self.each == 0 { prompt_tokens } else { 0 };
                    usage.1 += said;
                    vec![self.frame(json!([choice(index, None, Some(reason(finish)))]))]
                }
                Word::Failed(failure) => vec![sse::json(&error::body(&Refusal::from(failure), &self.stamp.id))],
                Word::Done => self.end(usage),
            })
        })
    }

    pub fn frame(&self, choices: Value) -> Event {
        sse::json(&self.chunk(choices))
    }

    fn end(&self, (prompt, said): (usize, usize)) -> Vec<Event> {
        let usage = self.options.include_usage.then(|| {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = json!(Usage::new(prompt, said));
            sse::json(&chunk)
        });
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }

    fn chunk(&self, choices: Value) -> Value {
        let Stamp { id, created, model } = &self.stamp;
        json!({"id": id, "object": self.object, "created": created, "model": model, "choices": choices})
    }
}

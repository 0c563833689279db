//! Words of several texts as they come, for streams of server-sent events. Knows nothing of what a frame looks like.

use super::state::AppState;
use crate::serving::RunningGeneration;
use crate::serving::generation::{FinishReason, GenerationStream, TokenOutput};
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use futures_util::future::select_all;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;

/// What comes next, of any of the texts.
pub enum StreamEvent {
    Token {
        index: usize,
        token: TokenOutput,
    },
    Finished {
        index: usize,
        finish: FinishReason,
        prompt_tokens: usize,
        completion_tokens: usize,
    },
    /// The end of all.
    Failed(Error),
    Done,
}

pub struct TokenStream {
    sequences: Vec<RunningSequence>,
    is_finished: bool,
    /// What keeps the server up until the stream ends.
    _running_generation: RunningGeneration,
}

struct RunningSequence {
    index: usize,
    generation: GenerationStream,
    completion_tokens: usize,
}

impl TokenStream {
    pub fn new(mut running_generation: RunningGeneration) -> Self {
        let generations = std::mem::take(&mut running_generation.streams).into_iter().enumerate();
        let sequences = generations
            .map(|(index, generation)| RunningSequence { index, generation, completion_tokens: 0 })
            .collect();
        Self { sequences, is_finished: false, _running_generation: running_generation }
    }

    /// `None` after the end.
    pub async fn next_event(&mut self) -> Option<StreamEvent> {
        if self.is_finished {
            return None;
        }
        if self.sequences.is_empty() {
            self.is_finished = true;
            return Some(StreamEvent::Done);
        }
        let (result, position, _) =
            select_all(self.sequences.iter_mut().map(|one| Box::pin(one.generation.next()))).await;
        match result {
            Ok(Some(token)) => {
                self.sequences[position].completion_tokens += 1;
                Some(StreamEvent::Token { index: self.sequences[position].index, token })
            }
            Ok(None) => {
                let RunningSequence { index, generation, completion_tokens } = self.sequences.remove(position);
                let finish = generation.finish_reason.unwrap_or(FinishReason::Stop);
                Some(StreamEvent::Finished {
                    index,
                    finish,
                    prompt_tokens: generation.prompt_tokens,
                    completion_tokens,
                })
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a stream of generated text broke off");
                self.is_finished = true;
                self.sequences.clear();
                Some(StreamEvent::Failed(error))
            }
        }
    }
}

pub fn json_event(data: &impl Serialize) -> Event {
    Event::default().json_data(data).unwrap_or_else(|_| Event::default().comment("unwritable"))
}

pub fn sse_response(state: &AppState, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(state.settings.sse_keep_alive_interval).text("alive");
    // Proxies that collect answers would hold the words back.
    let no_buffering = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let events = events.map(Ok::<Event, Infallible>);
    (no_buffering, Sse::new(events).keep_alive(keep_alive)).into_response()
}

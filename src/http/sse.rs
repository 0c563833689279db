//! Words of several texts as they come, for streams of server-sent events. Knows nothing of what a frame looks like.

use super::state::State;
use crate::serving::Started;
use crate::serving::generate::text::Finish;
use crate::serving::generate::{Chosen, Generation};
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use futures_util::future::select_all;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;

/// What comes next, of any of the texts.
pub enum Word {
    Token {
        index: usize,
        chosen: Chosen,
    },
    Finished {
        index: usize,
        finish: Finish,
        prompt_tokens: usize,
        said: usize,
    },
    /// The end of all.
    Failed(Error),
    Done,
}

pub struct Words {
    running: Vec<Running>,
    is_over: bool,
    /// What keeps the server up until the stream ends.
    _started: Started,
}

struct Running {
    index: usize,
    generation: Generation,
    said: usize,
}

impl Words {
    pub fn new(mut started: Started) -> Self {
        let generations = std::mem::take(&mut started.generations).into_iter().enumerate();
        let running = generations.map(|(index, generation)| Running { index, generation, said: 0 }).collect();
        Self { running, is_over: false, _started: started }
    }

    /// `None` after the end.
    pub async fn next(&mut self) -> Option<Word> {
        if self.is_over {
            return None;
        }
        if self.running.is_empty() {
            self.is_over = true;
            return Some(Word::Done);
        }
        let (next, at, _) = select_all(self.running.iter_mut().map(|one| Box::pin(one.generation.next()))).await;
        match next {
            Ok(Some(chosen)) => {
                self.running[at].said += 1;
                Some(Word::Token { index: self.running[at].index, chosen })
            }
            Ok(None) => {
                let Running { index, generation, said } = self.running.remove(at);
                let finish = generation.finish.unwrap_or(Finish::Stop);
                Some(Word::Finished { index, finish, prompt_tokens: generation.prompt_tokens, said })
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a stream of generated text broke off");
                self.is_over = true;
                self.running.clear();
                Some(Word::Failed(error))
            }
        }
    }
}

pub fn json(data: &impl Serialize) -> Event {
    Event::default().json_data(data).unwrap_or_else(|_| Event::default().comment("unwritable"))
}

pub fn response(state: &State, frames: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(state.settings.keep_alive).text("alive");
    // Proxies that collect answers would hold the words back.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let frames = frames.map(Ok::<Event, Infallible>);
    (unbuffered, Sse::new(frames).keep_alive(keep_alive)).into_response()
}

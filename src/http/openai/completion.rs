//! Runs a chat or text completion and answers with one body or with a stream of chunks, with log
//! probabilities of the tokens in OpenAI's formats.

use super::request::{name_missing_model, resolve_model};
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::generation::stream::{StreamEvent, Usage, event_stream, finish_reason_name};
use crate::http::openai_error;
use crate::http::sse;
use crate::http::state::AppState;
use crate::serving::generation::TokenOutput;
use crate::serving::{GenerationRequest, RunningGeneration};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::Result;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Format of a completion: what chat and text completions do differently.
pub trait CompletionFormat: Send + 'static {
    const ID_PREFIX: &'static str;
    /// Value of `object` of a complete response.
    const OBJECT: &'static str;
    /// Value of `object` of a chunk.
    const CHUNK_OBJECT: &'static str;
    type Choice: Serialize;

    /// Choice of a complete response.
    fn choice(&self, state: &AppState, index: usize, output: ChoiceOutput) -> Self::Choice;

    /// Chunk sent before the first token of a choice, if any.
    fn opening_chunk(&self, index: usize) -> Option<Value>;

    /// Choices of the chunks of one token.
    fn token_chunks(&mut self, state: &AppState, index: usize, token: &TokenOutput) -> Vec<Value>;

    /// Choices of the chunks at the end of a choice.
    fn finish_chunks(&mut self, index: usize, finish: &'static str) -> Vec<Value>;
}

/// Generated text of one choice.
pub struct ChoiceOutput {
    pub text: String,
    pub tokens: Vec<TokenOutput>,
    pub finish_reason: &'static str,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Sends a last chunk with the token counts.
    #[serde(default)]
    pub include_usage: bool,
}

/// Converted request of either endpoint.
pub struct CompletionRun {
    pub model: String,
    /// `None` for a complete response.
    pub stream: Option<StreamOptions>,
    pub generation: GenerationRequest,
}

/// Complete response.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionBody<C> {
    pub id: String,
    /// `chat.completion` or `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Choices in the order of the prompts.
    pub choices: Vec<C>,
    pub usage: Usage,
}

/// Generates and answers in the format `F`.
///
/// # Errors
/// `model_not_found` for an unknown model; the errors of [`crate::serving::InferenceService::generate`].
pub async fn respond<F: CompletionFormat>(
    state: &AppState,
    caller: &Caller,
    run: CompletionRun,
    format: F,
) -> ApiResult<Response> {
    let CompletionRun { model, stream, generation } = run;
    let choices_per_prompt = generation.choices_per_prompt as usize;
    let reference = resolve_model(state, &model)?;
    let running = state.serving.generate(&caller.owner, reference.as_ref(), generation).await;
    let running = running.map_err(|error| name_missing_model(error, &model, Into::into))?;
    let meta = CompletionMeta::new(F::ID_PREFIX, model);
    match stream {
        Some(options) => Ok(stream_chunks(
            state,
            running,
            format,
            ChunkWriter {
                meta,
                object: F::CHUNK_OBJECT,
                options,
                choices_per_prompt,
                prompt_tokens: 0,
                completion_tokens: 0,
            },
        )),
        None => Ok(axum::Json(collect(state, meta, running, &format, choices_per_prompt).await?).into_response()),
    }
}

async fn collect<F: CompletionFormat>(
    state: &AppState,
    meta: CompletionMeta,
    running: RunningGeneration,
    format: &F,
    choices_per_prompt: usize,
) -> Result<CompletionBody<F::Choice>> {
    let (mut choices, mut prompt_tokens, mut completion_tokens) = (Vec::new(), 0, 0);
    for (index, generation) in running.streams.into_iter().enumerate() {
        // The tokens of a prompt count once, however many choices it has.
        prompt_tokens += if index.is_multiple_of(choices_per_prompt) { generation.prompt_tokens } else { 0 };
        let completion = generation.collect().await?;
        completion_tokens += completion.tokens.len();
        let finish_reason = finish_reason_name(completion.finish_reason);
        let output = ChoiceOutput { text: completion.text, tokens: completion.tokens, finish_reason };
        choices.push(format.choice(state, index, output));
    }
    let CompletionMeta { id, created, model } = meta;
    let usage = Usage::new(prompt_tokens, completion_tokens);
    Ok(CompletionBody { id, object: F::OBJECT, created, model, choices, usage })
}

fn stream_chunks<F: CompletionFormat>(
    state: &AppState,
    running: RunningGeneration,
    mut format: F,
    mut chunks: ChunkWriter,
) -> Response {
    let opening = (0..running.streams.len()).filter_map(|index| format.opening_chunk(index));
    let opening: Vec<Event> = opening.map(|choice| chunks.choice_event(choice)).collect();
    let app_state = state.clone();
    let events = event_stream(running).flat_map(move |event| {
        stream::iter(match event {
            StreamEvent::Token { index, token } => chunks.choice_events(format.token_chunks(&app_state, index, &token)),
            StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => {
                chunks.count_tokens(index, prompt_tokens, completion_tokens);
                chunks.choice_events(format.finish_chunks(index, finish_reason_name(finish)))
            }
            StreamEvent::Failed(failure) => {
                chunks.options.include_usage = false;
                vec![sse::json_event(&openai_error::error_body(&ApiError::from(failure), &chunks.meta.id))]
            }
            StreamEvent::Done => chunks.final_events(),
        })
    });
    sse::sse_response(state, stream::iter(opening).chain(events))
}

/// Fields that the response and all chunks of a completion share.
struct CompletionMeta {
    id: String,
    created: u64,
    /// Model as the request named it.
    model: String,
}

impl CompletionMeta {
    fn new(prefix: &str, model: String) -> Self {
        let id = Uuid::now_v7();
        let created = id.get_timestamp().map_or(0, |time| time.to_unix().0);
        Self { id: format!("{prefix}-{}", id.simple()), created, model }
    }
}

/// Writes the chunks of a streamed completion and counts its tokens.
struct ChunkWriter {
    meta: CompletionMeta,
    object: &'static str,
    options: StreamOptions,
    choices_per_prompt: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl ChunkWriter {
    fn choice_event(&self, choice: Value) -> Event {
        sse::json_event(&self.chunk(json!([choice])))
    }

    fn choice_events(&self, choices: Vec<Value>) -> Vec<Event> {
        choices.into_iter().map(|choice| self.choice_event(choice)).collect()
    }

    fn count_tokens(&mut self, index: usize, prompt_tokens: usize, completion_tokens: usize) {
        self.prompt_tokens += if index.is_multiple_of(self.choices_per_prompt) { prompt_tokens } else { 0 };
        self.completion_tokens += completion_tokens;
    }

    fn final_events(&self) -> Vec<Event> {
        let usage = self.options.include_usage.then(|| {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = json!(Usage::new(self.prompt_tokens, self.completion_tokens));
            sse::json_event(&chunk)
        });
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }

    fn chunk(&self, choices: Value) -> Value {
        let CompletionMeta { id, created, model } = &self.meta;
        json!({"id": id, "object": self.object, "created": created, "model": model, "choices": choices})
    }
}

/// Log probabilities of a chat message.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<TokenLogprob>,
}

/// Log probability of a generated token.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatLogprobToken)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f32,
    /// UTF-8 bytes of the token, which may end inside a character.
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens at a position.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatTopLogprob)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// `None` if the request did not ask for log probabilities.
    pub fn from_tokens(state: &AppState, tokens: &[TokenOutput]) -> Option<Self> {
        let token_logprob = |token: &TokenOutput| {
            let logprobs = token.logprobs.as_ref()?;
            let top_logprob = |(id, logprob): &(u32, f32)| {
                let bytes = state.serving.token_bytes(*id);
                TopLogprob { token: lossy_text(&bytes), logprob: *logprob, bytes }
            };
            let bytes = state.serving.token_bytes(token.token_id);
            let top_logprobs = logprobs.top.iter().map(top_logprob).collect();
            Some(TokenLogprob { token: lossy_text(&bytes), logprob: logprobs.sampled, bytes, top_logprobs })
        };
        tokens.iter().map(token_logprob).collect::<Option<Vec<TokenLogprob>>>().map(|content| Self { content })
    }
}

/// Log probabilities of a text completion.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Offset of each token in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// `None` if the request did not ask for log probabilities.
    pub fn from_tokens(state: &AppState, tokens: &[TokenOutput]) -> Option<Self> {
        let mut result = Self::default();
        for token in tokens {
            let logprobs = token.logprobs.as_ref()?;
            result.tokens.push(lossy_text(&state.serving.token_bytes(token.token_id)));
            result.token_logprobs.push(logprobs.sampled);
            let top = logprobs.top.iter().map(|(id, logprob)| (lossy_text(&state.serving.token_bytes(*id)), *logprob));
            result.top_logprobs.push(top.collect());
            result.text_offset.push(token.text_offset);
        }
        Some(result)
    }
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

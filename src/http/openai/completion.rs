//! Runs a chat or text completion and answers with one body or with a stream of chunks.

use super::best_of::BestOf;
use super::choice_output::{ChoiceOutput, ChoicePrompt, PromptParts, choice_prompts};
use super::request::{name_missing_model, resolve_model};
use crate::http::auth::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::generation::stream::{StreamEvent, Usage, event_stream, finish_reason_name};
use crate::http::inference;
use crate::http::openai_error;
use crate::http::sse;
use crate::http::state::AppState;
use crate::serving::generation::TokenOutput;
use crate::serving::{GenerationRequest, RunningGeneration};
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Context, Error, Result};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use uuid::Uuid;

/// Up to this many log probabilities are written inline: handing them to a blocking thread would take longer.
const INLINE_LOGPROBS: usize = 2048;

/// Format of a completion: what chat and text completions do differently.
pub trait CompletionFormat: Clone + Send + Sync + 'static {
    const ID_PREFIX: &'static str;
    /// Value of `object` of a complete response.
    const OBJECT: &'static str;
    /// Value of `object` of a chunk.
    const CHUNK_OBJECT: &'static str;
    type Choice: Serialize + Send;

    /// Choice of a complete response.
    fn choice(&self, state: &AppState, index: usize, output: ChoiceOutput) -> Self::Choice;

    /// Chunk sent before the first token of a choice, if any.
    fn opening_chunk(&self, state: &AppState, index: usize, prompt: Option<&ChoicePrompt>) -> Option<Value>;

    /// Choices of the chunks of one token.
    fn token_chunks(&mut self, state: &AppState, index: usize, token: &TokenOutput) -> Vec<Value>;

    /// Choices of the chunks at the end of a choice.
    fn finish_chunks(&mut self, index: usize, finish: &'static str) -> Vec<Value>;
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
    pub prompt_parts: PromptParts,
    pub best_of: Option<BestOf>,
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
    let CompletionRun { model, stream, prompt_parts, best_of, generation } = run;
    let choices_per_prompt = generation.choices_per_prompt as usize;
    let reference = resolve_model(state, &model)?;
    let running = inference::generate(state, caller, reference.as_ref(), generation).await;
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
                prompt_parts,
                choices_per_prompt,
                prompt_tokens: 0,
                completion_tokens: 0,
            },
        )),
        None => {
            let collected = collect(running, prompt_parts, choices_per_prompt).await?;
            let outputs = match best_of {
                Some(best_of) => best_of.select(collected.outputs, choices_per_prompt),
                None => collected.outputs,
            };
            write_body(state, meta, format, outputs, collected.usage).await
        }
    }
}

/// Output of all sequences of a request.
struct Collected {
    outputs: Vec<ChoiceOutput>,
    usage: Usage,
}

async fn collect(
    mut running: RunningGeneration,
    prompt_parts: PromptParts,
    choices_per_prompt: usize,
) -> Result<Collected> {
    let (mut outputs, mut prompt_tokens, mut completion_tokens) = (Vec::new(), 0, 0);
    let prompts = choice_prompts(&mut running, prompt_parts, choices_per_prompt).await?;
    for (index, (generation, prompt)) in running.streams.into_iter().zip(prompts).enumerate() {
        // The tokens of a prompt count once, however many choices it has.
        prompt_tokens += if index.is_multiple_of(choices_per_prompt) { generation.prompt_tokens } else { 0 };
        let completion = generation.collect().await?;
        completion_tokens += completion.tokens.len();
        let finish_reason = finish_reason_name(completion.finish_reason);
        let mut output = ChoiceOutput { prompt, text: completion.text, tokens: completion.tokens, finish_reason };
        let echoed = output.prompt.as_ref().map_or(0, ChoicePrompt::echoed_characters);
        output.tokens.iter_mut().for_each(|token| token.text_offset += echoed);
        outputs.push(output);
    }
    Ok(Collected { outputs, usage: Usage::new(prompt_tokens, completion_tokens) })
}

async fn write_body<F: CompletionFormat>(
    state: &AppState,
    meta: CompletionMeta,
    format: F,
    outputs: Vec<ChoiceOutput>,
    usage: Usage,
) -> ApiResult<Response> {
    let app_state = state.clone();
    let values = outputs.iter().map(ChoiceOutput::logprob_count).sum();
    let write = move || {
        let choice = |(index, output)| format.choice(&app_state, index, output);
        let choices = outputs.into_iter().enumerate().map(choice).collect();
        let CompletionMeta { id, created, model } = meta;
        serde_json::to_vec(&CompletionBody { id, object: F::OBJECT, created, model, choices, usage })
    };
    let json = compute_inline_or_blocking(values, write).await?.context("writing a completion")?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

/// Runs `compute`, which converts `values` log probabilities: many of them on a blocking thread.
async fn compute_inline_or_blocking<T: Send + 'static>(
    values: usize,
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    match values <= INLINE_LOGPROBS {
        true => Ok(compute()),
        false => spawn_blocking(compute).await.context("writing log probabilities"),
    }
}

fn stream_chunks<F: CompletionFormat>(
    state: &AppState,
    mut running: RunningGeneration,
    mut format: F,
    mut chunks: ChunkWriter,
) -> Response {
    let app_state = state.clone();
    let events = async move {
        let prompts = choice_prompts(&mut running, chunks.prompt_parts, chunks.choices_per_prompt).await;
        let echoed: Vec<usize> =
            prompts.iter().flatten().map(|prompt| prompt.as_ref().map_or(0, ChoicePrompt::echoed_characters)).collect();
        let opening = match prompts {
            Ok(prompts) => opening_choices(&app_state, &format, prompts).await,
            Err(error) => Err(error),
        };
        let opening = match opening {
            Ok(choices) => choices.into_iter().map(|choice| chunks.choice_event(choice)).collect(),
            Err(error) => {
                running.streams.clear();
                chunks.failure_events(error)
            }
        };
        let generated = event_stream(running).flat_map(move |event| {
            stream::iter(match event {
                StreamEvent::Token { index, mut token } => {
                    token.text_offset += echoed[index];
                    chunks.choice_events(format.token_chunks(&app_state, index, &token))
                }
                StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => {
                    chunks.count_tokens(index, prompt_tokens, completion_tokens);
                    chunks.choice_events(format.finish_chunks(index, finish_reason_name(finish)))
                }
                StreamEvent::Failed(failure) => chunks.failure_events(failure),
                StreamEvent::Done => chunks.final_events(),
            })
        });
        stream::iter(opening).chain(generated)
    };
    sse::sse_response(state, stream::once(events).flatten())
}

/// Choices of the chunks before the first token.
async fn opening_choices<F: CompletionFormat>(
    state: &AppState,
    format: &F,
    prompts: Vec<Option<ChoicePrompt>>,
) -> Result<Vec<Value>> {
    let (app_state, format) = (state.clone(), format.clone());
    let values = prompts.iter().flatten().map(ChoicePrompt::logprob_count).sum();
    let convert = move || {
        let choice =
            |(index, prompt): (usize, Option<ChoicePrompt>)| format.opening_chunk(&app_state, index, prompt.as_ref());
        prompts.into_iter().enumerate().filter_map(choice).collect()
    };
    compute_inline_or_blocking(values, convert).await
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
    prompt_parts: PromptParts,
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

    /// Events of a failed generation. No token counts follow.
    fn failure_events(&mut self, failure: Error) -> Vec<Event> {
        self.options.include_usage = false;
        vec![sse::json_event(&openai_error::error_body(&ApiError::from(failure), &self.meta.id))]
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

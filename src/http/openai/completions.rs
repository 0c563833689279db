//! `POST /v1/completions`.

use super::CompletionMeta;
use super::chat::IgnoredFields;
use super::logprobs::CompletionLogprobs;
use super::request::{StopSequences, StreamOptions, reject_if, start_generation};
use super::streaming::ChunkWriter;
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::extract::Json;
use crate::http::generate::{Usage, finish_reason};
use crate::http::problem_responses::{BadRequest, NotFound, ServiceUnavailable};
use crate::http::response_format::ResponseFormatParam;
use crate::http::sampling_options::SamplingOptions;
use crate::http::sse::{self, TokenStream};
use crate::http::state::AppState;
use crate::serving::generation::sampling::SamplingParams;
use crate::serving::generation::{Completion, Prompt, StopOutput};
use crate::serving::{GenerationRequest, RunningGeneration};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Tokens of a completion where a request does not say how many, as OpenAI has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "stories", "prompt": "Once upon a time", "max_tokens": 32}))]
pub struct CompletionRequest {
    pub model: String,
    pub prompt: PromptInput,
    /// Default 16.
    pub max_tokens: Option<u32>,
    pub n: Option<u32>,
    pub stop: Option<StopSequences>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// So many of the likeliest tokens are told beside each.
    pub logprobs: Option<u32>,
    /// Whether the prompt is put in front of the text: only `false`.
    pub echo: Option<bool>,
    pub response_format: Option<ResponseFormatParam>,
    /// Not done here.
    pub suffix: Option<String>,
    /// Only as many as `n`.
    pub best_of: Option<u32>,
    #[serde(flatten)]
    #[allow(dead_code, reason = "they have no effect")]
    pub ignored: IgnoredFields,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

/// A text, tokens, or several of either.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PromptInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

impl PromptInput {
    fn into_prompts(self) -> Vec<Prompt> {
        match self {
            Self::Text(text) => vec![Prompt::Text(text)],
            Self::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
            Self::Tokens(ids) => vec![Prompt::Tokens(ids)],
            Self::TokenLists(token_lists) => token_lists.into_iter().map(Prompt::Tokens).collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "cmpl-0193", "object": "text_completion", "created": 1767605400, "model": "stories",
    "choices": [{"index": 0, "text": " there was a city by the river", "logprobs": null, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}
}))]
pub struct CompletionResponse {
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    /// Prompt by prompt.
    pub choices: Vec<Choice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
pub struct Choice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: &'static str,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_completion))
}

/// Completions
///
/// As OpenAI's older call of the same name; `top_k`, `min_p`, `repetition_penalty` and `response_format` beside it. `echo`, `suffix` and `best_of`
/// are refused.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "create_completion", tag = "openai", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The texts, or a stream of them.", content(
            (CompletionResponse = "application/json"), (String = "text/event-stream"),
        )),
        BadRequest, NotFound, ServiceUnavailable,
    ),
)]
async fn create_completion(
    state: AppState,
    caller: Caller,
    Json(request): Json<CompletionRequest>,
) -> ApiResult<Response> {
    let meta = CompletionMeta::new("cmpl", request.model.clone());
    let (is_streamed, options) = (request.stream == Some(true), request.stream_options.unwrap_or_default());
    let (model, choices) = (request.model.clone(), request.n.unwrap_or(1));
    let choices_per_prompt = choices as usize;
    let running = start_generation(&state, &caller, &model, generation_request(request, choices)?).await?;
    match is_streamed {
        true => Ok(stream_completion(
            &state,
            running,
            ChunkWriter { meta, object: "text_completion", options, choices_per_prompt },
        )),
        false => Ok(axum::Json(collect_completion(&state, meta, running, choices_per_prompt).await?).into_response()),
    }
}

fn generation_request(request: CompletionRequest, choices: u32) -> Result<GenerationRequest> {
    reject_if(request.echo == Some(true), "echo", "the prompt is not answered here")?;
    reject_if(request.suffix.is_some_and(|suffix| !suffix.is_empty()), "suffix", "is not known here")?;
    reject_if(request.best_of.is_some_and(|best| best != choices), "best_of", "is only known where it is n")?;
    Ok(GenerationRequest {
        prompts: request.prompt.into_prompts(),
        sampling: SamplingParams { logprobs: request.logprobs, ..request.sampling.settings()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::Exclude,
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: Some(request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        choices_per_prompt: choices,
    })
}

async fn collect_completion(
    state: &AppState,
    meta: CompletionMeta,
    running: RunningGeneration,
    choices_per_prompt: usize,
) -> Result<CompletionResponse> {
    let (mut choices, mut prompt_tokens, mut completion_tokens) = (Vec::new(), 0, 0);
    for (index, generation) in running.streams.into_iter().enumerate() {
        // Of each prompt once, however many choices it has.
        prompt_tokens += if index % choices_per_prompt == 0 { generation.prompt_tokens } else { 0 };
        let Completion { text, tokens, finish_reason: finish } = generation.collect().await?;
        completion_tokens += tokens.len();
        let logprobs = CompletionLogprobs::from_tokens(state, &tokens).filter(|_| !tokens.is_empty());
        choices.push(Choice { index, text, logprobs, finish_reason: finish_reason(finish) });
    }
    let CompletionMeta { id, created, model } = meta;
    let usage = Usage::new(prompt_tokens, completion_tokens);
    Ok(CompletionResponse { id, object: "text_completion", created, model, choices, usage })
}

fn stream_completion(state: &AppState, running: RunningGeneration, chunks: ChunkWriter) -> Response {
    let app_state = state.clone();
    let events = chunks.into_events(TokenStream::new(running), move |index, token, finish| {
        let text = token.map_or("", |chosen| chosen.text_delta.as_str());
        let logprobs =
            token.and_then(|chosen| CompletionLogprobs::from_tokens(&app_state, std::slice::from_ref(chosen)));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
    });
    sse::sse_response(state, events)
}

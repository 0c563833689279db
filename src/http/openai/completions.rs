//! `POST /v1/completions`: request and response types, and their mapping to generation.

use super::completion::{
    ChoiceOutput, CompletionBody, CompletionFormat, CompletionLogprobs, CompletionRun, StreamOptions, respond,
};
use super::field_rules::{GENERATION_FIELDS, Rule};
use super::fields::{OpenAiJson, OpenAiRequest};
use super::object_fields::{COMPLETION_OBJECTS, ObjectFields};
use super::request::{StopSequences, unsupported_field};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::generation::params::{ResponseFormatParam, SamplingOptions};
use crate::http::json;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::state::AppState;
use crate::serving::GenerationRequest;
use crate::serving::generation::sampling::SamplingParams;
use crate::serving::generation::{Prompt, StopOutput, TokenOutput};
use axum::response::Response;
use espalier_core::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Default of `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: u32 = 16;

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "stories", "prompt": "Once upon a time", "max_tokens": 32}))]
pub struct CompletionRequest {
    /// Base model's name, or an adapter's name, id or `name@version`.
    pub model: String,
    /// Text or token ids, or a list of either.
    pub prompt: PromptInput,
    /// Maximum number of generated tokens per choice. Default 16.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Number of choices per prompt. Default 1.
    #[schema(minimum = 1, maximum = 128)]
    pub n: Option<u32>,
    /// Generation ends before the first of these texts.
    pub stop: Option<StopSequences>,
    /// Sends chunks as server-sent events.
    pub stream: Option<bool>,
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub stream_options: Option<StreamOptions>,
    /// Returns log probabilities, with this many most likely tokens per token.
    #[schema(maximum = 20)]
    pub logprobs: Option<u32>,
    /// Only `false` is supported.
    pub echo: Option<bool>,
    /// Format that the generated text must have.
    pub response_format: Option<ResponseFormatParam>,
    /// Not supported.
    pub suffix: Option<String>,
    /// Only the value of `n` is supported.
    pub best_of: Option<u32>,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

impl OpenAiRequest for CompletionRequest {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "prompt",
        "max_tokens",
        "n",
        "stop",
        "stream",
        "stream_options",
        "logprobs",
        "echo",
        "response_format",
        "suffix",
        "best_of",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
    ];
    const INTEGERS: &'static [&'static str] = &["max_tokens", "n", "logprobs", "best_of", "top_k", "seed"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &["max_tokens", "top_k", "seed"];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = GENERATION_FIELDS;
    const OBJECTS: &'static [ObjectFields] = COMPLETION_OBJECTS;
}

/// Text or token ids, or a list of either.
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

/// Choice of a text completion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
pub struct Choice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` at the end of the text or a stop sequence, `length` if `max_tokens` was reached.
    pub finish_reason: &'static str,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_completion))
}

/// Create a text completion
///
/// Compatible with OpenAI's legacy endpoint; accepts `top_k`, `min_p`, `repetition_penalty` and `response_format` in addition.
/// `echo`, `suffix` and a `best_of` other than `n` are rejected.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "create_completion", tag = "openai", request_body = CompletionRequest,
    responses(
        (status = 200, description = "Text completion, or a stream of `text_completion` objects.", content(
            (CompletionBody<Choice> = "application/json", example = json!({
                "id": "cmpl-0193", "object": "text_completion", "created": 1767605400, "model": "stories",
                "choices": [{"index": 0, "text": " there was a city by the river", "logprobs": null, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}
            })),
            (String = "text/event-stream"),
        )),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn create_completion(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<CompletionRequest>,
) -> ApiResult<Response> {
    Ok(ignored.add_to(respond(&state, &caller, to_completion_run(request)?, TextFormat).await?))
}

fn to_completion_run(request: CompletionRequest) -> Result<CompletionRun> {
    let choices_per_prompt = request.n.unwrap_or(1);
    if request.echo == Some(true) {
        return Err(unsupported_field("echo", "is not supported"));
    }
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(unsupported_field("suffix", "is not supported"));
    }
    if request.best_of.is_some_and(|best| best != choices_per_prompt) {
        return Err(unsupported_field("best_of", "must be equal to n"));
    }
    let generation = GenerationRequest {
        prompts: request.prompt.into_prompts(),
        sampling: SamplingParams { logprobs: request.logprobs, ..request.sampling.to_sampling_params()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::Exclude,
        shown_special_tokens: Vec::new(),
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: Some(request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        choices_per_prompt,
    };
    let stream = (request.stream == Some(true)).then(|| request.stream_options.unwrap_or_default());
    Ok(CompletionRun { model: request.model, stream, generation })
}

struct TextFormat;

impl CompletionFormat for TextFormat {
    const ID_PREFIX: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    type Choice = Choice;

    fn choice(&self, state: &AppState, index: usize, output: ChoiceOutput) -> Choice {
        let ChoiceOutput { text, tokens, finish_reason } = output;
        let logprobs = CompletionLogprobs::from_tokens(state, &tokens).filter(|_| !tokens.is_empty());
        Choice { index, text, logprobs, finish_reason }
    }

    fn opening_chunk(&self, _index: usize) -> Option<Value> {
        None
    }

    fn token_chunks(&mut self, state: &AppState, index: usize, token: &TokenOutput) -> Vec<Value> {
        let logprobs = CompletionLogprobs::from_tokens(state, std::slice::from_ref(token));
        vec![json!({"index": index, "text": token.text_delta, "logprobs": logprobs, "finish_reason": null})]
    }

    fn finish_chunks(&mut self, index: usize, finish: &'static str) -> Vec<Value> {
        vec![json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish})]
    }
}

//! `POST /v1/completions`: request and response types, and their mapping to generation.

use super::best_of::BestOf;
use super::choice_output::{ChoiceOutput, ChoicePrompt, PromptParts};
use super::completion::{CompletionBody, CompletionFormat, CompletionRun, StreamOptions, respond};
use super::field_rules::{COMPLETION_FIELDS, GENERATION_FIELDS, Rule};
use super::fields::{FieldNames, OpenAiJson, OpenAiRequest};
use super::logprobs::{CompletionLogprobs, PromptPosition, prompt_positions};
use super::object_fields::{COMPLETION_OBJECTS, ObjectFields};
use super::request::{StopSequences, TokenLimit, unsupported_field};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::generation::params::{ResponseFormatParam, SamplingOptions};
use crate::http::json;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::state::AppState;
use crate::serving::GenerationRequest;
use crate::serving::generation::sampling::SamplingParams;
use crate::serving::generation::{MAX_CHOICES, MaxTokens, Prompt, RequestFields, StopOutput, TokenOutput};
use axum::response::Response;
use espalier_core::error::{Error, Result};
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
    /// Maximum number of generated tokens per choice; −1 and numbers beyond the context mean all that it leaves. With 0 only the prompt
    /// is computed. Default 16.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub max_tokens: Option<TokenLimit>,
    /// Number of choices per prompt. Default 1.
    #[schema(minimum = 1, maximum = 128)]
    pub n: Option<u32>,
    /// Generation ends before the first of these texts.
    pub stop: Option<StopSequences>,
    /// Whether the text ends with the stop sequence that ended it. Default false.
    pub include_stop_str_in_output: Option<bool>,
    /// Sends chunks as server-sent events.
    pub stream: Option<bool>,
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub stream_options: Option<StreamOptions>,
    /// Returns log probabilities, with this many most likely tokens per token.
    #[schema(maximum = 20)]
    pub logprobs: Option<u32>,
    /// Returns the prompt before the generated text, with `logprobs` also the log probabilities of its tokens.
    pub echo: Option<bool>,
    /// Returns log probabilities of the prompt in vLLM's format, with this many most likely tokens per token.
    #[schema(maximum = 20)]
    pub prompt_logprobs: Option<u32>,
    /// Format that the generated text must have.
    pub response_format: Option<ResponseFormatParam>,
    /// Only an empty text is supported.
    pub suffix: Option<String>,
    /// Number of texts generated per prompt, of which the `n` with the highest mean log probability are returned. Default `n`; not with
    /// `stream`.
    #[schema(minimum = 1, maximum = 128)]
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
        "include_stop_str_in_output",
        "stream",
        "stream_options",
        "logprobs",
        "echo",
        "prompt_logprobs",
        "response_format",
        "suffix",
        "best_of",
    ];
    const INTEGERS: &'static [&'static str] = &["max_tokens", "n", "logprobs", "prompt_logprobs", "best_of"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const FLATTENED: FieldNames = SamplingOptions::FIELD_NAMES;
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = GENERATION_FIELDS;
    const OWN_FIELDS: &'static [(&'static str, Rule)] = COMPLETION_FIELDS;
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
    /// Only with `prompt_logprobs`: per token of the prompt `null` for the first, and the log probabilities by token id for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<PromptPosition>>>,
    /// `stop` at the end of the text or a stop sequence, `length` if `max_tokens` was reached.
    pub finish_reason: &'static str,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_completion))
}

/// Create a text completion
///
/// Compatible with OpenAI's legacy endpoint; accepts `top_k`, `min_p`, `repetition_penalty`, `response_format` and `prompt_logprobs` in
/// addition. `echo` with `logprobs` and `"max_tokens": 0` scores a text. `suffix` is rejected.
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
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        let advice = "is not supported: the base models write after a text, not inside it; leave it out";
        return Err(unsupported_field("/suffix", advice));
    }
    for (pointer, count) in [("/n", request.n), ("/best_of", request.best_of)] {
        if count.is_some_and(|count| !(1..=MAX_CHOICES).contains(&count)) {
            return Err(Error::invalid_field(pointer, format!("must be between 1 and {MAX_CHOICES}")));
        }
    }
    let kept = request.n.unwrap_or(1);
    let best_of = best_of(request.best_of, kept, request.stream == Some(true), request.logprobs.is_some())?;
    let prompt_parts = PromptParts {
        echo: request.echo == Some(true),
        echo_logprobs: request.logprobs,
        prompt_logprobs: request.prompt_logprobs,
    };
    let logprobs = request.logprobs.or(best_of.map(|_| 0));
    let generation = GenerationRequest {
        prompts: request.prompt.into_prompts(),
        fields: RequestFields { prompts: "prompt", logprobs: "logprobs", format: "/response_format" },
        sampling: SamplingParams { logprobs, ..request.sampling.to_sampling_params()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::from_option(request.include_stop_str_in_output),
        shown_special_tokens: Vec::new(),
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: request.max_tokens.map_or(MaxTokens::AtMost(DEFAULT_MAX_TOKENS), TokenLimit::or_nothing),
        choices_per_prompt: request.best_of.unwrap_or(kept),
        prompt_output: prompt_parts.prompt_output(),
    };
    let stream = (request.stream == Some(true)).then(|| request.stream_options.unwrap_or_default());
    Ok(CompletionRun { model: request.model, stream, prompt_parts, best_of, generation })
}

/// Selection of the returned texts, where fewer are returned than generated.
fn best_of(best_of: Option<u32>, kept: u32, is_streamed: bool, keeps_logprobs: bool) -> Result<Option<BestOf>> {
    match best_of {
        Some(best_of) if best_of < kept => {
            Err(Error::invalid_field("/best_of", format!("must be at least n, which is {kept}")))
        }
        Some(best_of) if best_of > kept && is_streamed => {
            Err(unsupported_field("/best_of", "must be n in a stream: the best text is known only at the end"))
        }
        Some(best_of) if best_of > kept => Ok(Some(BestOf { kept: kept as usize, keeps_logprobs })),
        _ => Ok(None),
    }
}

#[derive(Clone)]
struct TextFormat;

impl CompletionFormat for TextFormat {
    const ID_PREFIX: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    type Choice = Choice;

    fn choice(&self, state: &AppState, index: usize, output: ChoiceOutput) -> Choice {
        let ChoiceOutput { prompt, text, tokens, finish_reason } = output;
        let prompt = prompt.as_ref();
        let logprobs = logprobs(state, prompt, &tokens);
        let echoed = prompt.filter(|prompt| prompt.parts.echo);
        let text = echoed.map_or(text.clone(), |prompt| format!("{}{text}", prompt.text.text));
        let prompt_logprobs = prompt.and_then(|prompt| prompt_positions(state, prompt));
        Choice { index, text, logprobs, prompt_logprobs, finish_reason }
    }

    fn opening_chunk(&self, state: &AppState, index: usize, prompt: Option<&ChoicePrompt>) -> Option<Value> {
        let prompt = prompt?;
        let text = if prompt.parts.echo { prompt.text.text.as_str() } else { "" };
        let logprobs = logprobs(state, Some(prompt), &[]);
        let mut choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null});
        if let Some(positions) = prompt_positions(state, prompt) {
            choice["prompt_logprobs"] = json!(positions);
        }
        Some(choice)
    }

    fn token_chunks(&mut self, state: &AppState, index: usize, token: &TokenOutput) -> Vec<Value> {
        let logprobs = logprobs(state, None, std::slice::from_ref(token));
        vec![json!({"index": index, "text": token.text_delta, "logprobs": logprobs, "finish_reason": null})]
    }

    fn finish_chunks(&mut self, index: usize, finish: &'static str) -> Vec<Value> {
        vec![json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish})]
    }
}

/// `None` if the request did not ask for them, or if there is no token.
fn logprobs(state: &AppState, prompt: Option<&ChoicePrompt>, tokens: &[TokenOutput]) -> Option<CompletionLogprobs> {
    let logprobs = CompletionLogprobs::new(|id| state.serving.token_bytes(id), prompt, tokens)?;
    Some(logprobs).filter(|logprobs| !logprobs.tokens.is_empty())
}

//! `POST /v1/chat/completions`.

use super::CompletionMeta;
use super::logprobs::ChatLogprobs;
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
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, FieldError, Problem, Result};
use espalier_core::model::chat::{Json as Variable, Message, RenderOptions};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "support-answers", "messages": [{"role": "user", "content": "Where is my card?"}],
    "max_tokens": 64, "temperature": 0.0}))]
pub struct ChatRequest {
    pub model: String,
    /// Objects with `role` and `content`, and what else the base's chat template knows.
    #[schema(value_type = Vec<Object>)]
    pub messages: Vec<Message>,
    /// Functions that the template is told of. What the model says is answered as text.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Variable>,
    /// `auto` or `none`.
    pub tool_choice: Option<Value>,
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    pub n: Option<u32>,
    pub stop: Option<StopSequences>,
    #[serde(default)]
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub logprobs: Option<bool>,
    /// Needs `logprobs`.
    pub top_logprobs: Option<u32>,
    pub response_format: Option<ResponseFormatParam>,
    /// Further variables of the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<BTreeMap<String, Variable>>,
    #[serde(flatten)]
    #[allow(dead_code, reason = "they have no effect")]
    pub ignored: IgnoredFields,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

/// What OpenAI keeps with a request, and what has no effect on its answer: read, and not used.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = UnusedFields)]
#[allow(dead_code, reason = "clients send them, so they are no unknown fields")]
pub struct IgnoredFields {
    pub user: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    pub store: Option<bool>,
    pub parallel_tool_calls: Option<bool>,
    pub prompt_cache_key: Option<String>,
    pub safety_identifier: Option<String>,
    pub service_tier: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "chatcmpl-0193", "object": "chat.completion", "created": 1767605400, "model": "support-answers",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Cards take up to seven working days."},
        "logprobs": null, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
}))]
pub struct ChatCompletion {
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<Choice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub struct Choice {
    pub index: usize,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatAnswer)]
pub struct AssistantMessage {
    /// `assistant`
    pub role: &'static str,
    pub content: String,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_chat_completion))
}

/// Chat
///
/// As OpenAI's call of the same name; `top_k`, `min_p`, `repetition_penalty` and `chat_template_kwargs` beside it. What is not
/// done here (a forced `tool_choice`) is refused.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "create_chat_completion", tag = "openai", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or a stream of `chat.completion.chunk`s.", content(
            (ChatCompletion = "application/json"), (String = "text/event-stream"),
        )),
        BadRequest, NotFound, ServiceUnavailable,
    ),
)]
async fn create_chat_completion(
    state: AppState,
    caller: Caller,
    Json(request): Json<ChatRequest>,
) -> ApiResult<Response> {
    let (meta, choices) = (CompletionMeta::new("chatcmpl", request.model.clone()), request.n.unwrap_or(1));
    let is_streamed = request.stream == Some(true);
    let options = request.stream_options.unwrap_or_default();
    let model = request.model.clone();
    let running = start_generation(&state, &caller, &model, generation_request(request, choices)?).await?;
    match is_streamed {
        true => {
            let choices_per_prompt = choices as usize;
            Ok(stream_completion(
                &state,
                running,
                ChunkWriter { meta, object: "chat.completion.chunk", options, choices_per_prompt },
            ))
        }
        false => Ok(axum::Json(collect_completion(&state, meta, running).await?).into_response()),
    }
}

fn generation_request(request: ChatRequest, choices: u32) -> Result<GenerationRequest> {
    let is_supported = |choice: &Value| choice.is_null() || choice == "auto" || choice == "none";
    reject_if(
        !request.tool_choice.as_ref().is_none_or(is_supported),
        "tool_choice",
        "only \"auto\" and \"none\" are known here",
    )?;
    let logprobs = (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0));
    reject_if(request.top_logprobs.is_some() && logprobs.is_none(), "top_logprobs", "needs \"logprobs\": true")?;
    let template_options = RenderOptions {
        tools: request.tools.filter(|_| request.tool_choice != Some(json!("none"))),
        variables: request.chat_template_kwargs.unwrap_or_default(),
        ..RenderOptions::default()
    };
    Ok(GenerationRequest {
        prompts: vec![Prompt::Messages { messages: join_text_parts(request.messages)?, template_options }],
        sampling: SamplingParams { logprobs, ..request.sampling.settings()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::Exclude,
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        choices_per_prompt: choices,
    })
}

/// Contents in parts are put together where all of them are text.
fn join_text_parts(messages: Vec<Message>) -> Result<Vec<Message>> {
    let join_parts = |(index, message): (usize, Message)| {
        message.with_flattened_content().map_err(|part| {
            let field_error = FieldError::at_pointer(
                format!("/messages/{index}/content"),
                "only parts of the type \"text\" are read",
            );
            let detail = format!("messages.{index}.content: a part of the type {part} is not read here: send text");
            Error::Invalid(Problem::new("invalid_body", detail).with_errors(vec![field_error]))
        })
    };
    messages.into_iter().enumerate().map(join_parts).collect()
}

async fn collect_completion(
    state: &AppState,
    meta: CompletionMeta,
    running: RunningGeneration,
) -> Result<ChatCompletion> {
    let (mut choices, mut prompt_tokens, mut completion_tokens) = (Vec::new(), 0, 0);
    for (index, generation) in running.streams.into_iter().enumerate() {
        prompt_tokens = generation.prompt_tokens;
        let Completion { text, tokens, finish_reason: finish } = generation.collect().await?;
        completion_tokens += tokens.len();
        let message = AssistantMessage { role: "assistant", content: text };
        let logprobs = ChatLogprobs::from_tokens(state, &tokens).filter(|_| !tokens.is_empty());
        choices.push(Choice { index, message, logprobs, finish_reason: finish_reason(finish) });
    }
    let CompletionMeta { id, created, model } = meta;
    let usage = Usage::new(prompt_tokens, completion_tokens);
    Ok(ChatCompletion { id, object: "chat.completion", created, model, choices, usage })
}

fn stream_completion(state: &AppState, running: RunningGeneration, chunks: ChunkWriter) -> Response {
    let role_events = (0..running.streams.len()).map(|index| {
        chunks.choices_event(json!([{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": null,
            "finish_reason": null}]))
    });
    let role_events: Vec<Event> = role_events.collect();
    let app_state = state.clone();
    let events = chunks.into_events(TokenStream::new(running), move |index, token, finish| {
        let delta = token.map_or_else(|| json!({}), |chosen| json!({"content": chosen.text_delta}));
        let logprobs = token.and_then(|chosen| ChatLogprobs::from_tokens(&app_state, std::slice::from_ref(chosen)));
        json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
    });
    sse::sse_response(state, stream::iter(role_events).chain(events))
}

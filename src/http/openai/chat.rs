//! `POST /v1/chat/completions`: request and response types, and their mapping to generation.

use super::completion::{
    ChatLogprobs, ChoiceOutput, CompletionBody, CompletionFormat, CompletionRun, StreamOptions, respond,
};
use super::field_rules::{GENERATION_FIELDS, Rule};
use super::fields::{OpenAiJson, OpenAiRequest};
use super::object_fields::{CHAT_OBJECTS, ObjectFields};
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
use espalier_core::error::{Error, Result};
use espalier_core::model::chat::{Json as Variable, Message, RenderOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "support-answers", "messages": [{"role": "user", "content": "Where is my card?"}],
    "max_tokens": 64, "temperature": 0.0}))]
pub struct ChatRequest {
    /// Base model's name, or an adapter's name, id or `name@version`.
    pub model: String,
    /// Objects with `role` and `content`, and any other fields that the chat template reads.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    pub messages: Vec<Message>,
    /// Function definitions, passed to the chat template. Tool calls in the output are returned as text.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Variable>,
    /// `auto` or `none`.
    pub tool_choice: Option<Value>,
    /// Maximum number of generated tokens per choice.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Alias of `max_tokens`, which it overrides.
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u32>,
    /// Number of choices. Default 1.
    #[schema(minimum = 1, maximum = 128)]
    pub n: Option<u32>,
    /// Generation ends before the first of these texts.
    pub stop: Option<StopSequences>,
    /// Sends chunks as server-sent events.
    pub stream: Option<bool>,
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub stream_options: Option<StreamOptions>,
    /// Returns the log probability of each token.
    pub logprobs: Option<bool>,
    /// Number of most likely tokens returned per token; requires `logprobs`.
    #[schema(maximum = 20)]
    pub top_logprobs: Option<u32>,
    /// Format that the generated text must have.
    pub response_format: Option<ResponseFormatParam>,
    /// Additional variables of the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<BTreeMap<String, Variable>>,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

impl OpenAiRequest for ChatRequest {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "messages",
        "tools",
        "tool_choice",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "response_format",
        "chat_template_kwargs",
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
    const INTEGERS: &'static [&'static str] =
        &["max_tokens", "max_completion_tokens", "n", "top_logprobs", "top_k", "seed"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &["max_tokens", "max_completion_tokens", "top_k", "seed"];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = GENERATION_FIELDS;
    const OBJECTS: &'static [ObjectFields] = CHAT_OBJECTS;
}

/// Choice of a chat completion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub struct Choice {
    pub index: usize,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` at the end of the text or a stop sequence, `length` if `max_tokens` was reached.
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
pub struct AssistantMessage {
    /// `assistant`
    pub role: &'static str,
    pub content: String,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_chat_completion))
}

/// Create a chat completion
///
/// Compatible with OpenAI's endpoint; accepts `top_k`, `min_p`, `repetition_penalty` and `chat_template_kwargs` in addition. A
/// `tool_choice` other than `auto` or `none` is rejected.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "create_chat_completion", tag = "openai", request_body = ChatRequest,
    responses(
        (status = 200, description = "Chat completion, or a stream of `chat.completion.chunk` objects.", content(
            (CompletionBody<Choice> = "application/json", example = json!({
                "id": "chatcmpl-0193", "object": "chat.completion", "created": 1767605400, "model": "support-answers",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "Cards take up to seven working days."},
                    "logprobs": null, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
            })),
            (String = "text/event-stream"),
        )),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn create_chat_completion(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<ChatRequest>,
) -> ApiResult<Response> {
    Ok(ignored.add_to(respond::<ChatFormat>(&state, &caller, to_completion_run(request)?).await?))
}

fn to_completion_run(request: ChatRequest) -> Result<CompletionRun> {
    let is_supported = |choice: &Value| choice.is_null() || choice == "auto" || choice == "none";
    if !request.tool_choice.as_ref().is_none_or(is_supported) {
        return Err(unsupported_field("tool_choice", "only \"auto\" and \"none\" are supported"));
    }
    let logprobs = (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0));
    if request.top_logprobs.is_some() && logprobs.is_none() {
        return Err(unsupported_field("top_logprobs", "needs \"logprobs\": true"));
    }
    let template_options = RenderOptions {
        tools: request.tools.filter(|_| request.tool_choice != Some(json!("none"))),
        variables: request.chat_template_kwargs.unwrap_or_default(),
        ..RenderOptions::default()
    };
    let generation = GenerationRequest {
        prompts: vec![Prompt::Messages { messages: normalize_messages(request.messages)?, template_options }],
        sampling: SamplingParams { logprobs, ..request.sampling.to_sampling_params()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::Exclude,
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        choices_per_prompt: request.n.unwrap_or(1),
    };
    let stream = (request.stream == Some(true)).then(|| request.stream_options.unwrap_or_default());
    Ok(CompletionRun { model: request.model, stream, generation })
}

/// Messages as training reads them: the parts of a content are joined, and the arguments of tool calls are parsed.
fn normalize_messages(messages: Vec<Message>) -> Result<Vec<Message>> {
    let normalize = |(index, message): (usize, Message)| {
        let message = message.with_flattened_content().map_err(|part| {
            let message = format!("a part of the type {part} is not supported: send text");
            Error::invalid_field(format!("/messages/{index}/content"), message)
        })?;
        message
            .with_tool_calls()
            .map_err(|reason| Error::invalid_field(format!("/messages/{index}/tool_calls"), reason))
    };
    messages.into_iter().enumerate().map(normalize).collect()
}

struct ChatFormat;

impl CompletionFormat for ChatFormat {
    const ID_PREFIX: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    type Choice = Choice;

    fn choice(state: &AppState, index: usize, output: ChoiceOutput) -> Choice {
        let ChoiceOutput { text, tokens, finish_reason } = output;
        let logprobs = ChatLogprobs::from_tokens(state, &tokens).filter(|_| !tokens.is_empty());
        Choice { index, message: AssistantMessage { role: "assistant", content: text }, logprobs, finish_reason }
    }

    fn opening_chunk(index: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        Some(json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}))
    }

    fn chunk_choice(
        state: &AppState,
        index: usize,
        token: Option<&TokenOutput>,
        finish: Option<&'static str>,
    ) -> Value {
        let delta = token.map_or_else(|| json!({}), |token| json!({"content": token.text_delta}));
        let logprobs = token.and_then(|token| ChatLogprobs::from_tokens(state, std::slice::from_ref(token)));
        json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;

    #[test]
    fn a_wrong_field_is_located_by_its_pointer() {
        for (fields, pointer) in [
            (r#""temperature": "hot""#, "/temperature"),
            (r#""n": "two""#, "/n"),
            (
                r#""response_format": {"type": "json_schema", "json_schema": {"name": "a", "x": 1}}"#,
                "/response_format/json_schema/x",
            ),
        ] {
            let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "a"}}], {fields}}}"#);
            let error = json::parse::<ChatRequest>(body.as_bytes()).unwrap_err();
            let found = serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"].clone();
            assert_eq!(found, pointer, "{}", error.detail);
        }
    }
}

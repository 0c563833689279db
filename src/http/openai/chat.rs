//! `POST /v1/chat/completions`: request and response types, and their mapping to generation.

use super::chat_format::{ChatFormat, Choice};
use super::choice_output::PromptParts;
use super::completion::{CompletionBody, CompletionRun, StreamOptions, respond};
use super::field_rules::{CHAT_FIELDS, GENERATION_FIELDS, Rule};
use super::fields::{FieldNames, OpenAiJson, OpenAiRequest};
use super::object_fields::{CHAT_OBJECTS, ObjectFields};
use super::prefill;
use super::request::{StopSequences, TokenLimit, unsupported_field};
use super::tool_definition::{self, ToolForm};
use super::tools::{CallableTools, ChatPrompt, PreparedChat};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::generation::messages;
use crate::http::generation::params::{ResponseFormatParam, SamplingOptions};
use crate::http::json;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::serving::GenerationRequest;
use crate::serving::generation::sampling::SamplingParams;
use crate::serving::generation::{MaxTokens, Prompt, PromptOutput, RequestFields, StopOutput};
use axum::response::Response;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::model::chat::{Json as Variable, Message, PromptEnd, RenderOptions};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    /// Functions that the model may call: objects with `type` and `function`.
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    pub tools: Option<Vec<Value>>,
    /// `none`, `auto` (default), `required`, `{"type": "function", …}` for one function, or `{"type": "allowed_tools", …}`.
    pub tool_choice: Option<Value>,
    /// Whether an answer may have several calls. Default true.
    pub parallel_tool_calls: Option<bool>,
    /// Continues the last message, which is the assistant's, instead of answering it.
    pub continue_final_message: Option<bool>,
    /// Whether the prompt ends with the beginning of an assistant's message. Default true.
    pub add_generation_prompt: Option<bool>,
    /// Maximum number of generated tokens per choice; −1 and numbers beyond the context mean all that it leaves.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub max_tokens: Option<TokenLimit>,
    /// Alias of `max_tokens`, which it overrides.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub max_completion_tokens: Option<TokenLimit>,
    /// Number of choices. Default 1.
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
        "parallel_tool_calls",
        "continue_final_message",
        "add_generation_prompt",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "include_stop_str_in_output",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "response_format",
        "chat_template_kwargs",
    ];
    const INTEGERS: &'static [&'static str] = &["max_tokens", "max_completion_tokens", "n", "top_logprobs"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const FLATTENED: FieldNames = SamplingOptions::FIELD_NAMES;
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = GENERATION_FIELDS;
    const OWN_FIELDS: &'static [(&'static str, Rule)] = CHAT_FIELDS;
    const OBJECTS: &'static [ObjectFields] = CHAT_OBJECTS;
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_chat_completion))
}

/// Create a chat completion
///
/// Compatible with OpenAI's endpoint; accepts `top_k`, `min_p`, `repetition_penalty`, `chat_template_kwargs`,
/// `continue_final_message` and `add_generation_prompt` in addition.
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
    let base = Arc::clone(&state.base);
    let prepare = move || to_completion_run(&base, request);
    let (run, format) = run_blocking("preparing a chat", prepare).await?;
    Ok(ignored.add_to(respond(&state, &caller, run, format).await?))
}

fn to_completion_run(base: &BaseModel, request: ChatRequest) -> Result<(CompletionRun, ChatFormat)> {
    let logprobs = (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0));
    if request.top_logprobs.is_some() && logprobs.is_none() {
        return Err(unsupported_field("/top_logprobs", "needs \"logprobs\": true"));
    }
    let definitions = tool_definition::parse(request.tools.as_deref().unwrap_or_default(), ToolForm::Nested)?;
    let tools = CallableTools::select(definitions, request.tool_choice.as_ref(), request.parallel_tool_calls)?;
    let template_options = RenderOptions {
        variables: request.chat_template_kwargs.unwrap_or_default(),
        prompt_end: prefill::prompt_end(
            &request.messages,
            request.continue_final_message,
            request.add_generation_prompt,
        )?,
        ..RenderOptions::default()
    };
    if template_options.prompt_end == PromptEnd::LastMessage
        && tools.as_ref().is_some_and(CallableTools::is_call_required)
    {
        let message = "a required call cannot continue a message: leave the continuation or the requirement out";
        return Err(Error::invalid_field("/tool_choice", message));
    }
    let messages = messages::prepare(base, request.messages, "/messages")?;
    let format = ResponseFormatParam::into_constraint(request.response_format);
    let prompt = ChatPrompt { messages, template_options, tools, format };
    let PreparedChat { messages, template_options, output } = prompt.prepare(base)?;
    let generation = GenerationRequest {
        prompts: vec![Prompt::Messages { messages, template_options }],
        fields: RequestFields { prompts: "messages", logprobs: "top_logprobs", format: "/response_format" },
        sampling: SamplingParams { logprobs, ..request.sampling.to_sampling_params()? },
        stop_sequences: StopSequences::into_vec(request.stop),
        stop_output: StopOutput::from_option(request.include_stop_str_in_output),
        shown_special_tokens: output.shown_special_tokens(),
        constraint: output.constraint,
        max_tokens: max_tokens(request.max_completion_tokens, request.max_tokens)?,
        choices_per_prompt: request.n.unwrap_or(1),
        prompt_output: PromptOutput::None,
    };
    let stream = (request.stream == Some(true)).then(|| request.stream_options.unwrap_or_default());
    let format = ChatFormat::new(output.parser, output.syntax);
    let run =
        CompletionRun { model: request.model, stream, prompt_parts: PromptParts::default(), best_of: None, generation };
    Ok((run, format))
}

fn max_tokens(max_completion_tokens: Option<TokenLimit>, max_tokens: Option<TokenLimit>) -> Result<MaxTokens> {
    match (max_completion_tokens, max_tokens) {
        (Some(limit), _) => limit.at_least_one("max_completion_tokens"),
        (None, Some(limit)) => limit.at_least_one("max_tokens"),
        (None, None) => Ok(MaxTokens::Default),
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

//! `POST /v1/responses`, stateless: request type, and its mapping to generation.

mod events;
mod input;
mod items;
mod output;
mod status;

use super::field_rules::{RESPONSES_FIELDS, Rule};
use super::fields::{FieldNames, OpenAiJson, OpenAiRequest};
use super::object_fields::{ObjectFields, RESPONSES_OBJECTS};
use super::request::{TokenLimit, name_missing_model, resolve_model, unsupported_field};
use super::tool_definition::{self, ToolForm};
use super::tools::{CallableTools, ChatPrompt, PreparedChat};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::generation::params::{NamedSchema, ResponseFormatParam, SamplingOptions};
use crate::http::inference;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::serving::GenerationRequest;
use crate::serving::generation::sampling::SamplingParams;
use crate::serving::generation::tool_call_parser::ToolCallParser;
use crate::serving::generation::{MaxTokens, Prompt, PromptOutput, RequestFields, StopOutput};
use axum::Json;
use axum::response::{IntoResponse, Response};
use espalier_core::error::Result;
use espalier_core::model::BaseModel;
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use espalier_core::model::chat::{Json as Variable, RenderOptions};
use events::EventWriter;
use input::ResponsesInput;
use output::{ResponseBody, ResponseSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "support-answers", "instructions": "Answer in one sentence.", "input": "Where is my card?",
    "max_output_tokens": 64}))]
pub struct ResponsesRequest {
    /// Base model's name, or an adapter's name, id or `name@version`.
    pub model: String,
    /// Text of the user, or a list of items: messages, and calls of functions with their outputs.
    pub input: ResponsesInput,
    /// System message before the input.
    pub instructions: Option<String>,
    /// Maximum number of generated tokens.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub max_output_tokens: Option<TokenLimit>,
    /// Format that the generated text must have.
    pub text: Option<TextOptions>,
    /// Sends events as they occur.
    pub stream: Option<bool>,
    /// Additional output. `message.output_text.logprobs` returns log probabilities; the output that other values name never occurs.
    pub include: Option<Vec<Includable>>,
    /// Number of most likely tokens returned per token, with `message.output_text.logprobs`.
    #[schema(maximum = 20)]
    pub top_logprobs: Option<u32>,
    /// Returned with the response.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Functions that the model may call: objects with `type`, `name`, `parameters`, `description` and `strict`.
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    pub tools: Option<Vec<Value>>,
    /// `none`, `auto` (default), `required`, `{"type": "function", …}` for one function, or `{"type": "allowed_tools", …}`.
    pub tool_choice: Option<Value>,
    /// Whether an answer may have several calls. Default true.
    pub parallel_tool_calls: Option<bool>,
    /// Additional variables of the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<BTreeMap<String, Variable>>,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

impl OpenAiRequest for ResponsesRequest {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "text",
        "stream",
        "include",
        "top_logprobs",
        "metadata",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "chat_template_kwargs",
    ];
    const INTEGERS: &'static [&'static str] = &["max_output_tokens", "top_logprobs"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const FLATTENED: FieldNames = SamplingOptions::FIELD_NAMES;
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = RESPONSES_FIELDS;
    const OBJECTS: &'static [ObjectFields] = RESPONSES_OBJECTS;
}

/// Options of the generated text.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    pub format: Option<TextFormat>,
    /// Only `medium` is supported.
    pub verbosity: Option<String>,
}

/// Format of the generated text; enforced by constrained decoding.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = ResponseTextFormat, example = json!({"type": "json_object"}))]
pub enum TextFormat {
    /// Any text.
    Text {},
    /// Any JSON object.
    JsonObject {},
    /// JSON that is valid against a schema.
    JsonSchema {
        name: Option<String>,
        description: Option<String>,
        /// JSON schema.
        #[schema(value_type = Object)]
        schema: Value,
        /// Ignored: the schema is always enforced.
        strict: Option<bool>,
    },
}

/// Output that a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub enum Includable {
    #[serde(rename = "message.output_text.logprobs")]
    OutputLogprobs,
    #[serde(rename = "reasoning.encrypted_content")]
    EncryptedReasoning,
    #[serde(rename = "message.input_image.image_url")]
    InputImages,
    #[serde(rename = "file_search_call.results")]
    FileSearchResults,
    #[serde(rename = "web_search_call.results")]
    WebSearchResults,
    #[serde(rename = "web_search_call.action.sources")]
    WebSearchSources,
    #[serde(rename = "computer_call_output.output.image_url")]
    ComputerImages,
    #[serde(rename = "code_interpreter_call.outputs")]
    CodeInterpreterOutputs,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_response))
}

/// Create a response
///
/// Compatible with OpenAI's endpoint for text and functions. Nothing is stored: every request has the whole conversation as its `input`. With
/// `"stream": true` the response is a stream of OpenAI's events, from `response.created` to `response.completed`, `response.incomplete`
/// or `response.failed`.
#[utoipa::path(
    post, path = "/v1/responses", operation_id = "create_response", tag = "openai", request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The response, or a stream of events.", content(
            (ResponseBody = "application/json"), (String = "text/event-stream"),
        )),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn create_response(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<ResponsesRequest>,
) -> ApiResult<Response> {
    let is_streamed = request.stream == Some(true);
    let model = request.model.clone();
    let base = Arc::clone(&state.base);
    let prepared = run_blocking("preparing a response", move || prepare(&base, request)).await?;
    let reference = resolve_model(&state, &model)?;
    let running = inference::generate(&state, &caller, reference.as_ref(), prepared.generation).await;
    let running = running.map_err(|error| name_missing_model(error, &model, Into::into))?;
    let writer = EventWriter::new(&state, prepared.body, prepared.parser, prepared.syntax);
    let response = match is_streamed {
        true => writer.stream(running),
        false => Json(writer.complete(running).await?).into_response(),
    };
    Ok(ignored.add_to(response))
}

/// What a request asks to generate, and how the answer is written.
struct PreparedResponse {
    body: ResponseBody,
    generation: GenerationRequest,
    /// `None` if calls stay in the text.
    parser: Option<ToolCallParser>,
    syntax: &'static ToolCallSyntax,
}

fn prepare(base: &BaseModel, request: ResponsesRequest) -> Result<PreparedResponse> {
    let logprobs = logprobs(request.include.as_deref().unwrap_or_default(), request.top_logprobs)?;
    let text = request.text.unwrap_or_default();
    if text.verbosity.as_ref().is_some_and(|verbosity| verbosity != "medium") {
        return Err(unsupported_field("/text/verbosity", "is not supported: ask for it in the instructions"));
    }
    let max_tokens = match request.max_output_tokens {
        Some(limit) => limit.at_least_one("max_output_tokens")?,
        None => MaxTokens::Default,
    };
    let sent_tools = request.tools.unwrap_or_default();
    let definitions = tool_definition::parse(&sent_tools, ToolForm::Flat)?;
    let tools = CallableTools::select(definitions, request.tool_choice.as_ref(), request.parallel_tool_calls)?;
    let messages = input::to_messages(request.instructions.as_deref(), request.input)?;
    let template_options =
        RenderOptions { variables: request.chat_template_kwargs.unwrap_or_default(), ..RenderOptions::default() };
    let format = ResponseFormatParam::into_constraint(text.format.clone().map(TextFormat::into_response_format));
    let PreparedChat { messages, template_options, output } =
        ChatPrompt { messages, template_options, tools, format }.prepare(base)?;
    let sampling = request.sampling.to_sampling_params()?;
    let body = ResponseBody::new(ResponseSettings {
        model: request.model,
        instructions: request.instructions,
        metadata: request.metadata.unwrap_or_default(),
        max_output_tokens: request.max_output_tokens,
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_logprobs: request.top_logprobs.unwrap_or(0),
        text_format: text.format.unwrap_or(TextFormat::Text {}),
        tools: sent_tools,
        tool_choice: request.tool_choice.unwrap_or_else(|| Value::from("auto")),
    });
    let generation = GenerationRequest {
        prompts: vec![Prompt::Messages { messages, template_options }],
        fields: RequestFields { prompts: "input", logprobs: "top_logprobs", format: "/text/format" },
        sampling: SamplingParams { logprobs, ..sampling },
        stop_sequences: Vec::new(),
        stop_output: StopOutput::Exclude,
        shown_special_tokens: output.shown_special_tokens(),
        constraint: output.constraint,
        max_tokens,
        choices_per_prompt: 1,
        prompt_output: PromptOutput::None,
    };
    Ok(PreparedResponse { body, generation, parser: output.parser, syntax: output.syntax })
}

/// How many of the most likely tokens the response lists at each position; `None` if it has no log probabilities.
fn logprobs(include: &[Includable], top_logprobs: Option<u32>) -> Result<Option<u32>> {
    let logprobs = include.contains(&Includable::OutputLogprobs).then(|| top_logprobs.unwrap_or(0));
    if top_logprobs.is_some_and(|count| count > 0) && logprobs.is_none() {
        return Err(unsupported_field("/top_logprobs", "needs \"include\": [\"message.output_text.logprobs\"]"));
    }
    Ok(logprobs)
}

impl TextFormat {
    fn into_response_format(self) -> ResponseFormatParam {
        match self {
            Self::Text {} => ResponseFormatParam::Text {},
            Self::JsonObject {} => ResponseFormatParam::JsonObject { schema: None },
            Self::JsonSchema { name, description, schema, strict } => ResponseFormatParam::JsonSchema {
                json_schema: NamedSchema { name, description, schema: Some(schema), strict },
            },
        }
    }
}

//! `POST /generate`: text generation by an adapter or the base model, complete or streamed.

pub mod messages;
pub mod params;
pub mod stream;
#[cfg(test)]
mod tests;

use super::adapters::AdapterVersion;
use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{Json, QueryParams};
use super::inference;
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::spawn::run_blocking;
use super::sse;
use super::state::AppState;
use crate::serving::generation::{Completion, MaxTokens, Prompt, PromptOutput, RequestFields, StopOutput};
use crate::serving::{GenerationRequest, RunningGeneration};
use crate::store::{Reference, ResolvedAdapter};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::model::chat::{Message, RenderOptions};
use futures_util::StreamExt;
use params::{ResponseFormatParam, SamplingOptions};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::sync::Arc;
use stream::{StreamEvent, Usage, event_stream, finish_reason_name};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct GenerateQuery {
    /// Adapter: an id, a name or `name@version`. The base model generates by default.
    #[param(example = "support-answers")]
    pub adapter: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["Once upon a time", {"messages": [{"role": "user", "content": "Where is my card?"}]}],
    "max_tokens": 32, "temperature": 0.0}))]
pub struct GenerateRequest {
    /// Prompts: texts to continue, or conversations to answer.
    #[schema(min_items = 1)]
    pub inputs: Vec<GenerateInput>,
    /// Maximum number of generated tokens per input. The default is a setting of the server.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Stop sequences: generation ends before the first of these texts.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub stop: Vec<String>,
    /// Format that the generated text must have.
    pub response_format: Option<ResponseFormatParam>,
    /// Sends tokens as server-sent events as they are generated.
    #[serde(default)]
    pub stream: bool,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

/// Prompt of one generated text.
// `Deserialize` is implemented by hand because serde's untagged enums do not report which field is wrong. The derived
// `Serialize` gives utoipa the `untagged` attribute.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum GenerateInput {
    Text(String),
    Conversation(Conversation),
}

impl<'de> Deserialize<'de> for GenerateInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct GenerateInputVisitor;
        impl<'de> Visitor<'de> for GenerateInputVisitor {
            type Value = GenerateInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object with \"messages\"")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<GenerateInput, E> {
                Ok(GenerateInput::Text(text.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<GenerateInput, A::Error> {
                Conversation::deserialize(MapAccessDeserializer::new(map)).map(GenerateInput::Conversation)
            }
        }
        deserializer.deserialize_any(GenerateInputVisitor)
    }
}

/// Conversation, rendered with the base model's chat template.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Objects with `role` and `content`, and any other fields that the chat template reads.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    pub messages: Vec<Message>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "adapter": {"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-answers",
        "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5"},
    "generations": [{"text": "Cards take up to seven working days.", "finish_reason": "stop",
        "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}}]
}))]
pub struct GenerateResponse {
    /// Adapter version that generated the texts; `null` for the base model.
    pub adapter: Option<AdapterVersion>,
    /// One text per input, in order.
    pub generations: Vec<GeneratedText>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GeneratedText {
    pub text: String,
    /// `stop` at the end of the text or a stop sequence, `length` if `max_tokens` was reached.
    pub finish_reason: &'static str,
    pub usage: Usage,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(generate))
}

/// Generate text
///
/// Generates one text per input. With `"stream": true` the response is a stream of server-sent events: `{"index", "text"}` for
/// each piece of text, `{"index", "finish_reason", "usage"}` at the end of an input, and `[DONE]` at the end of the stream. A
/// generation that fails after its start sends `{"error", "code"}` before `[DONE]`. When the client disconnects, generation
/// stops at the next token.
#[utoipa::path(
    post, path = "/generate", operation_id = "generate", tag = "generation", params(GenerateQuery),
    request_body = GenerateRequest,
    responses(
        (status = 200, description = "Generated texts and the adapter version that generated them.", content(
            (GenerateResponse = "application/json"), (String = "text/event-stream"),
        )),
        BadRequest, NotFound, RequestTimeout, Conflict, PayloadTooLarge, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn generate(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<GenerateQuery>,
    Json(request): Json<GenerateRequest>,
) -> ApiResult<Response> {
    let reference = query.adapter.as_deref().map(Reference::parse).transpose()?;
    let is_streamed = request.stream;
    let base = Arc::clone(&state.base);
    let generation = run_blocking("preparing prompts", move || to_generation_request(&base, request)).await?;
    let running = inference::generate(&state, &caller, reference.as_ref(), generation).await?;
    match is_streamed {
        true => Ok(stream_response(&state, running)),
        false => Ok(axum::Json(collect_response(running).await?).into_response()),
    }
}

fn to_generation_request(base: &BaseModel, request: GenerateRequest) -> Result<GenerationRequest> {
    let to_prompt = |(index, input): (usize, GenerateInput)| match input {
        GenerateInput::Text(text) => Ok(Prompt::Text(text)),
        GenerateInput::Conversation(Conversation { messages }) => {
            let template_options = RenderOptions::default();
            let messages = messages::prepare(base, messages, &format!("/inputs/{index}/messages"))?;
            let messages = match base.tokenizer().chat_template() {
                Ok(template) => messages::write_earlier_calls(template, messages, &template_options),
                // Refused when it is tokenized.
                Err(_) => messages,
            };
            Ok(Prompt::Messages { messages, template_options })
        }
    };
    Ok(GenerationRequest {
        sampling: request.sampling.to_sampling_params()?,
        prompts: request.inputs.into_iter().enumerate().map(to_prompt).collect::<Result<_>>()?,
        fields: RequestFields { prompts: "inputs", logprobs: "logprobs", format: "/response_format" },
        stop_sequences: request.stop,
        stop_output: StopOutput::Exclude,
        shown_special_tokens: Vec::new(),
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: request.max_tokens.map_or(MaxTokens::Default, MaxTokens::Exactly),
        choices_per_prompt: 1,
        prompt_output: PromptOutput::None,
    })
}

async fn collect_response(running: RunningGeneration) -> Result<GenerateResponse, Error> {
    let adapter = running.adapter.as_deref().map(AdapterVersion::from);
    let mut generations = Vec::new();
    for generation in running.streams {
        let prompt_tokens = generation.prompt_tokens;
        let Completion { text, tokens, finish_reason: finish } = generation.collect().await?;
        let usage = Usage::new(prompt_tokens, tokens.len());
        generations.push(GeneratedText { text, finish_reason: finish_reason_name(finish), usage });
    }
    Ok(GenerateResponse { adapter, generations })
}

/// Data of one server-sent event.
#[derive(Default, Serialize)]
struct StreamChunk {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<AdapterVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

fn stream_response(state: &AppState, running: RunningGeneration) -> Response {
    let adapter = running.adapter.clone();
    let events = event_stream(running).map(move |event| to_sse_event(event, adapter.as_deref()));
    sse::sse_response(state, events)
}

fn to_sse_event(event: StreamEvent, adapter: Option<&ResolvedAdapter>) -> Event {
    match event {
        StreamEvent::Token { index, token } => {
            sse::json_event(&StreamChunk { index, text: Some(token.text_delta), ..StreamChunk::default() })
        }
        StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => sse::json_event(&StreamChunk {
            index,
            adapter: adapter.map(AdapterVersion::from),
            text: None,
            finish_reason: Some(finish_reason_name(finish)),
            usage: Some(Usage::new(prompt_tokens, completion_tokens)),
        }),
        StreamEvent::Failed(error) => {
            let ApiError { code, detail, .. } = ApiError::from(error);
            sse::json_event(&serde_json::json!({"error": detail, "code": code}))
        }
        StreamEvent::Done => Event::default().data("[DONE]"),
    }
}

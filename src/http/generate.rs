//! `POST /generate`: what comes next, from an adapter or from the base model, at once or word by word.
//!
//! Knows nothing of how it is computed. OpenAI's calls for the same are in [`super::openai`].

use super::adapters::AdapterVersion;
use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{Json, QueryParams};
use super::problem_responses::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::response_format::ResponseFormatParam;
use super::sampling_options::SamplingOptions;
use super::sse;
use super::state::AppState;
use crate::serving::generation::{Completion, FinishReason, Prompt, StopOutput};
use crate::serving::{GenerationRequest, RunningGeneration};
use crate::store::Reference;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use espalier_core::model::chat::{Message, RenderOptions};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct GenerateQuery {
    /// An id, a name, or `name@version` of an adapter that says what comes next. Without it, the base model goes on.
    #[param(example = "support-answers")]
    pub adapter: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["Once upon a time", {"messages": [{"role": "user", "content": "Where is my card?"}]}],
    "max_tokens": 32, "temperature": 0.0}))]
pub struct GenerateRequest {
    /// Texts to go on from, or conversations that the assistant answers.
    pub inputs: Vec<GenerateInput>,
    /// Tokens of each answer at most; the server's usual number where it is left out.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Texts that end an answer, and are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    pub response_format: Option<ResponseFormatParam>,
    /// Whether words are sent as they come, as server-sent events.
    #[serde(default)]
    pub stream: bool,
    #[serde(flatten)]
    pub sampling: SamplingOptions,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum GenerateInput {
    Text(String),
    Conversation(Conversation),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Objects with `role` and `content`, and what else the base's chat template knows.
    #[schema(value_type = Vec<Object>)]
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
    /// Which version answered; `null` for the base model.
    pub adapter: Option<AdapterVersion>,
    /// One per input, in order.
    pub generations: Vec<GeneratedText>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GeneratedText {
    pub text: String,
    /// `stop`, or `length` where `max_tokens` ended it.
    pub finish_reason: &'static str,
    pub usage: Usage,
}

#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
}

impl Usage {
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// OpenAI's word.
pub fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(generate))
}

/// Generate
///
/// Goes on from each input. With `"stream": true` the answer is a stream of server-sent events: `{"index", "text"}` for every
/// piece of text, `{"index", "finish_reason", "usage"}` at an input's end, and `[DONE]`. An input that nobody waits for any more
/// is given up at the next token.
#[utoipa::path(
    post, path = "/generate", operation_id = "generate", tag = "generation", params(GenerateQuery),
    request_body = GenerateRequest,
    responses(
        (status = 200, description = "The texts, and the version that said them.", content(
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
    let to_prompt = |item: GenerateInput| match item {
        GenerateInput::Text(text) => Prompt::Text(text),
        GenerateInput::Conversation(Conversation { messages }) => {
            Prompt::Messages { messages, template_options: RenderOptions::default() }
        }
    };
    let generation_request = GenerationRequest {
        prompts: request.inputs.into_iter().map(to_prompt).collect(),
        sampling: request.sampling.settings()?,
        stop_sequences: request.stop,
        stop_output: StopOutput::Exclude,
        constraint: ResponseFormatParam::into_constraint(request.response_format),
        max_tokens: request.max_tokens,
        choices_per_prompt: 1,
    };
    let running = state.serving.generate(&caller.owner, reference.as_ref(), generation_request).await?;
    match request.stream {
        true => Ok(stream_response(&state, running)),
        false => Ok(axum::Json(collect_response(running).await?).into_response()),
    }
}

async fn collect_response(running: RunningGeneration) -> Result<GenerateResponse, Error> {
    let adapter = running.adapter.as_deref().map(AdapterVersion::from);
    let mut generations = Vec::new();
    for generation in running.streams {
        let prompt_tokens = generation.prompt_tokens;
        let Completion { text, tokens, finish_reason: finish } = generation.collect().await?;
        let usage = Usage::new(prompt_tokens, tokens.len());
        generations.push(GeneratedText { text, finish_reason: finish_reason(finish), usage });
    }
    Ok(GenerateResponse { adapter, generations })
}

#[derive(Serialize)]
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
    let tokens = stream::unfold(sse::TokenStream::new(running), move |mut words| {
        let adapter = adapter.clone();
        async move {
            let event = match words.next_event().await? {
                sse::StreamEvent::Token { index, token } => {
                    let chunk = StreamChunk {
                        index,
                        adapter: None,
                        text: Some(token.text_delta),
                        finish_reason: None,
                        usage: None,
                    };
                    sse::json_event(&chunk)
                }
                sse::StreamEvent::Finished { index, finish, prompt_tokens, completion_tokens } => {
                    let adapter = adapter.as_deref().map(AdapterVersion::from);
                    let (reason, usage) =
                        (Some(finish_reason(finish)), Some(Usage::new(prompt_tokens, completion_tokens)));
                    sse::json_event(&StreamChunk { index, adapter, text: None, finish_reason: reason, usage })
                }
                sse::StreamEvent::Failed(error) => {
                    let ApiError { code, detail, .. } = ApiError::from(error);
                    sse::json_event(&serde_json::json!({"error": detail, "code": code}))
                }
                sse::StreamEvent::Done => Event::default().data("[DONE]"),
            };
            Some((event, words))
        }
    });
    sse::sse_response(state, tokens)
}

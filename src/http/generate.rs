//! `POST /generate`: what comes next, from an adapter or from the base model, at once or word by word.
//!
//! Knows nothing of how it is computed. OpenAI's calls for the same are in [`super::openai`].

use super::adapters::Version;
use super::auth::Caller;
use super::error::{Answer, Refusal};
use super::extract::{Json, Params};
use super::format::ResponseFormat;
use super::responses::{Busy, Conflict, Invalid, NotFound, Slow, TooLarge, Unreadable, Unsupported};
use super::sampling::Sampling;
use super::sse;
use super::state::State;
use crate::serving::generate::text::{Finish, StopText};
use crate::serving::generate::{Prompt, Said};
use crate::serving::{Started, Wish};
use crate::store::Reference;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use espalier_core::model::chat::{Asked, Message};
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
    pub inputs: Vec<Item>,
    /// Tokens of each answer at most; the server's usual number where it is left out.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Texts that end an answer, and are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    pub response_format: Option<ResponseFormat>,
    /// Whether words are sent as they come, as server-sent events.
    #[serde(default)]
    pub stream: bool,
    #[serde(flatten)]
    pub sampling: Sampling,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Item {
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
pub struct Generations {
    /// Which version answered; `null` for the base model.
    pub adapter: Option<Version>,
    /// One per input, in order.
    pub generations: Vec<Text>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Text {
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
pub fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

pub fn routes() -> OpenApiRouter<State> {
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
            (Generations = "application/json"), (String = "text/event-stream"),
        )),
        Unreadable, NotFound, Slow, Conflict, TooLarge, Unsupported, Invalid, Busy,
    ),
)]
async fn generate(
    state: State,
    caller: Caller,
    Params(query): Params<GenerateQuery>,
    Json(request): Json<GenerateRequest>,
) -> Answer<Response> {
    let reference = query.adapter.as_deref().map(Reference::parse).transpose()?;
    let prompt = |item: Item| match item {
        Item::Text(text) => Prompt::Text(text),
        Item::Conversation(Conversation { messages }) => Prompt::Messages { messages, asked: Asked::default() },
    };
    let wish = Wish {
        prompts: request.inputs.into_iter().map(prompt).collect(),
        sampling: request.sampling.settings()?,
        stops: request.stop,
        stop_text: StopText::Cut,
        format: ResponseFormat::asked(request.response_format),
        max_tokens: request.max_tokens,
        choices: 1,
    };
    let started = state.serving.generate(&caller.owner, reference.as_ref(), wish).await?;
    match request.stream {
        true => Ok(streamed(&state, started)),
        false => Ok(axum::Json(whole(started).await?).into_response()),
    }
}

async fn whole(started: Started) -> Result<Generations, Error> {
    let adapter = started.adapter.as_deref().map(Version::from);
    let mut generations = Vec::new();
    for generation in started.generations {
        let prompt_tokens = generation.prompt_tokens;
        let Said { text, tokens, finish } = generation.all().await?;
        let usage = Usage::new(prompt_tokens, tokens.len());
        generations.push(Text { text, finish_reason: reason(finish), usage });
    }
    Ok(Generations { adapter, generations })
}

#[derive(Serialize)]
struct Piece {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

fn streamed(state: &State, started: Started) -> Response {
    let adapter = started.adapter.clone();
    let words = stream::unfold(sse::Words::new(started), move |mut words| {
        let adapter = adapter.clone();
        async move {
            let frame = match words.next().await? {
                sse::Word::Token { index, chosen } => {
                    let piece =
                        Piece { index, adapter: None, text: Some(chosen.text), finish_reason: None, usage: None };
                    sse::json(&piece)
                }
                sse::Word::Finished { index, finish, prompt_tokens, said } => {
                    let adapter = adapter.as_deref().map(Version::from);
                    let (reason, usage) = (Some(reason(finish)), Some(Usage::new(prompt_tokens, said)));
                    sse::json(&Piece { index, adapter, text: None, finish_reason: reason, usage })
                }
                sse::Word::Failed(error) => {
                    let Refusal { code, detail, .. } = Refusal::from(error);
                    sse::json(&serde_json::json!({"error": detail, "code": code}))
                }
                sse::Word::Done => Event::default().data("[DONE]"),
            };
            Some((frame, words))
        }
    });
    sse::response(state, words)
}

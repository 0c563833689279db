//! `POST /v1/chat/completions`.

use super::Stamp;
use super::logprobs::Content;
use super::request::{Stop, StreamOptions, refuse, start};
use super::streaming::Streaming;
use crate::http::auth::Caller;
use crate::http::error::Answer;
use crate::http::extract::Json;
use crate::http::format::ResponseFormat;
use crate::http::generate::{Usage, reason};
use crate::http::responses::{Busy, NotFound, Unreadable};
use crate::http::sampling::Sampling;
use crate::http::sse::{self, Words};
use crate::http::state::State;
use crate::serving::generate::sampling::Settings;
use crate::serving::generate::text::StopText;
use crate::serving::generate::{Prompt, Said};
use crate::serving::{Started, Wish};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, Fault, Problem, Result};
use espalier_core::model::chat::{Asked, Json as Variable, Message};
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
    pub stop: Option<Stop>,
    #[serde(default)]
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub logprobs: Option<bool>,
    /// Needs `logprobs`.
    pub top_logprobs: Option<u32>,
    pub response_format: Option<ResponseFormat>,
    /// Further variables of the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<BTreeMap<String, Variable>>,
    #[serde(flatten)]
    #[allow(dead_code, reason = "they have no effect")]
    pub unused: Unused,
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// What OpenAI keeps with a request, and what has no effect on its answer: read, and not used.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = UnusedFields)]
#[allow(dead_code, reason = "clients send them, so they are no unknown fields")]
pub struct Unused {
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
    pub message: Answered,
    pub logprobs: Option<Content>,
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatAnswer)]
pub struct Answered {
    /// `assistant`
    pub role: &'static str,
    pub content: String,
}

pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(create))
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
        Unreadable, NotFound, Busy,
    ),
)]
async fn create(state: State, caller: Caller, Json(request): Json<ChatRequest>) -> Answer<Response> {
    let (stamp, choices) = (Stamp::new("chatcmpl", request.model.clone()), request.n.unwrap_or(1));
    let is_streamed = request.stream == Some(true);
    let options = request.stream_options.unwrap_or_default();
    let model = request.model.clone();
    let started = start(&state, &caller, &model, wish(request, choices)?).await?;
    match is_streamed {
        true => {
            let each = choices as usize;
            Ok(streamed(&state, started, Streaming { stamp, object: "chat.completion.chunk", options, each }))
        }
        false => Ok(axum::Json(whole(&state, stamp, started).await?).into_response()),
    }
}

fn wish(request: ChatRequest, choices: u32) -> Result<Wish> {
    let is_free = |choice: &Value| choice.is_null() || choice == "auto" || choice == "none";
    refuse(
        !request.tool_choice.as_ref().is_none_or(is_free),
        "tool_choice",
        "only \"auto\" and \"none\" are known here",
    )?;
    let logprobs = (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0));
    refuse(request.top_logprobs.is_some() && logprobs.is_none(), "top_logprobs", "needs \"logprobs\": true")?;
    let asked = Asked {
        tools: request.tools.filter(|_| request.tool_choice != Some(json!("none"))),
        variables: request.chat_template_kwargs.unwrap_or_default(),
        ..Asked::default()
    };
    Ok(Wish {
        prompts: vec![Prompt::Messages { messages: plain(request.messages)?, asked }],
        sampling: Settings { logprobs, ..request.sampling.settings()? },
        stops: Stop::list(request.stop),
        stop_text: StopText::Cut,
        format: ResponseFormat::asked(request.response_format),
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        choices,
    })
}

/// Contents in parts are put together where all of them are text.
fn plain(messages: Vec<Message>) -> Result<Vec<Message>> {
    let one = |(index, message): (usize, Message)| {
        message.plain().map_err(|part| {
            let fault =
                Fault::at_pointer(format!("/messages/{index}/content"), "only parts of the type \"text\" are read");
            let detail = format!("messages.{index}.content: a part of the type {part} is not read here: send text");
            Error::Invalid(Problem::new("invalid_body", detail).with_faults(vec![fault]))
        })
    };
    messages.into_iter().enumerate().map(one).collect()
}

async fn whole(state: &State, stamp: Stamp, started: Started) -> Result<ChatCompletion> {
    let (mut choices, mut prompt_tokens, mut said) = (Vec::new(), 0, 0);
    for (index, generation) in started.generations.into_iter().enumerate() {
        prompt_tokens = generation.prompt_tokens;
        let Said { text, tokens, finish } = generation.all().await?;
        said += tokens.len();
        let message = Answered { role: "assistant", content: text };
        let logprobs = Content::of(state, &tokens).filter(|_| !tokens.is_empty());
        choices.push(Choice { index, message, logprobs, finish_reason: reason(finish) });
    }
    let Stamp { id, created, model } = stamp;
    let usage = Usage::new(prompt_tokens, said);
    Ok(ChatCompletion { id, object: "chat.completion", created, model, choices, usage })
}

fn streamed(state: &State, started: Started, streaming: Streaming) -> Response {
    let first = (0..started.generations.len()).map(|index| {
        streaming.frame(json!([{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": null,
            "finish_reason": null}]))
    });
    let first: Vec<Event> = first.collect();
    let told = state.clone();
    let frames = streaming.frames(Words::new(started), move |index, chosen, finish| {
        let delta = chosen.map_or_else(|| json!({}), |chosen| json!({"content": chosen.text}));
        let logprobs = chosen.and_then(|chosen| Content::of(&told, std::slice::from_ref(chosen)));
        json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
    });
    sse::response(state, stream::iter(first).chain(frames))
}

//! `POST /v1/completions`.

use super::Stamp;
use super::chat::Unused;
use super::logprobs::Lists;
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
use axum::response::{IntoResponse, Response};
use espalier_core::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Tokens of a completion where a request does not say how many, as OpenAI has it.
const USUAL_TOKENS: u32 = 16;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "stories", "prompt": "Once upon a time", "max_tokens": 32}))]
pub struct CompletionRequest {
    pub model: String,
    pub prompt: Prompts,
    /// Default 16.
    pub max_tokens: Option<u32>,
    pub n: Option<u32>,
    pub stop: Option<Stop>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// So many of the likeliest tokens are told beside each.
    pub logprobs: Option<u32>,
    /// Whether the prompt is put in front of the text: only `false`.
    pub echo: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    /// Not done here.
    pub suffix: Option<String>,
    /// Only as many as `n`.
    pub best_of: Option<u32>,
    #[serde(flatten)]
    #[allow(dead_code, reason = "they have no effect")]
    pub unused: Unused,
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// A text, tokens, or several of either.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Several(Vec<Vec<u32>>),
}

impl Prompts {
    fn list(self) -> Vec<Prompt> {
        match self {
            Self::Text(text) => vec![Prompt::Text(text)],
            Self::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
            Self::Tokens(ids) => vec![Prompt::Tokens(ids)],
            Self::Several(several) => several.into_iter().map(Prompt::Tokens).collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "cmpl-0193", "object": "text_completion", "created": 1767605400, "model": "stories",
    "choices": [{"index": 0, "text": " there was a city by the river", "logprobs": null, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 7, "total_tokens": 11}
}))]
pub struct Completion {
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    /// Prompt by prompt.
    pub choices: Vec<Choice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
pub struct Choice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<Lists>,
    pub finish_reason: &'static str,
}

pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Completions
///
/// As OpenAI's older call of the same name; `top_k`, `min_p`, `repetition_penalty` and `response_format` beside it. `echo`, `suffix` and `best_of`
/// are refused.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "create_completion", tag = "openai", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The texts, or a stream of them.", content(
            (Completion = "application/json"), (String = "text/event-stream"),
        )),
        Unreadable, NotFound, Busy,
    ),
)]
async fn create(state: State, caller: Caller, Json(request): Json<CompletionRequest>) -> Answer<Response> {
    let stamp = Stamp::new("cmpl", request.model.clone());
    let (is_streamed, options) = (request.stream == Some(true), request.stream_options.unwrap_or_default());
    let (model, choices) = (request.model.clone(), request.n.unwrap_or(1));
    let each = choices as usize;
    let started = start(&state, &caller, &model, wish(request, choices)?).await?;
    match is_streamed {
        true => Ok(streamed(&state, started, Streaming { stamp, object: "text_completion", options, each })),
        false => Ok(axum::Json(whole(&state, stamp, started, each).await?).into_response()),
    }
}

fn wish(request: CompletionRequest, choices: u32) -> Result<Wish> {
    refuse(request.echo == Some(true), "echo", "the prompt is not answered here")?;
    refuse(request.suffix.is_some_and(|suffix| !suffix.is_empty()), "suffix", "is not known here")?;
    refuse(request.best_of.is_some_and(|best| best != choices), "best_of", "is only known where it is n")?;
    Ok(Wish {
        prompts: request.prompt.list(),
        sampling: Settings { logprobs: request.logprobs, ..request.sampling.settings()? },
        stops: Stop::list(request.stop),
        stop_text: StopText::Cut,
        format: ResponseFormat::asked(request.response_format),
        max_tokens: Some(request.max_tokens.unwrap_or(USUAL_TOKENS)),
        choices,
    })
}

async fn whole(state: &State, stamp: Stamp, started: Started, each: usize) -> Result<Completion> {
    let (mut choices, mut prompt_tokens, mut said) = (Vec::new(), 0, 0);
    for (index, generation) in started.generations.into_iter().enumerate() {
        // Of each prompt once, however many choices it has.
        prompt_tokens += if index % each == 0 { generation.prompt_tokens } else { 0 };
        let Said { text, tokens, finish } = generation.all().await?;
        said += tokens.len();
        let logprobs = Lists::of(state, &tokens).filter(|_| !tokens.is_empty());
        choices.push(Choice { index, text, logprobs, finish_reason: reason(finish) });
    }
    let Stamp { id, created, model } = stamp;
    let usage = Usage::new(prompt_tokens, said);
    Ok(Completion { id, object: "text_completion", created, model, choices, usage })
}

fn streamed(state: &State, started: Started, streaming: Streaming) -> Response {
    let told = state.clone();
    let frames = streaming.frames(Words::new(started), move |index, chosen, finish| {
        let text = chosen.map_or("", |chosen| chosen.text.as_str());
        let logprobs = chosen.and_then(|chosen| Lists::of(&told, std::slice::from_ref(chosen)));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
    });
    sse::response(state, frames)
}

//! OpenAI's calls for generated text, as its clients send them: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.
//!
//! A model's name is the base's, or an adapter's name, id or `name@version`. Errors have OpenAI's form ([`error`]). Knows nothing
//! of how words come about.

mod chat;
mod completions;
pub mod error;
mod logprobs;
mod models;
mod request;
mod streaming;

use super::state::AppState;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(chat::routes()).merge(completions::routes()).merge(models::routes())
}

/// An answer's id and time.
#[derive(Debug, Clone)]
struct CompletionMeta {
    id: String,
    created: u64,
    /// As the request named it.
    model: String,
}

impl CompletionMeta {
    fn new(prefix: &str, model: String) -> Self {
        let id = Uuid::now_v7();
        let created = id.get_timestamp().map_or(0, |time| time.to_unix().0);
        Self { id: format!("{prefix}-{}", id.simple()), created, model }
    }
}

//! OpenAI-compatible endpoints: `/v1/chat/completions`, `/v1/completions` and `/v1/models`.
//!
//! `model` is the base model's name, or an adapter's name, id or `name@version`. Errors have OpenAI's format ([`super::openai_error`]).

mod chat;
mod completion;
mod completions;
mod models;
mod request;

use super::state::AppState;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(chat::routes()).merge(completions::routes()).merge(models::routes())
}

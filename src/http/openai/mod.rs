//! OpenAI-compatible endpoints: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/v1/files` and `/v1/fine_tuning/jobs`. Embeddings are
//! in [`super::embeddings`].
//!
//! `model` is the base model's name, or an adapter's name, id or `name@version`. Errors have OpenAI's format ([`super::openai_error`]).

mod chat;
mod completion;
mod completions;
pub mod fields;
mod files;
mod fine_tuning;
mod ids;
mod list;
mod models;
pub mod request;

use super::state::AppState;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(chat::routes())
        .merge(completions::routes())
        .merge(models::routes())
        .merge(files::routes())
        .merge(fine_tuning::routes())
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    files::upload_routes()
}

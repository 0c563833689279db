//! Embeddings, similarities and reranking in the formats of other servers: OpenAI (`/v1/embeddings`), Cohere and Jina (`/v1/rerank`), and
//! Text Embeddings Inference (`/embed`, `/rerank`, `/similarity`, `/info`).

mod compute;
mod openai;
mod relevance;
mod rerank;
mod tei;

#[cfg(test)]
pub use openai::EmbeddingsRequest;
#[cfg(test)]
pub use rerank::RerankRequest;

use super::state::AppState;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(openai::routes()).merge(rerank::routes()).merge(tei::routes())
}

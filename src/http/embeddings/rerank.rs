//! `POST /v1/rerank`: documents by their relevance to a query, in the format of Cohere's and Jina's APIs.

use super::relevance::{RelevanceRequest, score};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::openai::field_rules::{RERANK_FIELDS, Rule};
use crate::http::openai::fields::{OpenAiJson, OpenAiRequest};
use crate::http::openai::request::{name_missing_model, resolve_model};
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::state::AppState;
use crate::serving::LongInputs;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "all-MiniLM-L6-v2", "query": "where is my card?", "documents": ["cards arrive in a week", "pay by card"], "top_n": 1}))]
pub struct RerankRequest {
    /// Base model's name, or the name, id or `name@version` of an adapter that embeds or that scores pairs of texts.
    pub model: String,
    pub query: String,
    /// Texts, or objects with `text`.
    #[schema(min_items = 1)]
    pub documents: Vec<Document>,
    /// Number of results; all by default.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// Returns the documents' texts in the results.
    #[serde(default)]
    pub return_documents: Option<bool>,
    /// Cuts texts that are longer than the model reads at their end. Default `true`, as Cohere and Jina do.
    #[serde(default)]
    pub truncate: Option<bool>,
}

impl OpenAiRequest for RerankRequest {
    const FIELDS: &'static [&'static str] = &["model", "query", "documents", "top_n", "return_documents", "truncate"];
    const INTEGERS: &'static [&'static str] = &["top_n"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &["top_n"];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = RERANK_FIELDS;
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or an object with \"text\"")]
pub enum Document {
    Text(String),
    Object { text: String },
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0193", "model": "all-MiniLM-L6-v2", "results": [{"index": 0, "relevance_score": 0.71}],
    "usage": {"total_tokens": 21}, "meta": {"billed_units": {"search_units": 1}}}))]
pub struct RerankResponse {
    pub id: String,
    pub model: String,
    /// The most relevant first.
    pub results: Vec<RankedDocument>,
    pub usage: RerankUsage,
    /// Cohere's count of searches.
    #[schema(value_type = Object)]
    pub meta: serde_json::Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RankedDocument {
    /// Position in `documents`.
    pub index: usize,
    /// Cosine of the embeddings, or the adapter's prediction for the pair.
    pub relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentText>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentText {
    pub text: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RerankUsage {
    pub total_tokens: usize,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(rerank))
}

/// Rerank documents
///
/// Orders documents by their relevance to a query: by the cosine of the embeddings of the base model or an embedding adapter, or by the
/// prediction of an adapter that was trained on pairs (a regression, or a classification with a label such as `relevant` or `1`).
#[utoipa::path(
    post, path = "/v1/rerank", operation_id = "rerank", tag = "openai", request_body = RerankRequest,
    responses(
        (status = 200, description = "The documents, the most relevant first.", body = RerankResponse),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn rerank(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<RerankRequest>,
) -> ApiResult<Response> {
    let reference = resolve_model(&state, &request.model)?;
    let texts: Vec<String> = request.documents.into_iter().map(Document::into_text).collect();
    let scored = score(
        &state,
        RelevanceRequest {
            caller: &caller,
            reference: reference.as_ref(),
            query: request.query,
            texts: texts.clone(),
            long_inputs: LongInputs::from_truncate(request.truncate.unwrap_or(true)),
            field: "documents",
        },
    );
    let relevance = scored.await.map_err(|error| name_missing_model(error, &request.model, Into::into))?;
    let with_text = request.return_documents == Some(true);
    let results = ranked(&relevance.scores).take(request.top_n.unwrap_or(usize::MAX));
    let results = results.map(|(index, relevance_score)| RankedDocument {
        index,
        relevance_score,
        document: with_text.then(|| DocumentText { text: texts[index].clone() }),
    });
    let response = RerankResponse {
        id: Uuid::now_v7().to_string(),
        model: request.model,
        results: results.collect(),
        usage: RerankUsage { total_tokens: relevance.tokens },
        meta: json!({"billed_units": {"search_units": 1}}),
    };
    Ok(ignored.add_to(Json(response).into_response()))
}

/// Indices with their scores, the highest first.
pub fn ranked(scores: &[f32]) -> impl Iterator<Item = (usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranked.into_iter()
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

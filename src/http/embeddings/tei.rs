//! `/embed`, `/rerank`, `/similarity` and `/info` of Text Embeddings Inference.

use super::compute::{EmbedRequest, embed};
use super::relevance::{RelevanceRequest, score};
use super::rerank::ranked;
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::extract::{Json, QueryParams};
use crate::http::json;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable, UnprocessableEntity};
use crate::http::predict::PredictQuery;
use crate::http::state::AppState;
use crate::serving::LongInputs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["where is my card?"], "normalize": true}))]
pub struct EmbedBody {
    /// Text, or list of texts.
    pub inputs: OneOrMany,
    /// Scales each embedding to length 1. Default `true`.
    #[serde(default)]
    pub normalize: Option<bool>,
    /// Cuts texts that are longer than the model reads at their end; they are refused by default.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Leading components of the embedding to return.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub dimensions: Option<usize>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of texts")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"query": "where is my card?", "texts": ["cards arrive in a week", "pay by card"]}))]
pub struct TeiRerankBody {
    pub query: String,
    #[schema(min_items = 1)]
    pub texts: Vec<String>,
    /// Returns the texts with their scores.
    #[serde(default)]
    pub return_text: Option<bool>,
    /// Only `false` is supported: scores are those of `/v1/rerank`.
    #[serde(default)]
    pub raw_scores: Option<bool>,
    /// Cuts texts that are longer than the model reads at their end; they are refused by default.
    #[serde(default)]
    pub truncate: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TeiRank {
    /// Position in `texts`.
    pub index: usize,
    pub score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": {"source_sentence": "where is my card?", "sentences": ["cards arrive in a week"]}}))]
pub struct SimilarityBody {
    pub inputs: SimilarityInputs,
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub parameters: Option<SimilarityParameters>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarityInputs {
    pub source_sentence: String,
    #[schema(min_items = 1)]
    pub sentences: Vec<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarityParameters {
    /// Cuts texts that are longer than the model reads at their end; they are refused by default.
    #[serde(default)]
    pub truncate: Option<bool>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(embed_texts))
        .routes(routes!(rerank_texts))
        .routes(routes!(compare_sentences))
        .routes(routes!(get_info))
}

/// Embed texts (TEI)
///
/// A list of embeddings, as Text Embeddings Inference returns it.
#[utoipa::path(
    post, path = "/embed", operation_id = "tei_embed", tag = "embeddings", params(PredictQuery), request_body = EmbedBody,
    responses(
        (status = 200, description = "One embedding per text.", body = Vec<Vec<f32>>, example = json!([[0.6, 0.8]])),
        BadRequest, NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn embed_texts(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<PredictQuery>,
    Json(body): Json<EmbedBody>,
) -> ApiResult<axum::Json<Vec<Vec<f32>>>> {
    let reference = query.reference()?;
    let request = EmbedRequest {
        caller: &caller,
        reference: reference.as_ref(),
        texts: body.inputs.into_vec(),
        long_inputs: LongInputs::from_truncate(body.truncate.unwrap_or(false)),
        normalize: body.normalize.unwrap_or(true),
        dimensions: body.dimensions,
        field: "inputs",
    };
    Ok(axum::Json(embed(&state, request).await?.vectors))
}

/// Rerank texts (TEI)
///
/// The texts by their relevance to the query, the most relevant first.
#[utoipa::path(
    post, path = "/rerank", operation_id = "tei_rerank", tag = "embeddings", params(PredictQuery), request_body = TeiRerankBody,
    responses(
        (status = 200, description = "Positions with their scores.", body = Vec<TeiRank>, example = json!([{"index": 0, "score": 0.71}])),
        BadRequest, NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn rerank_texts(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<PredictQuery>,
    Json(body): Json<TeiRerankBody>,
) -> ApiResult<axum::Json<Vec<TeiRank>>> {
    let reference = query.reference()?;
    if body.raw_scores == Some(true) {
        let message = "only false is supported: leave it out";
        return Err(espalier_core::error::Error::invalid_field("/raw_scores", message).into());
    }
    let relevance = score(
        &state,
        RelevanceRequest {
            caller: &caller,
            reference: reference.as_ref(),
            query: body.query,
            texts: body.texts.clone(),
            long_inputs: LongInputs::from_truncate(body.truncate.unwrap_or(false)),
            field: "texts",
        },
    )
    .await?;
    let with_text = body.return_text == Some(true);
    let rank = |(index, score)| TeiRank { index, score, text: with_text.then(|| body.texts[index].clone()) };
    Ok(axum::Json(ranked(&relevance.scores).map(rank).collect()))
}

/// Compare sentences (TEI)
///
/// The similarity of each sentence to the source sentence, in order.
#[utoipa::path(
    post, path = "/similarity", operation_id = "tei_similarity", tag = "embeddings", params(PredictQuery), request_body = SimilarityBody,
    responses(
        (status = 200, description = "One similarity per sentence.", body = Vec<f32>, example = json!([0.71])),
        BadRequest, NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn compare_sentences(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<PredictQuery>,
    Json(body): Json<SimilarityBody>,
) -> ApiResult<axum::Json<Vec<f32>>> {
    let reference = query.reference()?;
    let SimilarityInputs { source_sentence, sentences } = body.inputs;
    let request = RelevanceRequest {
        caller: &caller,
        reference: reference.as_ref(),
        query: source_sentence,
        texts: sentences,
        long_inputs: LongInputs::from_truncate(body.parameters.unwrap_or_default().truncate.unwrap_or(false)),
        field: "inputs/sentences",
    };
    Ok(axum::Json(score(&state, request).await?.scores))
}

/// Describe the model (TEI)
///
/// The base model and the limits of requests, in the fields of Text Embeddings Inference.
#[utoipa::path(
    get, path = "/info", operation_id = "tei_info", tag = "embeddings",
    responses((status = 200, description = "The base model and the limits.", body = Object,
        example = json!({"model_id": "all-MiniLM-L6-v2", "model_dtype": "float32", "max_input_length": 128, "max_client_batch_size": 1024}))),
)]
async fn get_info(state: AppState) -> axum::Json<Value> {
    let info = state.base.info();
    axum::Json(json!({
        "model_id": info.name,
        "model_sha": info.fingerprint,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": info.default_pooling}},
        "max_input_length": info.max_tokens,
        "max_client_batch_size": state.serving.max_inputs(),
        "auto_truncate": false,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

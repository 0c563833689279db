//! `POST /v1/embeddings`: embeddings in OpenAI's format.

use super::compute::{EmbedRequest, embed, to_context_length_error};
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::openai::field_rules::{EMBEDDING_FIELDS, Rule};
use crate::http::openai::fields::{OpenAiJson, OpenAiRequest};
use crate::http::openai::request::{name_missing_model, resolve_model};
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::state::AppState;
use crate::serving::LongInputs;
use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use espalier_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most inputs of a request, as in OpenAI's API.
const MAX_INPUTS: usize = 2048;

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "all-MiniLM-L6-v2", "input": ["where is my card?", "how do I pay?"]}))]
pub struct EmbeddingsRequest {
    /// Base model's name, or the name, id or `name@version` of an embedding adapter.
    pub model: String,
    /// Text, list of texts, token ids of the base's tokenizer, or a list of such lists. At most 2048 inputs.
    pub input: EmbeddingInput,
    /// `float`, or `base64` of the little-endian 32-bit floats.
    #[serde(default)]
    pub encoding_format: Option<EncodingFormat>,
    /// Leading components of the embedding to return; they are scaled to length 1 again.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub dimensions: Option<usize>,
    /// Cuts inputs that are longer than the model reads at their end; they are refused by default.
    #[serde(default)]
    pub truncate: Option<bool>,
}

impl OpenAiRequest for EmbeddingsRequest {
    const FIELDS: &'static [&'static str] = &["model", "input", "encoding_format", "dimensions", "truncate"];
    const INTEGERS: &'static [&'static str] = &["dimensions"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = EMBEDDING_FIELDS;
}

/// Text, list of texts, token ids, or list of lists of token ids.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, a list of texts, a list of token ids, or a list of such lists")]
pub enum EmbeddingInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}], "model": "all-MiniLM-L6-v2",
    "usage": {"prompt_tokens": 7, "total_tokens": 7}
}))]
pub struct EmbeddingList {
    /// `list`
    pub object: &'static str,
    /// One embedding per input, in order.
    pub data: Vec<EmbeddingObject>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingObject {
    /// `embedding`
    pub object: &'static str,
    pub index: usize,
    pub embedding: EmbeddingValue,
}

/// Numbers, or their bytes in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EmbeddingValue {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    pub prompt_tokens: usize,
    pub total_tokens: usize,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_embeddings))
}

/// Create embeddings
///
/// Compatible with OpenAI's endpoint. Embeddings have length 1.
#[utoipa::path(
    post, path = "/v1/embeddings", operation_id = "create_embeddings", tag = "openai", request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "Embeddings in the order of the inputs.", body = EmbeddingList),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn create_embeddings(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<EmbeddingsRequest>,
) -> ApiResult<Response> {
    let reference = resolve_model(&state, &request.model)?;
    let texts = request.input.into_texts(&state)?;
    if texts.len() > MAX_INPUTS {
        let message = format!("holds {} inputs: send at most {MAX_INPUTS}", texts.len());
        return Err(Error::invalid_field("/input", message).into());
    }
    let embedded = embed(
        &state,
        EmbedRequest {
            caller: &caller,
            reference: reference.as_ref(),
            texts,
            long_inputs: LongInputs::from_truncate(request.truncate.unwrap_or(false)),
            normalize: true,
            dimensions: request.dimensions,
            field: "input",
        },
    );
    let embeddings = embedded.await.map_err(|error| {
        name_missing_model(error, &request.model, |error| to_context_length_error(error, state.base.info().max_tokens))
    })?;
    let format = request.encoding_format.unwrap_or_default();
    let object = |(index, vector)| EmbeddingObject { object: "embedding", index, embedding: encode(vector, format) };
    let list = EmbeddingList {
        object: "list",
        data: embeddings.vectors.into_iter().enumerate().map(object).collect(),
        model: request.model,
        usage: EmbeddingUsage { prompt_tokens: embeddings.tokens, total_tokens: embeddings.tokens },
    };
    Ok(ignored.add_to(Json(list).into_response()))
}

fn encode(vector: Vec<f32>, format: EncodingFormat) -> EmbeddingValue {
    match format {
        EncodingFormat::Float => EmbeddingValue::Floats(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            EmbeddingValue::Base64(STANDARD.encode(bytes))
        }
    }
}

impl EmbeddingInput {
    /// Texts of the inputs; token ids are decoded.
    fn into_texts(self, state: &AppState) -> Result<Vec<String>> {
        let decode = |ids: &[u32], pointer: &str| {
            let count = state.base.tokenizer().id_count();
            match ids.iter().find(|id| **id as usize >= count) {
                Some(id) => {
                    let message = format!(
                        "{id} is not a token of this base, whose vocabulary has {count}: send the text, or ids of its own tokenizer"
                    );
                    Err(Error::invalid_field(pointer, message))
                }
                None => Ok(state.base.tokenizer().decode(ids)),
            }
        };
        match self {
            Self::Text(text) => Ok(vec![text]),
            Self::Texts(texts) => Ok(texts),
            Self::Tokens(ids) => Ok(vec![decode(&ids, "/input")?]),
            Self::TokenLists(lists) => {
                lists.iter().enumerate().map(|(index, ids)| decode(ids, &format!("/input/{index}"))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_texts_or_token_ids() {
        let input = |json| serde_json::from_value::<EmbeddingInput>(json).ok();
        assert_eq!(input(json!("a")), Some(EmbeddingInput::Text("a".to_string())));
        assert_eq!(input(json!(["a", "b"])), Some(EmbeddingInput::Texts(vec!["a".to_string(), "b".to_string()])));
        assert_eq!(input(json!([1, 2])), Some(EmbeddingInput::Tokens(vec![1, 2])));
        assert_eq!(input(json!([[1], [2, 3]])), Some(EmbeddingInput::TokenLists(vec![vec![1], vec![2, 3]])));
        assert_eq!(input(json!(["a", 1])), None);
    }

    #[test]
    fn base64_holds_little_endian_floats() {
        let EmbeddingValue::Base64(text) = encode(vec![1.0, -2.5], EncodingFormat::Base64) else { panic!() };
        assert_eq!(STANDARD.decode(text).unwrap(), [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
    }
}

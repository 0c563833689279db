//! `POST /predict`: predictions of an adapter or the base model.

use super::adapters::AdapterVersion;
use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{self, Json, QueryParams};
use super::inference;
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::state::AppState;
use crate::serving::{LogitsOutput, LongInputs, PredictOptions};
use crate::store::Reference;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use espalier_core::error::{Error, Result, json_pointer};
use espalier_core::task::{Input, Prediction, Threshold, Thresholds};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PredictQuery {
    /// Adapter: an id, a name or `name@version`. The base model computes embeddings by default.
    #[param(example = "support-intents")]
    pub adapter: Option<String>,
}

impl PredictQuery {
    /// Adapter that the query names; `None` for the base model.
    ///
    /// # Errors
    /// `Invalid` (`invalid_version`).
    pub fn reference(&self) -> Result<Option<Reference>> {
        self.adapter.as_deref().map(Reference::parse).transpose()
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["where is my card?", {"text": "first", "text_pair": "second"}], "top_k": 3}))]
pub struct PredictRequest {
    /// Inputs; the response has one prediction per input, in order.
    #[schema(min_items = 1)]
    pub inputs: Vec<PredictInput>,
    /// Number of labels in `top`, or of tokens per mask; at most 100.
    #[serde(default = "default_top_k")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    pub top_k: usize,
    /// Returns the raw logits in addition.
    #[serde(default)]
    pub logits: bool,
    /// Whether inputs that are longer than `max_length` of the adapter are cut at the end. With `false` they are refused (422).
    #[serde(default = "default_truncate")]
    #[schema(default = true)]
    pub truncate: bool,
    /// Probability from which a label is predicted, for adapters that choose one of two labels or any number of labels. A number is
    /// the threshold of each label, or of the label that the adapter has a suggested threshold for; an object has thresholds by
    /// label; `"suggested"` stands for the adapter's own, which its validation split gave.
    #[serde(default)]
    pub threshold: Option<PredictThreshold>,
}

/// Threshold of all labels, thresholds by label, or `"suggested"`.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a number between 0 and 1, an object of labels and such numbers, or \"suggested\"")]
pub enum PredictThreshold {
    Value(f32),
    PerLabel(Thresholds),
    Named(NamedThreshold),
}

/// Value `suggested`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedThreshold {
    Suggested,
}

fn default_truncate() -> bool {
    true
}

fn default_top_k() -> usize {
    1
}

/// Text, or an object with a text, a pair of texts or pre-split tokens.
// `Deserialize` is implemented by hand because serde's untagged enums do not report which field is wrong. The derived
// `Serialize` gives utoipa the `untagged` attribute.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PredictInput {
    Text(String),
    Fields(Input),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "adapter": {"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-intents",
        "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5"},
    "predictions": [{"label": "card_arrival", "score": 0.97, "top": [{"label": "card_arrival", "score": 0.97}]}]
}))]
pub struct PredictResponse {
    /// Adapter version that predicted; `null` for the base model.
    pub adapter: Option<AdapterVersion>,
    /// One prediction per input, in order.
    pub predictions: Vec<InputPrediction>,
}

/// Prediction for one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct InputPrediction {
    #[serde(flatten)]
    pub prediction: Prediction,
    /// Present, and `true`, where the input was longer than `max_length` of the adapter and was cut at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

impl<'de> Deserialize<'de> for PredictInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct PredictInputVisitor;
        impl<'de> Visitor<'de> for PredictInputVisitor {
            type Value = PredictInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object with \"text\" and \"text_pair\", or with \"tokens\"")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<PredictInput, E> {
                Ok(PredictInput::Text(text.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<PredictInput, A::Error> {
                Input::deserialize(MapAccessDeserializer::new(map)).map(PredictInput::Fields)
            }
        }
        deserializer.deserialize_any(PredictInputVisitor)
    }
}

impl From<PredictInput> for Input {
    fn from(input: PredictInput) -> Self {
        match input {
            PredictInput::Text(text) => Self::from_text(text),
            PredictInput::Fields(input) => input,
        }
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(predict))
}

/// Predict
///
/// Returns one prediction per input, in order: an adapter's prediction depends on its task, such as labels with calibrated
/// probabilities; the base model returns embeddings.
#[utoipa::path(
    post, path = "/predict", operation_id = "predict", tag = "predictions", params(PredictQuery),
    request_body = PredictRequest,
    responses(
        (status = 200, description = "Predictions and the adapter version that made them.", body = PredictResponse),
        BadRequest, NotFound, RequestTimeout, Conflict, PayloadTooLarge, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn predict(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<PredictQuery>,
    _: LargeBodyCheck,
    Json(request): Json<PredictRequest>,
) -> ApiResult<axum::Json<PredictResponse>> {
    let reference = query.reference()?;
    let options = predict_options(&request)?;
    let inputs = request.inputs.into_iter().map(Input::from).collect();
    let prediction = inference::predict(&state, &caller, reference.as_ref(), inputs, options).await?;
    let adapter = prediction.adapter.as_deref().map(AdapterVersion::from);
    let truncated = prediction.truncated.into_iter().map(|truncated| truncated.then_some(true));
    let predictions = prediction.predictions.into_iter().zip(truncated);
    let predictions = predictions.map(|(prediction, truncated)| InputPrediction { prediction, truncated }).collect();
    Ok(axum::Json(PredictResponse { adapter, predictions }))
}

/// Refuses a large body before it is received while long requests would wait for too long.
struct LargeBodyCheck;

impl FromRequestParts<AppState> for LargeBodyCheck {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        if extract::content_length(&parts.headers).is_some_and(|length| length > extract::MAX_SMALL_BODY_BYTES as u64) {
            let caller = Caller::from_request_parts(parts, state).await?;
            state.serving.check_long_capacity(&caller.owner)?;
        }
        Ok(Self)
    }
}

fn predict_options(request: &PredictRequest) -> Result<PredictOptions> {
    let logits = if request.logits { LogitsOutput::Include } else { LogitsOutput::Omit };
    let long_inputs = LongInputs::from_truncate(request.truncate);
    let threshold = request.threshold.as_ref().map(to_threshold).transpose()?;
    match request.top_k {
        0 => Err(Error::invalid_field("/top_k", "must be 1 or more")),
        top_k => Ok(PredictOptions { top_k, logits, long_inputs, threshold }),
    }
}

fn to_threshold(threshold: &PredictThreshold) -> Result<Threshold> {
    let check = |threshold: f32, pointer: String| match (0.0..=1.0).contains(&threshold) {
        true => Ok(threshold),
        false => Err(Error::invalid_field(pointer, "must be between 0 and 1")),
    };
    Ok(match threshold {
        PredictThreshold::Value(value) => Threshold::Value(check(*value, "/threshold".to_string())?),
        PredictThreshold::PerLabel(thresholds) => {
            for (label, value) in thresholds {
                check(*value, json_pointer(&["threshold", label.as_str()]))?;
            }
            Threshold::PerLabel(thresholds.clone())
        }
        PredictThreshold::Named(NamedThreshold::Suggested) => Threshold::Suggested,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;

    fn error_pointer(body: &str) -> String {
        let error = json::parse::<PredictRequest>(body.as_bytes()).unwrap_err();
        serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"].as_str().unwrap().to_string()
    }

    #[test]
    fn an_input_is_a_text_or_a_pair() {
        let body = r#"{"inputs": ["a", {"text": "b", "text_pair": "c"}]}"#;
        let request: PredictRequest = json::parse(body.as_bytes()).unwrap();
        let pair = Input { text_pair: Some("c".to_string()), ..Input::from_text("b") };
        assert_eq!(request.inputs, [PredictInput::Text("a".to_string()), PredictInput::Fields(pair)]);
        assert_eq!((request.top_k, request.logits), (1, false));
    }

    #[test]
    fn a_threshold_is_a_number_an_object_or_a_word() {
        let threshold = |json: &str| {
            let request: PredictRequest =
                json::parse(format!(r#"{{"inputs": ["a"], "threshold": {json}}}"#).as_bytes()).unwrap();
            predict_options(&request).map(|options| options.threshold.unwrap())
        };
        assert_eq!(threshold("0.25").unwrap(), Threshold::Value(0.25));
        assert_eq!(threshold(r#"{"fraud": 0.5}"#).unwrap(), Threshold::PerLabel([("fraud".to_string(), 0.5)].into()));
        assert_eq!(threshold("\"suggested\"").unwrap(), Threshold::Suggested);
        assert!(threshold("1.5").is_err() && threshold(r#"{"a": -1}"#).is_err());
    }

    #[test]
    fn a_wrong_input_is_named_by_its_pointer() {
        for (body, place) in [
            (r#"{"inputs": ["a", 3]}"#, "/inputs/1"),
            (r#"{"inputs": ["a", {"text": "b", "pair": "c"}]}"#, "/inputs/1/pair"),
            (r#"{"inputs": [{"text": null}]}"#, "/inputs/0/text"),
            (r#"{"inputs": "a"}"#, "/inputs"),
            (r#"{"inputs": [], "topk": 3}"#, "/topk"),
            (r#"{"inputs": [], "top_k": -1}"#, "/top_k"),
            (r#"{"inputs": [], "threshold": "best"}"#, "/threshold"),
            (r#"{"inputs": [], "truncate": 1}"#, "/truncate"),
        ] {
            assert_eq!(error_pointer(body), place, "{body}");
        }
    }
}

//! `POST /predict`: ask an adapter, or the base model.
//!
//! Knows nothing of batches, nor of what an answer means.

use super::adapters::Version;
use super::auth::Caller;
use super::error::Answer;
use super::extract::{Json, Params};
use super::responses::{Busy, Conflict, Invalid, NotFound, Slow, TooLarge, Unreadable, Unsupported};
use super::state::State;
use crate::serving::{Ask, Logits};
use crate::store::Reference;
use espalier_core::error::{Error, Fault, Problem, Result};
use espalier_core::task::{Input, Prediction};
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
    /// An id, a name, or `name@version`. Without it, the base model answers with embeddings.
    #[param(example = "support-intents")]
    pub adapter: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["where is my card?", {"text": "first", "text_pair": "second"}], "top_k": 3}))]
pub struct PredictRequest {
    /// One prediction is answered per input, in order.
    pub inputs: Vec<Item>,
    /// How many labels `top` lists, and how many words are told of a mask: 100 at most.
    #[serde(default = "one")]
    #[schema(minimum = 1, default = 1)]
    pub top_k: usize,
    /// Whether the raw logits are answered too.
    #[serde(default)]
    pub logits: bool,
}

fn one() -> usize {
    1
}

/// A text, a text with its pair, or words that are given one by one.
// Read by hand, because serde's choice without a tag would not say which field of an input is wrong; `Serialize` is there
// for the schema, which reads its attribute.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Item {
    Text(String),
    Fields(Input),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "adapter": {"id": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f", "name": "support-intents",
        "version": "sha256:6f1ed002ab5595859014ebf0951522d9f0d9a5b5b3a1e6a2c8b0f9d1e2c3b4a5"},
    "predictions": [{"label": "card_arrival", "score": 0.97, "top": [{"label": "card_arrival", "score": 0.97}]}]
}))]
pub struct Predictions {
    /// Which version answered; `null` for the base model.
    pub adapter: Option<Version>,
    pub predictions: Vec<Prediction>,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object with \"text\" and \"text_pair\", or with \"tokens\"")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Item, E> {
                Ok(Item::Text(text.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Item, A::Error> {
                Input::deserialize(MapAccessDeserializer::new(map)).map(Item::Fields)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl From<Item> for Input {
    fn from(item: Item) -> Self {
        match item {
            Item::Text(text) => Self::text(text),
            Item::Fields(input) => input,
        }
    }
}

pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(predict))
}

/// Predict
///
/// One prediction per input, in order: labels with calibrated probabilities from an adapter, embeddings from the base.
#[utoipa::path(
    post, path = "/predict", operation_id = "predict", tag = "predictions", params(PredictQuery),
    request_body = PredictRequest,
    responses(
        (status = 200, description = "The predictions, and the version that made them.", body = Predictions),
        Unreadable, NotFound, Slow, Conflict, TooLarge, Unsupported, Invalid, Busy,
    ),
)]
async fn predict(
    state: State,
    caller: Caller,
    Params(query): Params<PredictQuery>,
    Json(request): Json<PredictRequest>,
) -> Answer<axum::Json<Predictions>> {
    let reference = query.adapter.as_deref().map(Reference::parse).transpose()?;
    let ask = ask(&request)?;
    let inputs = request.inputs.into_iter().map(Input::from).collect();
    let answer = state.serving.predict(&caller.owner, reference.as_ref(), inputs, ask).await?;
    let adapter = answer.adapter.as_deref().map(Version::from);
    Ok(axum::Json(Predictions { adapter, predictions: answer.predictions }))
}

fn ask(request: &PredictRequest) -> Result<Ask> {
    let logits = if request.logits { Logits::Include } else { Logits::Omit };
    match request.top_k {
        0 => {
            let fault = Fault::at_pointer("/top_k", "must be 1 or more");
            Err(Error::Invalid(Problem::new("invalid_body", "top_k must be 1 or more").with_faults(vec![fault])))
        }
        top_k => Ok(Ask { top_k, logits }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;

    fn pointer(body: &str) -> String {
        let refusal = json::parse::<PredictRequest>(body.as_bytes()).unwrap_err();
        serde_json::to_value(&refusal.faults[0]).unwrap()["pointer"].as_str().unwrap().to_string()
    }

    #[test]
    fn an_input_is_a_text_or_a_pair() {
        let body = r#"{"inputs": ["a", {"text": "b", "text_pair": "c"}]}"#;
        let request: PredictRequest = json::parse(body.as_bytes()).unwrap();
        let pair = Input { text_pair: Some("c".to_string()), ..Input::text("b") };
        assert_eq!(request.inputs, [Item::Text("a".to_string()), Item::Fields(pair)]);
        assert_eq!((request.top_k, request.logits), (1, false));
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
        ] {
            assert_eq!(pointer(body), place, "{body}");
        }
    }
}

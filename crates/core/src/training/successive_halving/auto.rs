//! How a race is asked for: `{"type": "auto", "candidates": […], "budget": {…}}` in a method's place.
//!
//! A candidate is a method with its settings, and with `hyperparameters` of its own where they are not the job's. Knows
//! nothing of how a race is run.

use crate::adapter;
use crate::training::hyperparameters::Schedule;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One method, or the best of several.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MethodOrRace)]
pub enum Method {
    Auto(Auto),
    Single(adapter::Config),
}

/// Several methods are trained on the same examples, and at each rung the worse half is dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Auto)]
pub struct Auto {
    #[serde(rename = "type")]
    pub kind: AutoType,
    /// A method with its settings each, and with `hyperparameters` of its own where they are not the job's; at least two.
    /// Where they are left out: the first eight of a list of good ones that this base can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<CandidateSchema>>)]
    pub candidates: Option<Vec<Candidate<CandidateHyperparameters>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// The `type` of a race.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RaceType)]
pub enum AutoType {
    #[default]
    Auto,
}

/// Counted in examples, never in seconds: so a race ends the same way wherever it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Examples that each candidate sees before the first half is dropped; each later rung is at twice as many, and the one
    /// that is left sees as many as a job of its own. By default the full run's by 2, 4, 8, …: by the power of two that
    /// leaves one candidate for the second half of it.
    pub first_rung: u64,
}

/// A method and what is said of its training: [`Tuning`] where it is asked for, everything in a resolved race.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate<H> {
    #[serde(flatten)]
    pub method: adapter::Config,
    pub hyperparameters: H,
}

/// What a candidate may have of its own; everything else is the same for all, so that they see the same batches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CandidateHyperparameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
}

/// How the document describes a candidate: the settings of its method stand beside its type.
#[derive(Serialize, ToSchema)]
#[schema(as = Candidate)]
#[allow(dead_code, reason = "only the document's shape is taken from it")]
pub struct CandidateSchema {
    /// A method, as in `method`; its settings stand beside it.
    #[serde(rename = "type")]
    kind: String,
    hyperparameters: Option<CandidateHyperparameters>,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match value.get("type").and_then(Value::as_str) {
            Some("auto") => Auto::deserialize(value).map(Self::Auto),
            _ => adapter::Config::deserialize(value).map(Self::Single),
        };
        // The list of what there is comes from the methods, which know nothing of races.
        let with_auto_listed = |message: String| match message.starts_with("unknown variant") {
            true => message.replacen("expected one of ", "expected one of `auto`, ", 1),
            false => message,
        };
        parsed.map_err(|error| D::Error::custom(with_auto_listed(error.to_string())))
    }
}

impl<'de, H: DeserializeOwned> Deserialize<'de> for Candidate<H> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let hyperparameters = fields.remove("hyperparameters").unwrap_or_else(|| Value::Object(Map::new()));
        let hyperparameters = serde_json::from_value(hyperparameters).map_err(D::Error::custom)?;
        let method = serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { method, hyperparameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn auto_is_distinguished_by_its_type_and_round_trips() {
        let request = json!({"type": "auto", "budget": {"first_rung": 64}, "candidates": [
            {"type": "head", "dropout": 0.0, "hyperparameters": {}},
            {"type": "head", "dropout": 0.5, "hyperparameters": {"learning_rate": 0.5}},
        ]});
        let Method::Auto(auto) = serde_json::from_value(request.clone()).unwrap() else { panic!("it is a race") };
        assert_eq!(auto.candidates.as_ref().unwrap()[1].hyperparameters.learning_rate, Some(0.5));
        assert_eq!(json!(auto), request);
        let Method::Single(method) = serde_json::from_value(json!({"type": "lora", "rank": 3})).unwrap() else {
            panic!("it is a method")
        };
        assert_eq!(method.name(), "lora");
    }

    #[test]
    fn an_unknown_method_error_lists_auto() {
        let error = serde_json::from_value::<Method>(json!({"type": "lara"})).unwrap_err().to_string();
        assert!(error.contains("`auto`") && error.contains("`lora`"), "{error}");
        let nested = json!({"type": "auto", "candidates": [{"type": "auto"}, {"type": "head"}]});
        let error = serde_json::from_value::<Method>(nested).unwrap_err().to_string();
        assert!(error.contains("unknown variant `auto`"), "{error}");
    }
}

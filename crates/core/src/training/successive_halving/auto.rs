//! Request for successive halving: `{"type": "auto", "candidates": […], "budget": {…}}` in place of a method.
//!
//! A candidate is a method with its settings, and optionally `hyperparameters` that differ from those of the job.

use crate::adapter;
use crate::training::hyperparameters::Schedule;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A method, or successive halving over several.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MethodOrRace)]
pub enum Method {
    Auto(Auto),
    Single(adapter::Config),
}

/// Successive halving: several methods are trained on the same examples, and the worse half is dropped at each rung.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Auto)]
pub struct Auto {
    #[serde(rename = "type")]
    pub kind: AutoType,
    /// At least two methods with their settings, each optionally with `hyperparameters` that differ from those of the job. By
    /// default the first eight of a built-in list that this base supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<CandidateSchema>>)]
    pub candidates: Option<Vec<Candidate<CandidateHyperparameters>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// Value `auto` of the field `type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RaceType)]
pub enum AutoType {
    #[default]
    Auto,
}

/// Budget of successive halving, counted in examples, so that the result does not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Examples that each candidate sees before the first rung. Each later rung is at twice as many, and the last candidate sees as
    /// many as in a job of its own. By default the examples of the full run divided by the power of two that leaves two candidates
    /// for its second half.
    pub first_rung: u64,
}

/// Candidate: a method with [`CandidateHyperparameters`] in a request, or with all hyperparameters in a specification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate<H> {
    #[serde(flatten)]
    pub method: adapter::Config,
    pub hyperparameters: H,
}

/// Hyperparameters that may differ between candidates. All others are shared, so that the candidates see the same batches.
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

/// OpenAPI schema of a candidate: the settings of the method are fields beside `type`.
#[derive(Serialize, ToSchema)]
#[schema(as = Candidate)]
#[allow(dead_code, reason = "only its schema is used")]
pub struct CandidateSchema {
    /// Type of the method; its settings are fields beside it.
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
        // The methods' list of types does not contain `auto`.
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
        let Method::Auto(auto) = serde_json::from_value(request.clone()).unwrap() else {
            panic!("successive halving was expected")
        };
        assert_eq!(auto.candidates.as_ref().unwrap()[1].hyperparameters.learning_rate, Some(0.5));
        assert_eq!(json!(auto), request);
        let Method::Single(method) = serde_json::from_value(json!({"type": "lora", "rank": 3})).unwrap() else {
            panic!("a method was expected")
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

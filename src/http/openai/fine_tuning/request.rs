//! Request to create a fine-tuning job, and its translation into a training job.

use super::method::{AutoOr, FineTuningHyperparameters, FineTuningMethod};
use crate::http::jobs::JobRequest;
use crate::http::json;
use crate::http::openai::field_rules::Rule;
use crate::http::openai::fields::OpenAiRequest;
use crate::http::openai::ids::IdKind;
use crate::http::openai::request::{resolve_model, unsupported_field};
use crate::http::resource_name::Name;
use crate::http::state::AppState;
use crate::store::Metadata;
use espalier_core::error::{Error, Result};
use espalier_core::task::{self, RowSchema, preference};
use espalier_core::training::{Hyperparameters, Validation};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest suffix, as in OpenAI's API.
const MAX_SUFFIX: usize = 64;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(example = json!({"model": "SmolLM2-135M-Instruct", "training_file": "file-01938f3e4b2d7a108c110a9b8c7d6e5f",
    "suffix": "support-answers", "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}}))]
pub struct FineTuningRequest {
    /// Base model's name, or an adapter to go on from.
    pub model: String,
    /// Id of an uploaded file.
    pub training_file: String,
    /// Id of an uploaded file. By default a tenth of the training file is held out.
    #[serde(default)]
    pub validation_file: Option<String>,
    /// Name of the adapter. The fine-tuned model is then `suffix@version`, otherwise the adapter's id.
    #[serde(default)]
    #[schema(max_length = 64)]
    pub suffix: Option<String>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub method: Option<FineTuningMethod>,
    /// Deprecated place of the hyperparameters.
    #[serde(default, deserialize_with = "json::deserialize_object")]
    pub hyperparameters: Option<FineTuningHyperparameters>,
    /// Only an empty list is supported.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub integrations: Option<Vec<Value>>,
    /// Up to 16 pairs.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

impl OpenAiRequest for FineTuningRequest {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "training_file",
        "validation_file",
        "suffix",
        "seed",
        "method",
        "hyperparameters",
        "integrations",
        "metadata",
    ];
    const INTEGERS: &'static [&'static str] = &["seed"];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &["seed"];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = &[];
}

/// Supported methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Supervised,
    Dpo,
}

impl FineTuningRequest {
    /// The training job, and the id of its dataset.
    ///
    /// # Errors
    /// `Invalid` for what is not supported, by its field, and for a file that does not fit the method; `NotFound` for a file.
    pub async fn into_job_request(self, state: &AppState, owner: &str) -> Result<(JobRequest, Uuid)> {
        if self.integrations.as_ref().is_some_and(|integrations| !integrations.is_empty()) {
            return Err(unsupported_field(
                "/integrations",
                "are not supported: poll the job's events, and leave it out",
            ));
        }
        let (method, hyperparameters) = self.method_and_hyperparameters()?;
        let reference = resolve_model(state, &self.model).map_err(|_| missing_model(&self.model))?;
        if let Some(reference) = &reference {
            let adapter = state.store.resolve_adapter(owner, reference).await;
            adapter.map_err(|error| match error {
                Error::NotFound(_) => missing_model(&self.model),
                other => other,
            })?;
        }
        let dataset_id = parse_file(&self.training_file, "training_file")?;
        let dataset =
            state.store.dataset(owner, dataset_id).await.map_err(|error| name_file(error, "training_file"))?;
        check_rows(method, dataset.report.target)?;
        let validation = match &self.validation_file {
            None => None,
            Some(file) => {
                let id = parse_file(file, "validation_file")?;
                state.store.dataset(owner, id).await.map_err(|error| name_file(error, "validation_file"))?;
                Some(Validation::DatasetId(id))
            }
        };
        let beta = AutoOr::value(hyperparameters.beta);
        if beta.is_some() && method != Method::Dpo {
            return Err(unsupported_field("/method/supervised/hyperparameters/beta", "belongs to the method \"dpo\""));
        }
        let task =
            beta.map(|beta| task::Config::Preference(preference::Config { beta, ..preference::Config::default() }));
        let request = JobRequest {
            name: self.suffix.as_deref().map(name_of_suffix).transpose()?,
            task,
            from_adapter: reference.as_ref().map(|_| self.model.clone()),
            hyperparameters: Hyperparameters {
                epochs: AutoOr::value(hyperparameters.n_epochs),
                batch_size: AutoOr::value(hyperparameters.batch_size),
                learning_rate_multiplier: AutoOr::value(hyperparameters.learning_rate_multiplier),
                seed: self.seed,
                ..Hyperparameters::default()
            },
            validation,
            metadata: self.metadata.unwrap_or_default(),
            ..JobRequest::default()
        };
        Ok((request, dataset_id))
    }

    fn method_and_hyperparameters(&self) -> Result<(Method, FineTuningHyperparameters)> {
        let deprecated = self.hyperparameters.clone();
        let Some(method) = &self.method else { return Ok((Method::Supervised, deprecated.unwrap_or_default())) };
        let (kind, settings) = match method.method_type.as_str() {
            "supervised" => (Method::Supervised, &method.supervised),
            "dpo" => (Method::Dpo, &method.dpo),
            other => {
                let message = format!("\"{other}\" is not supported: send \"supervised\" or \"dpo\"");
                return Err(unsupported_field("/method/type", &message));
            }
        };
        let others = [("supervised", &method.supervised, Method::Supervised), ("dpo", &method.dpo, Method::Dpo)];
        if let Some((name, ..)) = others.iter().find(|(_, settings, other)| settings.is_some() && *other != kind) {
            let message = format!("does not belong to the method \"{}\": leave it out", method.method_type);
            return Err(unsupported_field(&format!("/method/{name}"), &message));
        }
        if method.reinforcement.is_some() {
            return Err(unsupported_field("/method/reinforcement", "is not supported: leave it out"));
        }
        let own = settings.as_ref().and_then(|settings| settings.hyperparameters.clone());
        if own.is_some() && deprecated.is_some() {
            let message = "are given twice: leave them out, and keep those of the method";
            return Err(Error::invalid_field("/hyperparameters", message));
        }
        Ok((kind, own.or(deprecated).unwrap_or_default()))
    }
}

/// Whether the rows are of the method's kind.
fn check_rows(method: Method, rows: RowSchema) -> Result<()> {
    match (method, rows) {
        (Method::Dpo, RowSchema::Chosen) => Ok(()),
        (Method::Dpo, _) => {
            let message =
                "has no preferences: rows of \"dpo\" have \"input\", \"preferred_output\" and \"non_preferred_output\"";
            Err(Error::invalid_field("/training_file", message))
        }
        (Method::Supervised, RowSchema::Chosen) => {
            let message = "holds preferences: send \"method\": {\"type\": \"dpo\"}";
            Err(Error::invalid_field("/training_file", message))
        }
        (Method::Supervised, _) => Ok(()),
    }
}

fn parse_file(id: &str, field: &str) -> Result<Uuid> {
    IdKind::File.parse(id).ok_or_else(|| {
        Error::invalid_field(
            format!("/{field}"),
            format!("\"{id}\" is not the id of a file: POST /v1/files returns it"),
        )
    })
}

fn name_file(error: Error, field: &str) -> Error {
    match error {
        Error::NotFound(_) => {
            Error::invalid_field(format!("/{field}"), "there is no such file: GET /v1/files lists them")
        }
        other => other,
    }
}

fn missing_model(model: &str) -> Error {
    Error::invalid_field("/model", format!("\"{model}\" does not exist: GET /v1/models lists the available models"))
}

/// Adapter name of a suffix: in lower case, with a hyphen for each character that names do not have.
fn name_of_suffix(suffix: &str) -> Result<Name> {
    let to_name = |character: char| match character {
        character if character.is_ascii_alphanumeric() => character.to_ascii_lowercase(),
        '.' | '_' => character,
        _ => '-',
    };
    let trimmed = suffix.trim().trim_start_matches(|character| !char::is_ascii_alphanumeric(&character));
    // One character above the limit is refused as too long.
    let name: String = trimmed.chars().take(MAX_SUFFIX + 1).map(to_name).collect();
    Name::try_from(name).map_err(|message| Error::invalid_field("/suffix", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;

    fn request(fields: &str) -> FineTuningRequest {
        json::parse(format!(r#"{{"model": "m", "training_file": "file-1"{fields}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn hyperparameters_are_read_from_the_method_and_from_their_old_place() {
        let of_method = r#", "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": "auto"}}}"#;
        let (method, found) = request(of_method).method_and_hyperparameters().unwrap();
        assert_eq!((method, found.n_epochs), (Method::Dpo, Some(AutoOr::Value(2))));
        assert_eq!(AutoOr::value(found.beta), None);
        let old = r#", "hyperparameters": {"n_epochs": "auto", "batch_size": 4, "learning_rate_multiplier": 0.5}"#;
        let (method, found) = request(old).method_and_hyperparameters().unwrap();
        assert_eq!((method, AutoOr::value(found.batch_size)), (Method::Supervised, Some(4)));
        assert_eq!(AutoOr::value(found.learning_rate_multiplier), Some(0.5));
    }

    #[test]
    fn other_methods_are_refused_by_name() {
        for method in [
            r#"{"type": "reinforcement", "reinforcement": {}}"#,
            r#"{"type": "dpo", "supervised": {}}"#,
            r#"{"type": "dpo", "reinforcement": {}}"#,
        ] {
            let error = request(&format!(r#", "method": {method}"#)).method_and_hyperparameters().unwrap_err();
            assert_eq!(error.code(), "unsupported_field", "{method}");
        }
    }

    #[test]
    fn suffixes_become_names() {
        let name = |suffix: &str| name_of_suffix(suffix).map(Name::into_string);
        assert_eq!(name("Support Answers v2").unwrap(), "support-answers-v2");
        assert_eq!(name("-x").unwrap(), "x");
        assert!(name("").is_err() && name(&"a".repeat(65)).is_err());
    }
}

//! Deployment in the path of a request by a client of Azure OpenAI: the model's name.

use crate::http::error::ApiResult;
use crate::http::request_path::Deployment;
use espalier_core::error::{Context, Error};
use serde_json::{Map, Value};

/// Adds the deployment as `model` to a body without one. What is not an object gets its error from the typed parser.
///
/// # Errors
/// `Invalid` if the body names another model.
pub fn add_model(body: Vec<u8>, deployment: Option<Deployment>) -> ApiResult<Vec<u8>> {
    let Some(Deployment(name)) = deployment else { return Ok(body) };
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&body) else { return Ok(body) };
    match fields.get("model") {
        None | Some(Value::Null) => {
            fields.insert("model".to_string(), Value::String(name));
            Ok(serde_json::to_vec(&fields).context("adding the deployment to a request")?)
        }
        Some(Value::String(model)) if *model != name => {
            let message =
                format!("is \"{model}\", but the deployment in the path is \"{name}\": leave one of them out");
            Err(Error::invalid_field("/model", message).into())
        }
        Some(_) => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_is_the_model() {
        let with = |body: &str| add_model(body.as_bytes().to_vec(), Some(Deployment("a".to_string())));
        let model = |body: &str| serde_json::from_slice::<Value>(&with(body).unwrap()).unwrap()["model"].clone();
        for body in ["{}", r#"{"model": null, "n": 1}"#, r#"{"model": "a"}"#] {
            assert_eq!(model(body), "a", "{body}");
        }
        assert_eq!(with(r#"{"model": "b"}"#).unwrap_err().field_errors.len(), 1);
        assert_eq!(with("[").unwrap(), b"[");
        assert_eq!(add_model(b"{}".to_vec(), None).unwrap(), b"{}");
    }
}

//! Computes embeddings of any number of texts with the base model or an embedding adapter.

use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::inference;
use crate::http::state::AppState;
use crate::serving::{LongInputs, PredictOptions};
use crate::store::Reference;
use espalier_core::error::{Error, Location, Problem, Result};
use espalier_core::task::{Input, Prediction};

/// Texts of one request, and how they are embedded.
pub struct EmbedRequest<'a> {
    pub caller: &'a Caller,
    /// `None` for the base model.
    pub reference: Option<&'a Reference>,
    pub texts: Vec<String>,
    pub long_inputs: LongInputs,
    /// Scales each embedding to length 1.
    pub normalize: bool,
    /// Leading components that are kept (Matryoshka Representation Learning, Kusupati et al. 2022); all if `None`.
    pub dimensions: Option<usize>,
    /// Field of the request that holds the texts.
    pub field: &'static str,
}

pub struct Embeddings {
    /// One per text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
}

/// Embeds texts in groups of `--max-inputs`, one after another.
///
/// # Errors
/// `Invalid` for texts that are empty or too long, for `dimensions` beyond the embedding's, and for an adapter of another task;
/// the errors of [`crate::serving::InferenceService::predict`].
pub async fn embed(state: &AppState, request: EmbedRequest<'_>) -> Result<Embeddings> {
    let EmbedRequest { caller, reference, texts, long_inputs, normalize, dimensions, field } = request;
    if texts.is_empty() {
        return Err(Error::invalid_field(format!("/{field}"), "holds no text: give at least one"));
    }
    let inputs = texts.into_iter().map(Input::from_text).collect();
    let options = PredictOptions { long_inputs, ..PredictOptions::default() };
    let Predictions { predictions, tokens } =
        predict_in_groups(state, caller, reference, inputs, options, field).await?;
    let to_vector = |prediction| match prediction {
        Prediction::Embedding(embedding) => resize(embedding.embedding, dimensions, normalize),
        _ => Err(no_embedding()),
    };
    Ok(Embeddings { vectors: predictions.into_iter().map(to_vector).collect::<Result<_>>()?, tokens })
}

/// Predictions of any number of inputs.
pub struct Predictions {
    /// One per input, in order.
    pub predictions: Vec<Prediction>,
    /// Tokens of all inputs.
    pub tokens: usize,
}

/// Predicts in groups of `--max-inputs`, one after another. Errors of an input name its place in `field`.
///
/// # Errors
/// Those of [`crate::serving::InferenceService::predict`].
pub async fn predict_in_groups(
    state: &AppState,
    caller: &Caller,
    reference: Option<&Reference>,
    inputs: Vec<Input>,
    options: PredictOptions,
    field: &str,
) -> Result<Predictions> {
    let mut all = Predictions { predictions: Vec::with_capacity(inputs.len()), tokens: 0 };
    let mut inputs = inputs.into_iter();
    loop {
        let group: Vec<Input> = inputs.by_ref().take(state.serving.max_inputs()).collect();
        if group.is_empty() {
            return Ok(all);
        }
        let first = all.predictions.len();
        let response = inference::predict(state, caller, reference, group, options.clone()).await;
        let response = response.map_err(|error| locate_inputs(error, field, first))?;
        all.tokens += response.token_counts.iter().sum::<usize>();
        all.predictions.extend(response.predictions);
    }
}

fn no_embedding() -> Error {
    let detail = "the adapter is for another task than embeddings: use POST /predict with it, or name an embedding adapter or the base model";
    Error::invalid("no_embedding", detail)
}

fn resize(mut embedding: Vec<f32>, dimensions: Option<usize>, normalize: bool) -> Result<Vec<f32>> {
    if let Some(dimensions) = dimensions {
        if dimensions == 0 || dimensions > embedding.len() {
            let message = format!("must be between 1 and {}, the length of this model's embeddings", embedding.len());
            return Err(Error::invalid_field("/dimensions", message));
        }
        embedding.truncate(dimensions);
    }
    if normalize {
        let length = embedding.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            embedding.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
    Ok(embedding)
}

/// Names the field of this request in errors of `inputs`, whose first one is the text number `first`.
fn locate_inputs(error: Error, field: &str, first: usize) -> Error {
    let Error::Invalid(mut problem) = error else { return error };
    for field_error in &mut problem.errors {
        if let Location::Pointer(pointer) = &mut field_error.location
            && let Some(index) = pointer.strip_prefix("/inputs/").and_then(|index| index.parse::<usize>().ok())
        {
            *pointer = format!("/{field}/{}", first + index);
        }
    }
    Error::Invalid(problem)
}

/// Cosine of the angle between two embeddings; 0 if one of them has length 0.
pub fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
    };
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    if lengths > 0.0 { (dot(one, other) / lengths) as f32 } else { 0.0 }
}

/// An input that is longer than the model reads, in the words that clients of OpenAI's API look for.
pub fn to_context_length_error(error: Error, max_tokens: usize) -> ApiError {
    match error {
        Error::Invalid(problem) if problem.code == "input_too_long" => {
            let detail = format!(
                "this model's maximum context length is {max_tokens} tokens, and an input is longer: shorten it, or send \"truncate\": true"
            );
            Error::Invalid(Problem { code: "context_length_exceeded", detail, ..problem }).into()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_keep_leading_components_and_length_one() {
        let embedding = resize(vec![3.0, 4.0, 12.0], Some(2), true).unwrap();
        assert!((embedding[0] - 0.6).abs() < 1e-6 && (embedding[1] - 0.8).abs() < 1e-6, "{embedding:?}");
        assert_eq!(resize(vec![3.0, 4.0], None, false).unwrap(), [3.0, 4.0]);
        assert_eq!(resize(vec![0.0, 0.0], None, true).unwrap(), [0.0, 0.0]);
        assert!(resize(vec![3.0], Some(2), true).is_err() && resize(vec![3.0], Some(0), true).is_err());
    }

    #[test]
    fn cosine_of_vectors_of_any_length() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 4.0]) - 0.6).abs() < 1e-6);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}

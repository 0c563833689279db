//! Relevance of texts to a query: the cosine of their embeddings, or the prediction of an adapter that reads pairs.

use super::compute::{EmbedRequest, Predictions, cosine, embed, predict_in_groups};
use crate::http::auth::Caller;
use crate::http::openai::relevant_labels::{RELEVANT_LABELS, is_relevant};
use crate::http::state::AppState;
use crate::serving::{LongInputs, PredictOptions};
use crate::store::Reference;
use espalier_core::error::{Error, Result};
use espalier_core::task::{Input, Prediction};

/// A query and the texts to compare it with.
pub struct RelevanceRequest<'a> {
    pub caller: &'a Caller,
    /// `None` for the base model.
    pub reference: Option<&'a Reference>,
    pub query: String,
    pub texts: Vec<String>,
    pub long_inputs: LongInputs,
    /// Field of the request that holds the texts.
    pub field: &'static str,
}

pub struct Relevance {
    /// One score per text, in order.
    pub scores: Vec<f32>,
    /// Tokens of the query and the texts.
    pub tokens: usize,
}

/// Scores every text.
///
/// # Errors
/// `Invalid` for empty texts, and for an adapter that neither embeds nor scores pairs.
pub async fn score(state: &AppState, request: RelevanceRequest<'_>) -> Result<Relevance> {
    match scores_pairs(state, request.caller, request.reference).await? {
        true => score_pairs(state, request).await,
        false => score_by_cosine(state, request).await,
    }
}

async fn scores_pairs(state: &AppState, caller: &Caller, reference: Option<&Reference>) -> Result<bool> {
    let Some(reference) = reference else { return Ok(false) };
    caller.check_adapter(state.store.as_ref(), reference).await?;
    let adapter = state.store.adapter(&caller.owner, reference).await?;
    let task = &adapter.description.task;
    Ok(["sequence_classification", "regression"].contains(&task.type_name()))
}

async fn score_by_cosine(state: &AppState, request: RelevanceRequest<'_>) -> Result<Relevance> {
    let RelevanceRequest { caller, reference, query, texts, long_inputs, field } = request;
    let embed_texts = |texts, field| {
        embed(state, EmbedRequest { caller, reference, texts, long_inputs, normalize: false, dimensions: None, field })
    };
    let embedded = embed_texts(texts, field).await?;
    let query = embed_texts(vec![query], "query").await?;
    let scores = embedded.vectors.iter().map(|vector| cosine(&query.vectors[0], vector)).collect();
    Ok(Relevance { scores, tokens: embedded.tokens + query.tokens })
}

async fn score_pairs(state: &AppState, request: RelevanceRequest<'_>) -> Result<Relevance> {
    let RelevanceRequest { caller, reference, query, texts, long_inputs, field } = request;
    if texts.is_empty() {
        return Err(Error::invalid_field(format!("/{field}"), "holds no text: give at least one"));
    }
    let pair = |text: String| Input { text_pair: Some(text), ..Input::from_text(query.clone()) };
    let options = PredictOptions { long_inputs, top_k: usize::MAX, ..PredictOptions::default() };
    let pairs = texts.into_iter().map(pair).collect();
    let Predictions { predictions, tokens } =
        predict_in_groups(state, caller, reference, pairs, options, field).await?;
    Ok(Relevance { scores: predictions.iter().map(pair_score).collect::<Result<_>>()?, tokens })
}

/// Predicted value, or the probability of the label of relevant pairs.
fn pair_score(prediction: &Prediction) -> Result<f32> {
    match prediction {
        Prediction::Regression(prediction) => Ok(prediction.value),
        Prediction::Classification(prediction) => {
            let mut relevant = prediction.top.iter().filter(|scored| is_relevant(&scored.label));
            match (relevant.next(), relevant.next()) {
                (Some(scored), None) => Ok(scored.score),
                _ => Err(no_relevance()),
            }
        }
        _ => Err(no_relevance()),
    }
}

fn no_relevance() -> Error {
    let detail = format!(
        "the adapter does not say which pairs are relevant: it has to be a regression, or a classification with exactly one of the labels {}; \
         or use an embedding adapter or the base model",
        RELEVANT_LABELS.join(", ")
    );
    Error::invalid("no_relevance", detail)
}

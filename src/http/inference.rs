//! Predictions and generated text for a caller: checks that its key allows the adapter, and counts the usage.

use super::auth::Caller;
use super::state::AppState;
use crate::serving::{GenerationRequest, PredictOptions, PredictResponse, RunningGeneration};
use crate::store::{Reference, UsageCounts};
use espalier_core::error::Result;
use espalier_core::task::Input;
use std::sync::Arc;

/// Predicts with an adapter, or embeds with the base model.
///
/// # Errors
/// Those of [`crate::serving::InferenceService::predict`]; `NotFound` for an adapter that the caller's key does not allow.
pub async fn predict(
    state: &AppState,
    caller: &Caller,
    reference: Option<&Reference>,
    inputs: Vec<Input>,
    options: PredictOptions,
) -> Result<PredictResponse> {
    check_adapter(state, caller, reference).await?;
    let response = state.serving.predict(&caller.owner, reference, inputs, options).await?;
    let input_tokens = response.token_counts.iter().map(|tokens| *tokens as u64).sum();
    let counts = UsageCounts { requests: 1, input_tokens, output_tokens: 0 };
    state.usage.record(caller, response.adapter.as_deref(), counts);
    Ok(response)
}

/// Starts to generate. The tokens of a prompt count once, however many texts it has; generated tokens count when the stream of their text
/// ends, also by a client that disconnects.
///
/// # Errors
/// Those of [`crate::serving::InferenceService::generate`]; `NotFound` for an adapter that the caller's key does not allow.
pub async fn generate(
    state: &AppState,
    caller: &Caller,
    reference: Option<&Reference>,
    request: GenerationRequest,
) -> Result<RunningGeneration> {
    check_adapter(state, caller, reference).await?;
    let choices_per_prompt = (request.choices_per_prompt as usize).max(1);
    let mut running = state.serving.generate(&caller.owner, reference, request).await?;
    let first_choices = running.streams.iter().step_by(choices_per_prompt);
    let input_tokens = first_choices.map(|stream| stream.prompt_tokens as u64).sum();
    let counts = UsageCounts { requests: 1, input_tokens, output_tokens: 0 };
    state.usage.record(caller, running.adapter.as_deref(), counts);
    let (usage, caller, adapter) = (Arc::clone(&state.usage), caller.clone(), running.adapter.clone());
    let meter = Arc::new(move |output_tokens| {
        let counts = UsageCounts { requests: 0, input_tokens: 0, output_tokens };
        usage.record(&caller, adapter.as_deref(), counts);
    });
    running.streams.iter_mut().for_each(|stream| stream.count_tokens_with(meter.clone()));
    Ok(running)
}

async fn check_adapter(state: &AppState, caller: &Caller, reference: Option<&Reference>) -> Result<()> {
    match reference {
        Some(reference) => caller.check_adapter(state.store.as_ref(), reference).await,
        None => Ok(()),
    }
}

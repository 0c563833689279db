//! Predictions with trained adapters on a small base model: concurrent requests get the outputs of single requests.

mod concurrency;
mod errors;
mod predictions;

use crate::support::worker_fixture::{JobParams, WorkerFixture};
use espalier::serving::{
    InferenceService, LogitsOutput, LongInputs, PredictOptions, PredictResponse, Settings, generation,
};
use espalier::store::{DEFAULT_OWNER, Reference};
use espalier_core::task::{Example, Input, Prediction, Target};
use espalier_tensor::ActivationQuantization;
use std::sync::Arc;
use std::time::Duration;

const PREDICT_OPTIONS: PredictOptions =
    PredictOptions { top_k: 2, logits: LogitsOutput::Include, long_inputs: LongInputs::Truncate, threshold: None };

fn settings() -> Settings {
    Settings {
        threads: 2,
        max_name_staleness: Duration::from_secs(60),
        adapter_cache_bytes: 1 << 20,
        max_queued_inputs: 1000,
        max_queue_wait: Duration::from_secs(10),
        max_batch_delay: Duration::from_millis(2),
        max_batch_tokens: 512,
        max_inputs_per_request: 100,
        max_text_bytes: 1 << 20,
        activation_quantization: ActivationQuantization::F32,
        generation: generation::Settings {
            threads: 1,
            kv_cache_bytes: 1 << 20,
            constraint_bytes: 1 << 20,
            max_queued_sequences: 1,
            max_text_bytes: 1 << 20,
            max_running_sequences: 1,
            default_max_tokens: 16,
            training_cpu_share: 0.0,
            prefill_chunk_tokens: 16,
            prompt_lookup_tokens: 0,
        },
    }
}

fn start(fixture: &WorkerFixture, settings: Settings) -> InferenceService {
    let (base, store) = (Arc::clone(fixture.base()), Arc::clone(&fixture.context.store));
    InferenceService::start(base, store, Arc::clone(&fixture.context.blobs), settings).unwrap()
}

fn inputs(texts: &[&str]) -> Vec<Input> {
    texts.iter().map(|text| Input::from_text(*text)).collect()
}

fn by_name(name: &str) -> Reference {
    Reference::Name(name.to_string())
}

/// Trains and publishes an adapter with this number of labels.
async fn train(fixture: &WorkerFixture, name: &'static str, labels: usize, seed: u64) {
    let relabel = |(index, example): (usize, Example)| {
        let kind = ["arrival", "fee", "help", "lost", "blocked", "other"][index % labels];
        Example { target: Target::Label(format!("{name}:{kind}")), text: format!("{} {kind}", example.text), ..example }
    };
    let examples: Vec<Example> = espalier_testing::jobs::examples(24).into_iter().enumerate().map(relabel).collect();
    // Without validation: on random weights the untrained adapter may score best, and then it has no effect to test.
    let params = JobParams { name, epochs: 2, seed, validation: 0.0 };
    let id = fixture.queue_job_with_examples(params, &examples).await;
    fixture.run_queued_jobs().await;
    let job = fixture.job(id).await;
    assert!(job.adapter_id.is_some(), "{:?}", job.error);
}

async fn predict(
    serving: &InferenceService,
    name: &str,
    texts: &[&str],
) -> espalier_core::error::Result<PredictResponse> {
    serving.predict(DEFAULT_OWNER, Some(&by_name(name)), inputs(texts), PREDICT_OPTIONS).await
}

/// The logits or embedding of every prediction.
fn logits(response: &PredictResponse) -> Vec<Vec<f32>> {
    let values = |prediction: &Prediction| match prediction {
        Prediction::Classification(prediction) => prediction.logits.clone().expect("the request includes logits"),
        Prediction::Embedding(embedding) => embedding.embedding.clone(),
        other => panic!("neither a classification nor an embedding: {other:?}"),
    };
    response.predictions.iter().map(values).collect()
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

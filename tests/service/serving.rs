//! Serving on a real base, with adapters that were trained: whatever is asked at the same time, every answer is the one
//! that its adapter gives alone.
mod answers;
mod refusals;
mod together;

use crate::support::house::{House, Wanted};
use espalier::serving::{Answer, Ask, Logits, Serving, Settings, generate};
use espalier::store::{DEFAULT_OWNER, Reference};
use espalier_core::task::{Example, Input, Prediction, Target};
use espalier_tensor::held::Activations;
use std::sync::Arc;
use std::time::Duration;

const ASK: Ask = Ask { top_k: 2, logits: Logits::Include };

fn settings() -> Settings {
    Settings {
        threads: 2,
        cache_bytes: 1 << 20,
        max_waiting: 1000,
        batch_window: Duration::from_millis(2),
        batch_tokens: 512,
        max_inputs: 100,
        generation: generate::Settings {
            threads: 1,
            memory_bytes: 1 << 20,
            max_waiting: 1,
            max_running: 1,
            usual_tokens: 16,
            training_share: 0.0,
            activations: Activations::F32,
            prompt_tokens: 16,
        },
    }
}

fn start(house: &House, settings: Settings) -> Serving {
    let (base, store) = (Arc::clone(house.base()), Arc::clone(&house.workshop.store));
    Serving::start(base, store, house.workshop.folder.adapters(), settings).unwrap()
}

fn inputs(texts: &[&str]) -> Vec<Input> {
    texts.iter().map(|text| Input::text(*text)).collect()
}

fn named(name: &str) -> Reference {
    Reference::Name(name.to_string())
}

/// Publishes an adapter with this many labels under the name.
async fn train(house: &House, name: &'static str, labels: usize, seed: u64) {
    let relabel = |(index, example): (usize, Example)| {
        let kind = ["arrival", "fee", "help", "lost", "blocked", "other"][index % labels];
        Example { target: Target::Label(format!("{name}:{kind}")), text: format!("{} {kind}", example.text), ..example }
    };
    let examples: Vec<Example> = espalier_testing::jobs::examples(24).into_iter().enumerate().map(relabel).collect();
    // Nothing is put aside: on random weights the head alone may be the best, and then there is no effect to prove.
    let wanted = Wanted { name, epochs: 2, seed, validation: 0.0 };
    let id = house.queue_with(wanted, &examples).await;
    house.work().await;
    let job = house.job(id).await;
    assert!(job.adapter_id.is_some(), "{:?}", job.error);
}

async fn ask(serving: &Serving, name: &str, texts: &[&str]) -> espalier_core::error::Result<Answer> {
    serving.predict(DEFAULT_OWNER, Some(&named(name)), inputs(texts), ASK).await
}

/// The logits of every prediction.
fn logits(answer: &Answer) -> Vec<Vec<f32>> {
    let one = |prediction: &Prediction| match prediction {
        Prediction::Classification(prediction) => prediction.logits.clone().expect("they were asked for"),
        Prediction::Embedding(embedding) => embedding.embedding.clone(),
        other => panic!("neither a class nor an embedding: {other:?}"),
    };
    answer.predictions.iter().map(one).collect()
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

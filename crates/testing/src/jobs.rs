//! Tiny base model, and a small dataset for it.

use crate::workspace;
use espalier_core::adapter;
use espalier_core::model::BaseModel;
use espalier_core::task::{Example, Target};
use espalier_core::training::{Hyperparameters, Spec, TrainingData, spec::Request};
use espalier_tensor::backend::cpu::CpuBackend;
use std::path::PathBuf;
use std::sync::Arc;

pub fn fixture(name: &str) -> PathBuf {
    workspace().join("tests/fixtures").join(name)
}

/// BERT with two layers of hidden size 32 and random weights.
pub fn tiny_base() -> Arc<BaseModel> {
    Arc::new(BaseModel::load(&fixture("tiny-bert"), "tiny-bert", Arc::new(CpuBackend::detect())).unwrap())
}

/// Sentences of three classes that differ in a few words.
pub fn examples(count: usize) -> Vec<Example> {
    let subjects = ["my card", "the new card", "a transfer", "this payment", "my account", "cash"];
    let kinds = [("arrival", "when will it arrive"), ("fee", "why was I charged"), ("help", "how can I change it")];
    let example = |index: usize| {
        let (label, question) = kinds[index % kinds.len()];
        let (subject, prefix) = (subjects[index % subjects.len()], "please ".repeat(index % 4));
        let text = format!("{prefix}{question} {subject} number {index}");
        Example { line: index as u64 + 2, text, text_pair: None, target: Target::Label(label.to_string()) }
    };
    (0..count).map(example).collect()
}

/// Labels of the examples, sorted and distinct.
pub fn labels(examples: &[Example]) -> Vec<String> {
    let mut labels: Vec<String> = examples
        .iter()
        .map(|example| {
            let Target::Label(label) = &example.target else { panic!("a label was expected") };
            label.clone()
        })
        .collect();
    labels.sort();
    labels.dedup();
    labels
}

/// Specification on the tiny base, and its data.
pub fn spec_and_data(
    base: &BaseModel,
    method: adapter::Config,
    hyperparameters: Hyperparameters,
    count: usize,
) -> (Spec, TrainingData) {
    let examples = examples(count);
    let request = Request { method: Some(method), hyperparameters, ..Request::default() };
    let spec = Spec::resolve(&request, &labels(&examples), examples.len(), base).unwrap();
    (spec, TrainingData { examples, validation: None, source_weights: None })
}

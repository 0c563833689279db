//! All tasks, with a few training examples for each.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use super::jobs;
use espalier_core::adapter;
use espalier_core::model::BaseModel;
use espalier_core::task::{self, Config, Example, Target, embedding, word_spans};
use espalier_core::training::{Hyperparameters, Spec, TrainingData, spec::Request};
use espalier_tensor::backend::cpu::CpuBackend;
use std::sync::Arc;

/// All tasks with all their losses and modes.
pub fn all_tasks() -> Vec<Config> {
    let tasks = serde_json::json!([
        {"type": "sequence_classification"},
        {"type": "sequence_classification", "multi_label": true},
        {"type": "regression"},
        {"type": "token_classification"},
        {"type": "embedding", "loss": "multiple_negatives_ranking"},
        {"type": "embedding", "loss": "cosine"},
        {"type": "masked_language_model"},
        {"type": "causal_language_model"},
        {"type": "preference"},
    ]);
    let all: Vec<Config> = serde_json::from_value(tasks).unwrap();
    assert!(task::TASK_TYPES.iter().all(|name| all.iter().any(|task| task.type_name() == *name)), "a task is missing");
    all
}

/// Small BERT with a masked language model head.
pub fn bert_base() -> Arc<BaseModel> {
    base_of_architecture("bert")
}

/// Base that the task can be trained on: a small decoder for generation, else a small BERT.
pub fn base_for_task(task: &Config) -> Arc<BaseModel> {
    match task.is_generative() {
        false => bert_base(),
        true => {
            let folder = jobs::fixture("decoders").join("qwen3");
            Arc::new(BaseModel::load(&folder, "qwen3", Arc::new(CpuBackend::detect())).unwrap())
        }
    }
}

/// Small encoder of an architecture, with a masked language model head.
pub fn base_of_architecture(model_type: &str) -> Arc<BaseModel> {
    let folder = jobs::fixture("language").join(model_type);
    Arc::new(BaseModel::load(&folder, model_type, Arc::new(CpuBackend::detect())).unwrap())
}

/// The sentences of [`jobs::examples`] with targets of this task.
pub fn examples(task: &Config, count: usize) -> Vec<Example> {
    jobs::examples(count).into_iter().map(|example| to_task_example(task, example)).collect()
}

fn to_task_example(task: &Config, example: Example) -> Example {
    let Target::Label(label) = &example.target else { panic!("a label was expected") };
    let target = match task {
        Config::SequenceClassification(config) if config.multi_label => match label.as_str() {
            "help" => Target::MultiLabel(Vec::new()),
            label => Target::MultiLabel(vec![label.to_string(), "any".to_string()]),
        },
        Config::SequenceClassification(_) => example.target.clone(),
        Config::Regression(_) => Target::Value(label.len() as f64),
        Config::TokenClassification(_) => {
            let words = word_spans::split_words(&example.text);
            let tag = |word: &str| match word {
                "card" | "account" | "cash" => "B-THING",
                "arrive" | "charged" | "change" => "B-VERB",
                _ => "O",
            };
            let tags = words.iter().map(|span| tag(word_spans::slice_chars(&example.text, span)).to_string()).collect();
            Target::Tags { words, tags }
        }
        Config::Embedding(config) if config.loss == Some(embedding::Loss::Cosine) => {
            let score = f64::from(u8::from(label == "fee")) * 4.0 + 1.0;
            let text_pair = Some("why was there a charge".to_string());
            return Example { text_pair, target: Target::Score(score), ..example };
        }
        Config::MaskedLanguageModel(_) => Target::Text,
        Config::Preference(_) => {
            Target::Preference { chosen: format!(" {label}"), rejected: " none of these".to_string() }
        }
        Config::CausalLanguageModel(_) => Target::Completion(format!(" {label}")),
        Config::Embedding(_) => {
            let negative = example.line.is_multiple_of(2).then(|| "nothing of the kind".to_string());
            Target::Positive { positive: format!("{label} please"), negative }
        }
    };
    Example { target, ..example }
}

/// Specification for a task, and its data.
pub fn spec_and_data(
    base: &BaseModel,
    task: &Config,
    method: adapter::Config,
    hyperparameters: Hyperparameters,
    count: usize,
) -> (Spec, TrainingData) {
    let examples = examples(task, count);
    let labels: Vec<String> = examples.iter().flat_map(|example| example.target.labels()).cloned().collect();
    let request = Request { method: Some(method), task: Some(task.clone()), hyperparameters, ..Request::default() };
    let spec = Spec::resolve(&request, &labels, examples.len(), base).unwrap();
    (spec, TrainingData { examples, validation: None, source_weights: None })
}

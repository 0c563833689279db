//! Logits, loss and gradients against PyTorch, transformers and PEFT (`tests/golden/make.py`), on a small committed model, or on another
//! one with `ESPALIER_GOLDEN_MODEL` and `ESPALIER_GOLDEN_CASES` (`make golden` uses a real one).

use espalier_core::adapter::{self, ParameterBuilder, lora};
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task;
use espalier_core::task::objective::MicroBatch;
use espalier_core::task::sequence_classification::ClassObjective;
use espalier_core::training::network::{ForwardInput, Network};
use espalier_core::training::{Hyperparameters, Spec, hyperparameters::DefaultsContext};
use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Backend, Dropout, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Relative to the largest value of the tensor.
const TOLERANCE: f32 = 1e-4;

fn folder(variable: &str, committed: &str) -> PathBuf {
    let committed = || espalier_testing::workspace().join("tests/fixtures").join(committed);
    std::env::var_os(variable).map_or_else(committed, PathBuf::from)
}

fn tensors(path: PathBuf) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let one = |(name, view): (&str, safetensors::tensor::TensorView)| {
        let values = view.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
        (name.to_string(), Tensor::new(view.shape(), values))
    };
    read.iter().map(one).collect()
}

fn spec(base: &BaseModel, pooling: Pooling) -> Spec {
    let method = lora::Config {
        rank: 4,
        alpha: Some(6.0),
        target_modules: adapter::target_modules::TargetModules::Single("all-linear".to_string()),
        ..lora::Config::default()
    };
    let given = DefaultsContext {
        examples: 6,
        max_tokens: 64,
        learning_rate: 1e-3,
        min_steps: 1,
        metric_names: &["accuracy"],
        task_defaults: task::Config::default().defaults(),
        held_out_examples: None,
    };
    Spec {
        task: task::Config::default().with_pooling(pooling),
        method: adapter::Config::Lora(method).resolve(base, pooling).unwrap(),
        from_adapter: None,
        hyperparameters: Hyperparameters::default().resolve(given, &mut Vec::new()),
        validation: espalier_core::training::Validation::Fraction(0.0),
        selection_metric: None,
        samples: None,
        labels: ["a", "b", "c"].map(String::from).to_vec(),
        micro_batch_tokens: 256,
        kernels: base.info().backend.clone(),
        base: base.info().fingerprint.clone(),
    }
}

/// The largest difference, relative to the largest expected value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs())).max(1e-12);
    let difference = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    difference.fold(0f32, f32::max) / largest
}

fn compare(pooling: Pooling, name: &str) {
    compare_on(Arc::new(CandleBackend::cpu()), pooling, name);
    compare_on(Arc::new(CpuBackend::detect()), pooling, name);
}

fn compare_on(backend: Arc<dyn Backend>, pooling: Pooling, name: &str) {
    let base = BaseModel::load(&folder("ESPALIER_GOLDEN_MODEL", "tiny-bert"), "golden", backend).unwrap();
    let base = Arc::new(base);
    let cases = folder("ESPALIER_GOLDEN_CASES", "golden");
    let said: Value = serde_json::from_slice(&std::fs::read(cases.join("cases.json")).unwrap()).unwrap();
    let case = said["cases"].as_array().unwrap().iter().find(|case| case["pooling"] == name).unwrap();
    let mut golden = tensors(cases.join(format!("{name}.safetensors")));
    let logits = golden.remove("logits").unwrap();
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let named =
            golden.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())));
        named.collect()
    };
    let texts = said["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let tokens: Vec<_> = texts.map(|text| Arc::new(base.tokenizer().encode(text, None, 64).unwrap())).collect();
    for (tokens, expected) in tokens.iter().zip(case["ids"].as_array().unwrap()) {
        assert_eq!(serde_json::json!(tokens.ids), *expected);
    }
    let (network, built) =
        Network::build(&base, &spec(&base, pooling), ParameterBuilder::from_weights(part("value."))).unwrap();
    let parameters = network.upload(&built.tensors).unwrap();
    let source = ForwardInput::from_tokens(tokens);
    let found = network.outputs(&parameters, &source).unwrap();
    let mut worst = error(&found, &logits.values);
    assert!(worst <= TOLERANCE, "logits differ by {worst}");

    let labels: Vec<u32> = serde_json::from_value(said["labels"].clone()).unwrap();
    let examples: Vec<usize> = (0..labels.len()).collect();
    let objective = ClassObjective::unweighted(labels, 3);
    let batch = MicroBatch { examples: &examples, label_ids: &[] };
    let dropout = Dropout { seed: 1, step: 0, example_ids: (0..6).collect() };
    let forward = network.forward(&parameters, source, dropout).unwrap();
    let step = network.gradients(forward, &objective, &batch, 6.0).unwrap();
    assert!((step.loss / 6.0 - case["loss"].as_f64().unwrap()).abs() < 1e-5);
    let expected = part("gradient.");
    assert_eq!(expected.len(), built.names.len(), "every parameter has a golden gradient");
    for (name, gradient) in built.names.iter().zip(&step.gradients) {
        let difference = error(gradient, &expected[name].values);
        assert!(difference <= TOLERANCE, "the gradient of {name} differs by {difference}");
        worst = worst.max(difference);
    }
    println!(
        "{name} on {}: largest relative error {worst:.2e} over logits and {} gradients",
        base.info().backend,
        expected.len()
    );
}

#[test]
fn logits_and_gradients_agree_with_peft_under_mean_pooling() {
    compare(Pooling::Mean, "mean");
}

#[test]
fn logits_and_gradients_agree_with_peft_under_cls_pooling() {
    compare(Pooling::Cls, "cls");
}

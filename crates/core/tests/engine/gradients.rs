//! Gradients compared with PyTorch's, for tensors that PEFT's files do not hold: P-tuning's encoder, the projection of a prefix, and
//! biases of the base (`tests/golden/gradients.py`); and for LoRA and IA3 on decoders (`tests/golden/decoder_gradients.py`).
//! `peft_methods.rs` compares the other tensors, `adapterhub.rs` bottlenecks.

use espalier_core::artifact::safetensors;
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::training::{Hyperparameters, Spec};
use espalier_core::{adapter, task};
use espalier_tensor::backend::cpu::CpuBackend;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Tolerance relative to the largest value of a tensor.
const TOLERANCE: f32 = 1e-4;

#[test]
fn encoder_and_bias_gradients_agree_with_pytorch() {
    let folder = espalier_testing::jobs::fixture("gradients");
    let texts: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("texts.json")).unwrap()).unwrap();
    let cases = [
        ("p-tuning", json!({"type": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16}), 9),
        (
            "prefix-projected",
            json!({"type": "prefix_tuning", "num_virtual_tokens": 3, "projection_hidden_size": 12}),
            13,
        ),
        ("bias", json!({"type": "bias"}), 18),
    ];
    let base = espalier_testing::jobs::tiny_base();
    for (name, method, tensors) in cases {
        let method: adapter::Config = serde_json::from_value(method).unwrap();
        let method = method.resolve(&base, Pooling::Cls).unwrap();
        let (spec, _) =
            espalier_testing::jobs::spec_and_data(&base, adapter::Config::default(), Hyperparameters::default(), 12);
        let spec = Spec { task: task::Config::default().with_pooling(Pooling::Cls), method, ..spec };
        compare(&base, &spec, &folder.join(format!("{name}.safetensors")), &texts, tensors);
    }
}

/// Computes the gradients at the values of a file and compares them with the file's gradients.
fn compare(base: &Arc<BaseModel>, spec: &Spec, file: &Path, texts: &[Value], tensors: usize) {
    let all = safetensors::read(&fs::read(file).unwrap()).unwrap();
    let expected = espalier_testing::gradients::with_prefix(&all, "gradient.");
    let found = espalier_testing::gradients::cross_entropy_gradients(
        base,
        spec,
        espalier_testing::gradients::with_prefix(&all, "value."),
        texts,
        64,
    );
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{}", file.display());
    assert_eq!(found.len(), tensors, "{}", file.display());
    let mut worst = 0f32;
    for (tensor, found) in &found {
        let difference = espalier_testing::gradients::relative_error(found, &expected[tensor].values);
        assert!(difference < TOLERANCE, "{}: the gradient by {tensor} differs by {difference}", file.display());
        worst = worst.max(difference);
    }
    println!("{}: {worst:.1e}", file.display());
}

#[test]
fn grouped_query_decoder_gradients_agree_with_peft() {
    let folder = espalier_testing::jobs::fixture("gradients");
    let texts: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("texts.json")).unwrap()).unwrap();
    let lora = json!({"type": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"});
    let targets = json!(["key", "value", "feed_forward_out"]);
    let ia3 = json!({"type": "ia3", "target_modules": targets, "feed_forward_modules": ["feed_forward_out"]});
    for model_type in ["llama", "qwen2", "qwen3"] {
        let architecture = espalier_testing::jobs::fixture("architectures").join(model_type);
        let base = Arc::new(BaseModel::load(&architecture, model_type, Arc::new(CpuBackend::detect())).unwrap());
        // Two layers: LoRA has two matrices on each of seven linear maps, IA3 three vectors; the head has two tensors.
        for (name, method, tensors) in [("lora", &lora, 2 * 2 * 7 + 2), ("ia3", &ia3, 2 * 3 + 2)] {
            let method: adapter::Config = serde_json::from_value(method.clone()).unwrap();
            let method = method.resolve(&base, Pooling::Last).unwrap();
            let (spec, _) = espalier_testing::jobs::spec_and_data(
                &base,
                adapter::Config::default(),
                Hyperparameters::default(),
                12,
            );
            let spec = Spec { task: task::Config::default().with_pooling(Pooling::Last), method, ..spec };
            let file = folder.join("decoders").join(format!("{model_type}-{name}.safetensors"));
            compare(&base, &spec, &file, &texts, tensors);
        }
    }
}

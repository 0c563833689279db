//! Gradients against PyTorch, of what is trained but never saved under PEFT's keys: P-tuning's network, a prefix's projection, and
//! every bias of the base. The numbers are made by `tests/golden/gradients.py`; the methods' other tensors are compared in
//! `tests/peft_methods.rs`, bottlenecks in `tests/adapterhub.rs`.

mod support;

use espalier::adapter;
use espalier::artifact::safetensors;
use espalier::compute::Tensor;
use espalier::model::Pooling;
use espalier::task;
use espalier::training::{Hyperparameters, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// Relative to the largest number of a tensor.
const TOLERANCE: f32 = 1e-4;

/// The tensors of a file whose names begin so.
fn part(all: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())));
    named.collect()
}

#[test]
fn of_networks_that_are_not_saved_and_of_biases_are_those_of_pytorch() {
    let folder = support::jobs::fixture("gradients");
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
    let base = support::jobs::tiny_base();
    for (name, method, tensors) in cases {
        let method: adapter::Config = serde_json::from_value(method).unwrap();
        let method = method.resolve(&base, Pooling::Cls).unwrap();
        let (spec, _) = support::jobs::job(&base, adapter::Config::default(), Hyperparameters::default(), 12);
        let spec = Spec { task: task::Config::default().with_pooling(Pooling::Cls), method, ..spec };
        let all = safetensors::read(&fs::read(folder.join(format!("{name}.safetensors"))).unwrap()).unwrap();
        let expected = part(&all, "gradient.");
        let found = support::gradients::of(&base, &spec, part(&all, "value."), &texts, 64);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        assert_eq!(found.len(), tensors, "{name}");
        for (tensor, found) in &found {
            let difference = support::gradients::difference(found, &expected[tensor].values);
            assert!(difference < TOLERANCE, "{name}: the gradient by {tensor} differs by {difference}");
        }
    }
}

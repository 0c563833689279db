//! Gradients of an adapter with given tensors, for comparison with PyTorch.

use espalier_core::adapter::ParameterBuilder;
use espalier_core::model::BaseModel;
use espalier_core::task::objective::MicroBatch;
use espalier_core::task::sequence_classification::ClassObjective;
use espalier_core::training::Spec;
use espalier_core::training::network::{ForwardInput, Network};
use espalier_tensor::{Dropout, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gradients by parameter name of the summed cross entropy over `[text, label]` pairs of three classes.
pub fn cross_entropy_gradients(
    base: &Arc<BaseModel>,
    spec: &Spec,
    weights: BTreeMap<String, Tensor>,
    texts: &[Value],
    max_length: usize,
) -> BTreeMap<String, Vec<f32>> {
    let (network, built) = Network::build(base, spec, ParameterBuilder::from_weights(weights)).unwrap();
    let tokenize =
        |text: &Value| base.tokenizer().encode(text[0].as_str().unwrap(), None, max_length).map(Arc::new).unwrap();
    let classes: Vec<u32> = texts.iter().map(|text| text[1].as_u64().unwrap() as u32).collect();
    let dropout = Dropout { seed: 1, step: 0, example_ids: (0..classes.len() as u64).collect() };
    let examples: Vec<usize> = (0..classes.len()).collect();
    let objective = ClassObjective::unweighted(classes, 3);
    let parameters = network.upload(&built.tensors).unwrap();
    let input = ForwardInput::from_tokens(texts.iter().map(tokenize).collect());
    let forward = network.forward(&parameters, input, dropout).unwrap();
    let batch = MicroBatch { examples: &examples, label_ids: &[] };
    let result = network.gradients(forward, &objective, &batch, 1.0).unwrap();
    built.names.into_iter().zip(result.gradients).collect()
}

/// Largest difference of two tensors, relative to the largest value of the expected one.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0, f32::max) / largest
}

/// Tensors whose names begin with `prefix`, by the rest of their names.
pub fn with_prefix(all: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())));
    named.collect()
}

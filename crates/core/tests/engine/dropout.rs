//! Dropout of every method: of the adapter's input, or of the head's.

use espalier_core::adapter::{self, ParameterBuilder};
use espalier_core::error::{Error, Location};
use espalier_core::model::{BaseModel, Pooling, TextLimits};
use espalier_core::task::Input;
use espalier_core::task::objective::MicroBatch;
use espalier_core::task::sequence_classification::ClassObjective;
use espalier_core::training::network::{ForwardInput, Network};
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Dropout;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Methods that drop the adapter's input.
const METHODS_WITH_INPUT_DROPOUT: [&str; 3] = ["lora", "vera", "bottleneck"];

fn method(name: &str, dropout: f64) -> adapter::Config {
    serde_json::from_value(json!({"type": name, "dropout": dropout})).unwrap()
}

fn spec(base: &Arc<BaseModel>, name: &str, dropout: f64) -> Spec {
    espalier_testing::jobs::spec_and_data(base, method(name, dropout), Hyperparameters::default(), 8).0
}

/// Gradients of one text at a training step, by tensor. The weights are the same at every call.
fn gradients(base: &Arc<BaseModel>, spec: &Spec, step: u64) -> BTreeMap<String, Vec<f32>> {
    gradients_within(u64::MAX, base, spec, step)
}

/// Gradients with this budget, in bytes, for saved activations.
fn gradients_within(budget: u64, base: &Arc<BaseModel>, spec: &Spec, step: u64) -> BTreeMap<String, Vec<f32>> {
    let mut weights = Network::build(base, spec, ParameterBuilder::from_seed(3)).unwrap().1.into_weights();
    for tensor in weights.values_mut() {
        // A tensor of zeros would make the gradients of the tensors before it zero.
        tensor.values.iter_mut().enumerate().for_each(|(index, value)| *value += 0.01 * (index % 7) as f32);
    }
    let (network, built) = Network::build(base, spec, ParameterBuilder::from_weights(weights)).unwrap();
    let tokens = spec
        .task
        .tokenize_input(base.tokenizer(), &Input::from_text("where is my card"), TextLimits::tokens(64))
        .unwrap();
    let objective = ClassObjective::unweighted(vec![1], spec.labels.len());
    let dropout = Dropout { seed: 1, step, example_ids: vec![4] };
    let parameters = network.upload(&built.tensors).unwrap();
    let source = ForwardInput::from_tokens(vec![Arc::new(tokens)]);
    let network = network.with_activation_budget(budget);
    let forward = network.forward(&parameters, source, dropout).unwrap();
    let part = network.gradients(forward, &objective, &MicroBatch { examples: &[0], label_ids: &[] }, 1.0).unwrap();
    built.names.into_iter().zip(part.gradients).collect()
}

#[test]
fn dropout_changes_gradients_and_depends_on_the_step() {
    let base = espalier_testing::jobs::tiny_base();
    for name in adapter::METHOD_NAMES {
        let (none, some) = (spec(&base, name, 0.0), spec(&base, name, 0.5));
        assert_eq!(gradients(&base, &none, 7), gradients(&base, &none, 8), "{name}");
        assert_eq!(gradients(&base, &some, 7), gradients(&base, &some, 7), "{name}");
        assert_eq!(gradients(&base, &some, 7), gradients_within(1, &base, &some, 7), "{name}: gradient checkpointing");
        assert_ne!(gradients(&base, &some, 7), gradients(&base, &some, 8), "{name}");
        assert_ne!(gradients(&base, &some, 7), gradients(&base, &none, 7), "{name}");
    }
}

#[test]
fn other_methods_apply_dropout_to_the_head_input() {
    let base = espalier_testing::jobs::tiny_base();
    let hidden = base.info().hidden_size;
    for name in adapter::METHOD_NAMES {
        let gradients = gradients(&base, &spec(&base, name, 0.5), 7);
        // The gradient of one row of the head's weight is a multiple of the head's input.
        let row = &gradients["head.weight"][..hidden];
        let dropped = row.iter().filter(|value| **value == 0.0).count();
        match METHODS_WITH_INPUT_DROPOUT.contains(&name) {
            true => assert_eq!(dropped, 0, "{name}"),
            false => assert!((hidden / 4..=3 * hidden / 4).contains(&dropped), "{name}: {dropped} of {hidden}"),
        }
    }
}

#[test]
fn dropout_of_one_is_rejected() {
    let base = espalier_testing::jobs::tiny_base();
    for name in adapter::METHOD_NAMES {
        let Err(Error::Invalid(problem)) = method(name, 1.0).resolve(&base, Pooling::Mean) else { panic!("{name}") };
        assert_eq!(problem.errors[0].location, Location::Pointer("/method/dropout".to_string()), "{name}");
        assert!(problem.errors[0].message.contains("below 1"), "{name}");
    }
}

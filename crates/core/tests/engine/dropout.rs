//! Dropout, which every method has: of inputs of its own, or of the rows that the head reads.

use espalier_core::adapter::{self, Parameters};
use espalier_core::error::{Error, Place};
use espalier_core::model::{Base, Pooling};
use espalier_core::task::Input;
use espalier_core::task::targets::Targets;
use espalier_core::training::network::{Network, Source};
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Dropout;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Those that drop what goes into layers of their own.
const OF_THEIR_OWN: [&str; 3] = ["lora", "vera", "bottleneck"];

fn method(name: &str, dropout: f64) -> adapter::Config {
    serde_json::from_value(json!({"type": name, "dropout": dropout})).unwrap()
}

fn spec(base: &Arc<Base>, name: &str, dropout: f64) -> Spec {
    espalier_testing::jobs::job(base, method(name, dropout), Hyperparameters::default(), 8).0
}

/// The gradients of one text at a step of training, by tensor, from tensors drawn by the same seed.
fn gradients(base: &Arc<Base>, spec: &Spec, step: u64) -> BTreeMap<String, Vec<f32>> {
    gradients_within(u64::MAX, base, spec, step)
}

/// The same with so many bytes for what is remembered.
fn gradients_within(budget: u64, base: &Arc<Base>, spec: &Spec, step: u64) -> BTreeMap<String, Vec<f32>> {
    let mut weights = Network::build(base, spec, Parameters::fresh(3)).unwrap().1.into_weights();
    for tensor in weights.values_mut() {
        // What starts at zero would hide what lies before it.
        tensor.values.iter_mut().enumerate().for_each(|(index, value)| *value += 0.01 * (index % 7) as f32);
    }
    let (network, built) = Network::build(base, spec, Parameters::restore(weights)).unwrap();
    let tokens = spec.task.tokens(base.tokenizer(), &Input::text("where is my card"), 64).unwrap();
    let targets = Targets::Classes { classes: vec![1], count: spec.labels.len() };
    let dropout = Dropout { seed: 1, step, examples: vec![4] };
    let parameters = network.upload(&built.tensors).unwrap();
    let source = Source::tokens(vec![Arc::new(tokens)]);
    let network = network.within(budget);
    let forward = network.forward(&parameters, source, dropout).unwrap();
    let part = network.gradients(forward, &targets, 1.0).unwrap();
    built.names.into_iter().zip(part.gradients).collect()
}

#[test]
fn it_changes_what_every_method_learns_and_is_a_function_of_the_step() {
    let base = espalier_testing::jobs::tiny_base();
    for name in adapter::NAMES {
        let (none, some) = (spec(&base, name, 0.0), spec(&base, name, 0.5));
        assert_eq!(gradients(&base, &none, 7), gradients(&base, &none, 8), "{name}");
        assert_eq!(gradients(&base, &some, 7), gradients(&base, &some, 7), "{name}");
        assert_eq!(gradients(&base, &some, 7), gradients_within(1, &base, &some, 7), "{name}: computed again");
        assert_ne!(gradients(&base, &some, 7), gradients(&base, &some, 8), "{name}");
        assert_ne!(gradients(&base, &some, 7), gradients(&base, &none, 7), "{name}");
    }
}

#[test]
fn methods_without_layers_of_their_own_drop_what_the_head_reads() {
    let base = espalier_testing::jobs::tiny_base();
    let hidden = base.info().hidden_size;
    for name in adapter::NAMES {
        let gradients = gradients(&base, &spec(&base, name, 0.5), 7);
        // Of one text: what the head read, times what it should have said.
        let row = &gradients["head.weight"][..hidden];
        let dropped = row.iter().filter(|value| **value == 0.0).count();
        match OF_THEIR_OWN.contains(&name) {
            true => assert_eq!(dropped, 0, "{name}"),
            false => assert!((hidden / 4..=3 * hidden / 4).contains(&dropped), "{name}: {dropped} of {hidden}"),
        }
    }
}

#[test]
fn all_of_it_is_refused_for_every_method() {
    let base = espalier_testing::jobs::tiny_base();
    for name in adapter::NAMES {
        let Err(Error::Invalid(problem)) = method(name, 1.0).resolve(&base, Pooling::Mean) else { panic!("{name}") };
        assert_eq!(problem.faults[0].place, Place::Pointer("/method/dropout".to_string()), "{name}");
        assert!(problem.faults[0].message.contains("below 1"), "{name}");
    }
}

//! Gradient checkpointing gives bit-identical gradients: on bases of five layers, from the embeddings and from cached features, for
//! methods in all layers, in some and in one.

use espalier_core::adapter::{self, ParameterBuilder};
use espalier_core::artifact::safetensors;
use espalier_core::model::{BaseModel, FirstTrainableLayer, Tokens};
use espalier_core::task::objective::MicroBatch;
use espalier_core::task::sequence_classification::ClassObjective;
use espalier_core::training::network::{BatchSize, CachedRows, ForwardInput, MicroBatchGradients, Network};
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Dropout, RaggedLayout, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 5;

/// A small base of five layers, with copies of its second layer.
fn base_with_layers(model_type: &str, prefix: &str, count: &str) -> Arc<BaseModel> {
    let from = espalier_testing::jobs::fixture("architectures").join(model_type);
    let to = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
    }
    let path = to.path().join("model.safetensors");
    let mut tensors = safetensors::read(&std::fs::read(&path).unwrap()).unwrap();
    let second = format!("{prefix}1.");
    let copied: Vec<(String, Tensor)> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&second)?.to_string(), tensor.clone())))
        .collect();
    assert!(!copied.is_empty(), "{model_type}: {:?}", tensors.keys().collect::<Vec<_>>());
    for layer in 2..LAYERS {
        let named = |(rest, tensor): &(String, Tensor)| (format!("{prefix}{layer}.{rest}"), tensor.clone());
        tensors.extend(copied.iter().map(named));
    }
    std::fs::write(&path, safetensors::write(&tensors).unwrap()).unwrap();
    set_layer_count(&to.path().join("config.json"), count);
    Arc::new(BaseModel::load(to.path(), model_type, Arc::new(CpuBackend::detect())).unwrap())
}

fn set_layer_count(config: &Path, count: &str) {
    let mut written: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    written[count] = json!(LAYERS);
    // Has one entry per layer.
    written.as_object_mut().unwrap().remove("layer_types");
    std::fs::write(config, written.to_string()).unwrap();
}

fn bases() -> Vec<Arc<BaseModel>> {
    vec![
        base_with_layers("roberta", "encoder.layer.", "num_hidden_layers"),
        base_with_layers("llama", "layers.", "num_hidden_layers"),
        base_with_layers("gpt2", "h.", "n_layer"),
    ]
}

const METHODS: [&str; 9] = [
    r#"{"type": "lora", "target_modules": "all-linear", "dropout": 0.3}"#,
    r#"{"type": "lora", "target_modules": "all-linear", "layers": {"top": 3}}"#,
    r#"{"type": "lora", "target_modules": "all-linear", "layers": {"from": 2, "to": 2}}"#,
    r#"{"type": "ia3"}"#,
    r#"{"type": "prompt_tuning", "num_virtual_tokens": 3}"#,
    r#"{"type": "prefix_tuning", "num_virtual_tokens": 4, "projection_hidden_size": 9}"#,
    r#"{"type": "bottleneck", "dropout": 0.2}"#,
    r#"{"type": "layer_norm"}"#,
    r#"{"type": "vera", "rank": 12, "target_modules": "all-linear"}"#,
];

fn spec(base: &BaseModel, method: &str) -> Spec {
    let method: adapter::Config = serde_json::from_str(method).unwrap();
    let request = Request { method: Some(method), hyperparameters: Hyperparameters::default(), ..Request::default() };
    Spec::resolve(&request, &["a".to_string(), "b".to_string()], 8, base).unwrap()
}

fn tokens(base: &BaseModel) -> Vec<Arc<Tokens>> {
    let texts = ["where is my card", "a", "please when will it arrive at home", "why"];
    texts.map(|text| Arc::new(base.tokenizer().encode(text, None, 32).unwrap())).to_vec()
}

/// A network whose weights are not 0, so that every gradient differs from 0.
fn network(base: &Arc<BaseModel>, spec: &Spec) -> (Network, Vec<Tensor>) {
    let (_, built) = Network::build(base, spec, ParameterBuilder::from_seed(5)).unwrap();
    let mut weights = built.into_weights();
    let mut random = SeededRng::new(5, &["weights"]);
    weights
        .values_mut()
        .flat_map(|tensor| &mut tensor.values)
        .for_each(|value| *value = random.standard_normal() * 0.1);
    let (network, built) = Network::build(base, spec, ParameterBuilder::from_weights(weights)).unwrap();
    (network, built.tensors)
}

fn micro_batch_gradients(network: &Network, weights: &[Tensor], source: ForwardInput) -> MicroBatchGradients {
    let dropout = Dropout { seed: 3, step: 7, example_ids: vec![10, 11, 12, 13] };
    let forward = network.forward(&network.upload(weights).unwrap(), source, dropout).unwrap();
    let objective = ClassObjective::unweighted(vec![0, 1, 1, 0], 2);
    let batch = MicroBatch { examples: &[0, 1, 2, 3], label_ids: &[] };
    network.gradients(forward, &objective, &batch, 4.0).unwrap()
}

/// Compares loss and gradients with memory for all layers, for about two, and for none.
fn compare(base: &Arc<BaseModel>, method: &str, source: impl Fn(&Network) -> ForwardInput) {
    let spec = spec(base, method);
    let (whole, weights) = network(base, &spec);
    let expected = micro_batch_gradients(&whole, &weights, source(&whole));
    assert!(expected.gradients.iter().flatten().any(|value| *value != 0.0));
    for budget in [1, 40_000, 400_000] {
        let (network, weights) = network(base, &spec);
        let network = network.with_activation_budget(budget);
        let found = micro_batch_gradients(&network, &weights, source(&network));
        assert_eq!(found.loss, expected.loss, "{method} on {}", base.info().model_type);
        assert_eq!(found.gradients, expected.gradients, "{method} on {}, {budget} bytes", base.info().model_type);
    }
    assert!(
        !network(base, &spec).0.with_activation_budget(40_000).fits_budget(BatchSize::new([30].into_iter())),
        "the budget is below the activations of all layers"
    );
}

#[test]
fn checkpointed_gradients_equal_from_the_embeddings() {
    for base in bases() {
        METHODS.iter().for_each(|method| compare(&base, method, |_| ForwardInput::from_tokens(tokens(&base))));
    }
}

#[test]
fn checkpointed_gradients_equal_from_cached_features() {
    for base in bases() {
        let first_layer = FirstTrainableLayer::Layer(2);
        for method in &METHODS[1..3] {
            compare(&base, method, |network| {
                assert!(network.first_trainable_layer() >= first_layer);
                let tokens = tokens(&base);
                let rows = network.frozen_features(&ForwardInput::from_tokens(tokens.clone()), first_layer).unwrap();
                let layout = Arc::new(RaggedLayout::from_lengths(tokens.iter().map(|tokens| tokens.ids.len())));
                let rows = Tensor::new([layout.num_rows(), base.info().hidden_size], rows);
                ForwardInput { tokens, cached: Some(CachedRows { rows, layout, layer: first_layer }) }
            });
        }
    }
}

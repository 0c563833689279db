//! Decoders against transformers and PEFT, on the small models of `tests/golden/decoders.py`: logits, loss and gradients; and decoding
//! with a KV cache against a full forward pass.

use espalier_core::adapter::{self, ParameterBuilder};
use espalier_core::artifact::safetensors;
use espalier_core::model::{BaseModel, Batch, Pooling, RequiredRows, Tokens, VirtualTokens};
use espalier_core::task::causal_language_model::NextTokenObjective;
use espalier_core::task::objective::{MicroBatch, ReferenceObjective};
use espalier_core::task::preference::PreferenceObjective;
use espalier_core::task::{self, Config, Example, Target, causal_language_model, lm_tokenize};
use espalier_core::training::network::{ForwardInput, Network};
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::{CpuBackend, Isa};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, Dropout, Recording, Tape, Tensor, Var};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const DECODERS: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// Relative to the largest value of a tensor.
const TOLERANCE: f32 = 1e-4;

fn base(model_type: &str, backend: Arc<dyn Backend>) -> Arc<BaseModel> {
    Arc::new(
        BaseModel::load(&espalier_testing::jobs::fixture("decoders").join(model_type), model_type, backend).unwrap(),
    )
}

fn backends() -> [Arc<dyn Backend>; 3] {
    [
        Arc::new(CpuBackend::detect()),
        Arc::new(CpuBackend::with_isa(Isa::available()[0])),
        Arc::new(CandleBackend::cpu()),
    ]
}

fn expected(model_type: &str) -> BTreeMap<String, Tensor> {
    let path = espalier_testing::jobs::fixture("decoders").join(model_type).join("expected.safetensors");
    safetensors::read(&std::fs::read(path).unwrap()).unwrap()
}

fn spec(base: &BaseModel, method: &adapter::Config) -> Spec {
    let request = Request {
        method: Some(method.clone()),
        task: Some(Config::CausalLanguageModel(causal_language_model::Config::default())),
        hyperparameters: Hyperparameters::default(),
        ..Request::default()
    };
    Spec::resolve(&request, &[], 12, base).unwrap()
}

#[test]
fn logits_agree_with_transformers() {
    for model_type in DECODERS {
        let golden = expected(model_type);
        for backend in backends() {
            let base = base(model_type, backend);
            assert!(base.info().is_causal_lm);
            for index in 0..3 {
                let ids = golden[&format!("ids.{index}")].values.iter().map(|id| *id as u32).collect();
                let tokens = Tokens::from_ids(ids);
                let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
                let batch = Batch::new([&tokens], VirtualTokens::Disabled);
                let rows = base.encode(&mut tape, &batch, &(), RequiredRows::All).unwrap();
                let logits = base.lm_logits(&mut tape, rows).unwrap();
                let found = tape.to_host(logits).unwrap().values;
                let difference =
                    espalier_testing::gradients::relative_error(&found, &golden[&format!("logits.{index}")].values);
                assert!(difference < TOLERANCE, "{model_type}: {difference}");
            }
        }
    }
}

/// Prompts and completions of `tests/golden/decoders.py`.
const PAIRS: [(&str, &str); 3] = [("What is 2 + 3?", " 5"), ("Say hello", ": hello, how are you today?"), ("x", "y")];

fn examples() -> Vec<Example> {
    let example = |(line, (prompt, completion)): (u64, &(&str, &str))| Example {
        line,
        text: prompt.to_string(),
        text_pair: None,
        target: Target::Completion(completion.to_string()),
    };
    (0..).zip(&PAIRS).map(example).collect()
}

#[test]
fn causal_lm_loss_and_gradients_agree_with_peft() {
    let lora = json!({"type": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"});
    let modules = json!(["key", "value", "feed_forward_out"]);
    let ia3 = json!({"type": "ia3", "target_modules": modules, "feed_forward_modules": ["feed_forward_out"]});
    let mut worst = 0f32;
    for model_type in DECODERS {
        let golden = expected(model_type);
        for backend in backends() {
            let base = base(model_type, backend);
            // There are two layers, and two LoRA matrices per linear map. GPT-2 has one linear map for keys and values.
            let [linears, scaled] = if model_type == "gpt2" { [4, 2] } else { [7, 3] };
            for (name, method, tensors) in [("lora", &lora, 2 * 2 * linears), ("ia3", &ia3, 2 * scaled)] {
                let spec = spec(&base, &serde_json::from_value(method.clone()).unwrap());
                let values = espalier_testing::gradients::with_prefix(&golden, &format!("{name}.value."));
                let (network, built) = Network::build(&base, &spec, ParameterBuilder::from_weights(values)).unwrap();
                let read =
                    |example: &Example| spec.task.tokenize_example(base.tokenizer(), example, 64).unwrap().remove(0);
                let tokens: Vec<Arc<Tokens>> = examples().iter().map(read).map(Arc::new).collect();
                let targets: Vec<u32> = tokens.iter().flat_map(|tokens| lm_tokenize::next_token_ids(tokens)).collect();
                let parameters = network.upload(&built.tensors).unwrap();
                let dropout = Dropout { seed: 1, step: 0, example_ids: (0..tokens.len() as u64).collect() };
                let forward = network.forward(&parameters, ForwardInput::from_tokens(tokens), dropout).unwrap();
                let objective = NextTokenObjective { token_counts: Vec::new() };
                let batch = MicroBatch { examples: &[], label_ids: &targets };
                let part = network.gradients(forward, &objective, &batch, targets.len() as f64).unwrap();
                let loss = (part.loss / targets.len() as f64) as f32;
                let difference = (loss / golden[&format!("{name}.loss")].values[0] - 1.0).abs();
                assert!(difference < TOLERANCE, "{model_type} {name}: the loss differs by {difference}");
                let gradients = espalier_testing::gradients::with_prefix(&golden, &format!("{name}.gradient."));
                assert_eq!((built.names.len(), gradients.len()), (tensors, tensors));
                for (tensor, found) in built.names.iter().zip(&part.gradients) {
                    let difference = espalier_testing::gradients::relative_error(found, &gradients[tensor].values);
                    assert!(difference < TOLERANCE, "{model_type} {name}: {tensor} differs by {difference}");
                    worst = worst.max(difference);
                }
            }
        }
    }
    println!("the largest difference of a gradient is {worst:.1e}");
}

#[test]
fn preference_gradients_agree_with_pytorch() {
    let triples = [("What is 2 + 3?", " 5", " I do not know"), ("Say hello", ": hello, how are you today?", ": no")];
    let lora = json!({"type": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"});
    for model_type in DECODERS {
        let golden = expected(model_type);
        let base = base(model_type, Arc::new(CpuBackend::detect()));
        let spec = spec(&base, &serde_json::from_value(lora.clone()).unwrap());
        let task = Config::Preference(task::preference::Config::default());
        let examples: Vec<Example> = triples
            .iter()
            .map(|(prompt, chosen, rejected)| Example {
                line: 1,
                text: prompt.to_string(),
                text_pair: None,
                target: Target::Preference { chosen: chosen.to_string(), rejected: rejected.to_string() },
            })
            .collect();
        let read = |example: &Example| task.tokenize_example(base.tokenizer(), example, 64).unwrap();
        let sequences: Vec<Arc<Tokens>> = examples.iter().flat_map(read).map(Arc::new).collect();
        let next_tokens: Vec<u32> = sequences.iter().flat_map(|tokens| lm_tokenize::next_token_ids(tokens)).collect();
        let lengths: Vec<[usize; 2]> =
            sequences.chunks(2).map(|pair| [pair[0].target_positions.len(), pair[1].target_positions.len()]).collect();
        let network = |values| Network::build(&base, &spec, ParameterBuilder::from_weights(values)).unwrap();
        let values = espalier_testing::gradients::with_prefix(&golden, "lora.value.");
        // LoRA with B = 0 equals the bare base model.
        let mut bare = values.clone();
        let updates = bare.iter_mut().filter(|(name, _)| name.ends_with("lora_B"));
        updates.for_each(|(_, tensor)| tensor.values.fill(0.0));
        let source = || ForwardInput::from_tokens(sequences.clone());
        let (reference, built) = network(bare);
        let outputs =
            reference.eval_outputs(&reference.upload(&built.tensors).unwrap(), &source(), &next_tokens).unwrap();
        let config = task::preference::Config::default();
        let objective = PreferenceObjective { config, answer_lengths: lengths, reference_logprobs: Vec::new() };
        let objective = objective.with_reference(&objective.reference_logprobs(&outputs));
        let (network, built) = network(values);
        let dropout = Dropout { seed: 1, step: 0, example_ids: (0..4).collect() };
        let forward = network.forward(&network.upload(&built.tensors).unwrap(), source(), dropout).unwrap();
        let batch = MicroBatch { examples: &[0, 1], label_ids: &next_tokens };
        let part = network.gradients(forward, objective.as_ref(), &batch, 2.0).unwrap();
        let difference = (part.loss as f32 / 2.0 / golden["dpo.loss"].values[0] - 1.0).abs();
        assert!(difference < TOLERANCE, "{model_type}: the loss differs by {difference}");
        let gradients = espalier_testing::gradients::with_prefix(&golden, "dpo.gradient.");
        for (tensor, found) in built.names.iter().zip(&part.gradients) {
            let difference = espalier_testing::gradients::relative_error(found, &gradients[tensor].values);
            assert!(difference < TOLERANCE, "{model_type}: {tensor} differs by {difference}");
        }
    }
}

/// Methods that cover all hooks of a decoder.
fn methods() -> Vec<adapter::Config> {
    let methods = json!([
        {"type": "lora", "target_modules": "all-linear", "rank": 3},
        {"type": "lora", "dora": true},
        {"type": "ia3"},
        {"type": "prompt_tuning", "num_virtual_tokens": 5},
        {"type": "prefix_tuning", "num_virtual_tokens": 4},
        {"type": "prefix_tuning", "num_virtual_tokens": 37, "layers": {"top": 1}},
        {"type": "bottleneck", "placement": "houlsby", "reduction_factor": 4.0},
        {"type": "layer_norm"},
        {"type": "vera", "rank": 5},
    ]);
    serde_json::from_value(methods).unwrap()
}

#[test]
fn cached_decoding_is_bit_identical_to_full_forward() {
    let mut random = SeededRng::new(5, &["ids"]);
    let sequences: Vec<Vec<u32>> =
        [7, 41, 90].map(|length| (0..length).map(|_| random.uniform_below(300) as u32).collect()).into();
    for model_type in DECODERS {
        let base = base(model_type, Arc::new(CpuBackend::detect()));
        for method in methods() {
            let spec = spec(&base, &method);
            let (_, built) = Network::build(&base, &spec, ParameterBuilder::from_seed(3)).unwrap();
            let mut weights = built.into_weights();
            weights
                .values_mut()
                .flat_map(|tensor| &mut tensor.values)
                .for_each(|value| *value += random.standard_normal() * 0.1);
            let mut parameters = ParameterBuilder::from_weights(weights);
            let context = adapter::BuildContext {
                base: &base,
                sites: &base.sites(Pooling::Mean),
                tensor_set: adapter::TensorSet::Training,
            };
            let hooks = spec.method.build(&context, &mut parameters).unwrap();
            let parameters = base.backend().upload_parameters(&parameters.build().unwrap().tensors).unwrap();
            let whole: Vec<Tokens> = sequences.iter().map(|ids| Tokens::from_ids(ids.clone())).collect();
            let mut tape = Tape::new(Arc::clone(base.backend()), Arc::clone(&parameters), Recording::Off);
            let batch = Batch::new(&whole, hooks.virtual_tokens());
            let rows = base.encode(&mut tape, &batch, hooks.as_ref(), RequiredRows::All).unwrap();
            let full_forward = by_sequence(&tape, rows);
            let step = |sizes: [usize; 3], caches: Vec<SequenceKvCache>, offsets: [usize; 3]| {
                let chunks: Vec<Tokens> = sequences
                    .iter()
                    .zip(offsets.iter().zip(sizes))
                    .map(|(ids, (offset, size))| Tokens::from_ids(ids[*offset..offset + size].to_vec()))
                    .collect();
                // Virtual tokens precede the first chunk only.
                let virtual_tokens =
                    if caches[0].is_empty() { hooks.virtual_tokens() } else { VirtualTokens::Disabled };
                let mut tape = Tape::with_kv_cache(Arc::clone(base.backend()), Arc::clone(&parameters), caches);
                let batch = Batch::new(&chunks, virtual_tokens);
                let rows = base
                    .backend()
                    .with_intra_op_threads(2, || base.encode(&mut tape, &batch, hooks.as_ref(), RequiredRows::All));
                let rows = by_sequence(&tape, rows.unwrap());
                let lengths: Vec<usize> = rows.iter().map(|rows| rows.len() / base.info().hidden_size).collect();
                (rows, tape.into_kv_caches(lengths))
            };
            let mut caches = vec![SequenceKvCache::new(base.kv_cache_shape().unwrap()); 3];
            let mut found = vec![Vec::new(); 3];
            let mut offsets = [0; 3];
            // Some chunks are more rows than one thread takes at a time.
            for sizes in [[3, 1, 66], [1, 1, 1], [1, 33, 5], [1, 1, 1], [1, 5, 17]] {
                let (rows, next_caches) = step(sizes, caches, offsets);
                caches = next_caches;
                found.iter_mut().zip(rows).for_each(|(found, rows)| found.extend(rows));
                offsets.iter_mut().zip(sizes).for_each(|(offset, size)| *offset += size);
            }
            assert_eq!(offsets, [7, 41, 90]);
            let bits = |rows: &[f32]| rows.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for (found, expected) in found.iter().zip(&full_forward) {
                assert_eq!(bits(found), bits(expected), "{model_type} {method:?}");
            }
        }
    }
}

fn by_sequence(tape: &Tape, rows: Var) -> Vec<Vec<f32>> {
    let (values, width, layout) = (tape.to_host(rows).unwrap().values, tape.width(rows), tape.layout(rows));
    layout.row_ranges().map(|range| values[range.start * width..range.end * width].to_vec()).collect()
}

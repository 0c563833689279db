//! Language models of decoders against transformers and PEFT, on the small models that `tests/golden/decoders.py` makes: logits, the
//! loss and its gradients; and sequences that are continued against those that are read at once.

use espalier_core::adapter::{self, Parameters};
use espalier_core::artifact::safetensors;
use espalier_core::model::{Base, Batch, Pooling, Tokens, Virtual, Wanted};
use espalier_core::task::targets::Targets;
use espalier_core::task::{self, Config, Example, Target, causal_language_model};
use espalier_core::training::network::{Network, Source};
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::candle::Candle;
use espalier_tensor::cpu::{Cpu, Level};
use espalier_tensor::past::Past;
use espalier_tensor::random::Random;
use espalier_tensor::{Dropout, Kernels, Recording, Rows, Tape, Tensor};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const DECODERS: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// Relative to the largest number of a tensor.
const TOLERANCE: f32 = 1e-4;

fn base(model_type: &str, kernels: Arc<dyn Kernels>) -> Arc<Base> {
    Arc::new(Base::load(&espalier_testing::jobs::fixture("decoders").join(model_type), model_type, kernels).unwrap())
}

fn kernel_sets() -> [Arc<dyn Kernels>; 3] {
    [Arc::new(Cpu::best()), Arc::new(Cpu::with(Level::all()[0])), Arc::new(Candle::cpu())]
}

fn expected(model_type: &str) -> BTreeMap<String, Tensor> {
    let path = espalier_testing::jobs::fixture("decoders").join(model_type).join("expected.safetensors");
    safetensors::read(&std::fs::read(path).unwrap()).unwrap()
}

fn spec(base: &Base, method: &adapter::Config) -> Spec {
    let request = Request {
        method: Some(method.clone()),
        task: Some(Config::CausalLanguageModel(causal_language_model::Config::default())),
        hyperparameters: Hyperparameters::default(),
        ..Request::default()
    };
    Spec::resolve(&request, &[], 12, base).unwrap()
}

#[test]
fn logits_are_those_of_transformers() {
    for model_type in DECODERS {
        let golden = expected(model_type);
        for kernels in kernel_sets() {
            let base = base(model_type, kernels);
            assert!(base.info().generates);
            for index in 0..3 {
                let ids = golden[&format!("ids.{index}")].values.iter().map(|id| *id as u32).collect();
                let tokens = Tokens::whole(ids);
                let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
                let batch = Batch::new([&tokens], Virtual::Nothing);
                let rows = base.encode(&mut tape, &batch, &(), Wanted::All).unwrap();
                let logits = base.language(&mut tape, rows).unwrap();
                let found = tape.read(logits).unwrap().values;
                let difference =
                    espalier_testing::gradients::difference(&found, &golden[&format!("logits.{index}")].values);
                assert!(difference < TOLERANCE, "{model_type}: {difference}");
            }
        }
    }
}

/// As `tests/golden/decoders.py` has them.
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
fn the_loss_of_what_follows_and_its_gradients_are_those_of_peft() {
    let lora = json!({"type": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"});
    let targets = json!(["key", "value", "feed_forward_out"]);
    let ia3 = json!({"type": "ia3", "target_modules": targets, "feed_forward_modules": ["feed_forward_out"]});
    let mut worst = 0f32;
    for model_type in DECODERS {
        let golden = expected(model_type);
        for kernels in kernel_sets() {
            let base = base(model_type, kernels);
            // Two layers; of LoRA both matrices on every map. GPT-2's keys and values are of one map.
            let [maps, scaled] = if model_type == "gpt2" { [4, 2] } else { [7, 3] };
            for (name, method, tensors) in [("lora", &lora, 2 * 2 * maps), ("ia3", &ia3, 2 * scaled)] {
                let spec = spec(&base, &serde_json::from_value(method.clone()).unwrap());
                let values = espalier_testing::gradients::with_prefix(&golden, &format!("{name}.value."));
                let (network, built) = Network::build(&base, &spec, Parameters::restore(values)).unwrap();
                let read = |example: &Example| spec.task.sequences(base.tokenizer(), example, 64).unwrap().remove(0);
                let tokens: Vec<Arc<Tokens>> = examples().iter().map(read).map(Arc::new).collect();
                let words: Vec<u32> = tokens.iter().flat_map(|tokens| causal_language_model::next(tokens)).collect();
                let parameters = network.upload(&built.tensors).unwrap();
                let dropout = Dropout { seed: 1, step: 0, examples: (0..tokens.len() as u64).collect() };
                let forward = network.forward(&parameters, Source::tokens(tokens), dropout).unwrap();
                let part = network.language_gradients(forward, &words, words.len() as f64).unwrap();
                let loss = (part.loss / words.len() as f64) as f32;
                let difference = (loss / golden[&format!("{name}.loss")].values[0] - 1.0).abs();
                assert!(difference < TOLERANCE, "{model_type} {name}: the loss differs by {difference}");
                let gradients = espalier_testing::gradients::with_prefix(&golden, &format!("{name}.gradient."));
                assert_eq!((built.names.len(), gradients.len()), (tensors, tensors));
                for (tensor, found) in built.names.iter().zip(&part.gradients) {
                    let difference = espalier_testing::gradients::difference(found, &gradients[tensor].values);
                    assert!(difference < TOLERANCE, "{model_type} {name}: {tensor} differs by {difference}");
                    worst = worst.max(difference);
                }
            }
        }
    }
    println!("the largest difference of a gradient is {worst:.1e}");
}

#[test]
fn preferences_have_the_gradients_of_pytorch() {
    let triples = [("What is 2 + 3?", " 5", " I do not know"), ("Say hello", ": hello, how are you today?", ": no")];
    let lora = json!({"type": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"});
    for model_type in DECODERS {
        let golden = expected(model_type);
        let base = base(model_type, Arc::new(Cpu::best()));
        let spec = spec(&base, &serde_json::from_value(lora.clone()).unwrap());
        let task = Config::Preference(task::preference::Config::default());
        let examples: Vec<Example> = triples
            .iter()
            .map(|(prompt, chosen, rejected)| Example {
                line: 1,
                text: prompt.to_string(),
                text_pair: None,
                target: Target::Chosen { chosen: chosen.to_string(), rejected: rejected.to_string() },
            })
            .collect();
        let read = |example: &Example| task.sequences(base.tokenizer(), example, 64).unwrap();
        let sequences: Vec<Arc<Tokens>> = examples.iter().flat_map(read).map(Arc::new).collect();
        let words: Vec<u32> = sequences.iter().flat_map(|tokens| causal_language_model::next(tokens)).collect();
        let lengths: Vec<[usize; 2]> =
            sequences.chunks(2).map(|pair| [pair[0].picked.len(), pair[1].picked.len()]).collect();
        let network = |values| Network::build(&base, &spec, Parameters::restore(values)).unwrap();
        let values = espalier_testing::gradients::with_prefix(&golden, "lora.value.");
        // A LoRA whose B is nothing is the bare base.
        let mut bare = values.clone();
        let updates = bare.iter_mut().filter(|(name, _)| name.ends_with("lora_B"));
        updates.for_each(|(_, tensor)| tensor.values.fill(0.0));
        let source = || Source::tokens(sequences.clone());
        let (reference, built) = network(bare);
        let judged = reference.judged(&reference.upload(&built.tensors).unwrap(), &source(), &words).unwrap();
        let reference = task::metrics::preference::sums(&judged, &lengths);
        let targets = Targets::Preferred { lengths, reference, config: task::preference::Config::default() };
        let (network, built) = network(values);
        let dropout = Dropout { seed: 1, step: 0, examples: (0..4).collect() };
        let forward = network.forward(&network.upload(&built.tensors).unwrap(), source(), dropout).unwrap();
        let part = network.preference_gradients(forward, &words, &targets, 2.0).unwrap();
        let difference = (part.loss as f32 / 2.0 / golden["dpo.loss"].values[0] - 1.0).abs();
        assert!(difference < TOLERANCE, "{model_type}: the loss differs by {difference}");
        let gradients = espalier_testing::gradients::with_prefix(&golden, "dpo.gradient.");
        for (tensor, found) in built.names.iter().zip(&part.gradients) {
            let difference = espalier_testing::gradients::difference(found, &gradients[tensor].values);
            assert!(difference < TOLERANCE, "{model_type}: {tensor} differs by {difference}");
        }
    }
}

/// Methods that touch a decoder in every way there is.
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
fn a_sequence_that_is_continued_has_the_same_rows_to_the_bit() {
    let mut random = Random::new(5, &["ids"]);
    let sequences: Vec<Vec<u32>> =
        [7, 41, 90].map(|length| (0..length).map(|_| random.below(300) as u32).collect()).into();
    for model_type in DECODERS {
        let base = base(model_type, Arc::new(Cpu::best()));
        for method in methods() {
            let spec = spec(&base, &method);
            let (_, built) = Network::build(&base, &spec, Parameters::fresh(3)).unwrap();
            let mut weights = built.into_weights();
            weights
                .values_mut()
                .flat_map(|tensor| &mut tensor.values)
                .for_each(|value| *value += random.normal() * 0.1);
            let mut parameters = Parameters::restore(weights);
            let ground =
                adapter::Ground { base: &base, sites: &base.sites(Pooling::Mean), form: adapter::Form::Training };
            let hooks = spec.method.build(&ground, &mut parameters).unwrap();
            let parameters = base.kernels().parameters(&parameters.finish().unwrap().tensors).unwrap();
            let whole: Vec<Tokens> = sequences.iter().map(|ids| Tokens::whole(ids.clone())).collect();
            let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::clone(&parameters), Recording::Off);
            let batch = Batch::new(&whole, hooks.virtual_tokens());
            let rows = base.encode(&mut tape, &batch, hooks.as_ref(), Wanted::All).unwrap();
            let at_once = by_sequence(&tape, rows);
            let step = |sizes: [usize; 3], pasts: Vec<Past>, at: [usize; 3]| {
                let pieces: Vec<Tokens> = sequences
                    .iter()
                    .zip(at.iter().zip(sizes))
                    .map(|(ids, (at, size))| Tokens::whole(ids[*at..at + size].to_vec()))
                    .collect();
                // Before its first row a sequence has what is in front of it.
                let front = if pasts[0].is_fresh() { hooks.virtual_tokens() } else { Virtual::Nothing };
                let mut tape = Tape::continuing(Arc::clone(base.kernels()), Arc::clone(&parameters), pasts);
                let rows = base.encode(&mut tape, &Batch::new(&pieces, front), hooks.as_ref(), Wanted::All);
                let rows = by_sequence(&tape, rows.unwrap());
                let lengths: Vec<usize> = rows.iter().map(|rows| rows.len() / base.info().hidden_size).collect();
                (rows, tape.into_pasts(lengths))
            };
            let mut pasts = vec![Past::new(base.past().unwrap()); 3];
            let mut found = vec![Vec::new(); 3];
            let mut at = [0; 3];
            for sizes in [[3, 1, 40], [1, 1, 1], [1, 33, 5], [1, 1, 1], [1, 5, 43]] {
                let (rows, after) = step(sizes, pasts, at);
                pasts = after;
                found.iter_mut().zip(rows).for_each(|(found, rows)| found.extend(rows));
                at.iter_mut().zip(sizes).for_each(|(at, size)| *at += size);
            }
            assert_eq!(at, [7, 41, 90]);
            let bits = |rows: &[f32]| rows.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for (found, expected) in found.iter().zip(&at_once) {
                assert_eq!(bits(found), bits(expected), "{model_type} {method:?}");
            }
        }
    }
}

fn by_sequence(tape: &Tape, rows: Rows) -> Vec<Vec<f32>> {
    let (values, width, layout) = (tape.read(rows).unwrap().values, tape.width(rows), tape.layout(rows));
    layout.ranges().map(|range| values[range.start * width..range.end * width].to_vec()).collect()
}

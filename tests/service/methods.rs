//! The contract of a method, on every method and architecture there is.

use espalier::serving::mixed::{self, Group};
use espalier_core::adapter::{self, Parameters, lora};
use espalier_core::artifact::{self, Adapted, Artifact, BaseCard, Card, Probe};
use espalier_core::error::Error;
use espalier_core::model::{Base, Module, Pooling, SUPPORTED, SiteInfo, Tokens};
use espalier_core::task::targets::Targets;
use espalier_core::task::{self, Input, Reads, embedding, masked_language_model};
use espalier_core::training::cells::{self, Asked};
use espalier_core::training::network::{Network, Part, Source};
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Dropout;
use espalier_tensor::Tensor;
use espalier_tensor::cpu::Cpu;
use espalier_tensor::random::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every method in every way of its own, on a base.
fn methods(base: &Base) -> Vec<adapter::Config> {
    let settings = serde_json::json!([
        {"type": "lora"},
        {"type": "lora", "rank": 3, "target_modules": "all-linear", "rslora": true},
        {"type": "lora", "target_modules": ["attention.self.key"], "layers": {"top": 1}},
        {"type": "lora", "dora": true, "bias": "lora_only", "target_modules": ["query", "feed_forward_out"]},
        {"type": "lora", "rank_pattern": {"value": 2}, "alpha_pattern": {"layer.1.attention.self.query": 3.0},
         "learning_rate_ratio": 16.0},
        {"type": "ia3"},
        {"type": "ia3", "target_modules": ["query", "value"], "feed_forward_modules": ["query"], "layers": {"top": 1}},
        {"type": "prompt_tuning", "num_virtual_tokens": 5},
        {"type": "prompt_tuning", "num_virtual_tokens": 7, "init": {"text": "where is my card"}},
        {"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10},
        {"type": "prefix_tuning", "num_virtual_tokens": 4},
        {"type": "prefix_tuning", "num_virtual_tokens": 6, "projection_hidden_size": 9, "layers": {"top": 1}},
        {"type": "bottleneck", "reduction_factor": 2.0},
        {"type": "bottleneck", "placement": "houlsby", "reduction_factor": 4.0},
        {"type": "bottleneck", "placement": "parallel", "activation": "tanh", "layers": {"top": 1}},
        {"type": "bias"},
        {"type": "bias", "target_modules": ["feed_forward_in", "output.LayerNorm"], "layers": {"from": 0, "to": 0}},
        {"type": "layer_norm"},
        {"type": "layer_norm", "target_modules": ["attention_norm"], "layers": {"top": 1}},
        {"type": "vera", "rank": 12},
        {"type": "vera", "rank": 5, "target_modules": "all-linear", "projection_seed": 7},
        {"type": "head"},
    ]);
    let mut text = settings.to_string();
    let sites = base.sites(Pooling::Mean);
    let is_biased = |module: Module| sites.iter().any(|info| info.site.module == module && info.bias);
    if !is_biased(Module::FeedForwardIn) && is_biased(Module::Query) {
        text = text.replace(r#"["feed_forward_in","output.LayerNorm"]"#, r#"["query"]"#);
    }
    let (own, theirs) = (paths(base), ["attention.self.key", "layer.1.attention.self.query", "output.LayerNorm"]);
    for (own, theirs) in own.iter().zip(theirs) {
        text = text.replace(theirs, own);
    }
    serde_json::from_str(&text).unwrap()
}

/// What a base calls a layer's key projection, the query projection of the second layer, and a layer's last norm.
fn paths(base: &Base) -> [String; 3] {
    let sites = base.sites(Pooling::Mean);
    let path = |modules: &[Module]| {
        let is_meant = |info: &&SiteInfo| info.site.layer == Some(1) && modules.contains(&info.site.module);
        let path = &sites.iter().find(is_meant).unwrap().path;
        path[["layer", "h."].iter().find_map(|start| path.find(start)).unwrap()..].to_string()
    };
    let behind = |path: String| path.split_once(".1.").unwrap().1.to_string();
    let fused = Module::QueryKeyValue;
    [behind(path(&[Module::Key, fused])), path(&[Module::Query, fused]), behind(path(&[Module::FeedForwardNorm]))]
}

/// Every task, and classification by the first or the last row too; where hidden words can be told, that and tagging.
fn tasks(base: &Base) -> Vec<task::Config> {
    if base.info().generates {
        return serde_json::from_value(serde_json::json!([{"type": "causal_language_model"}, {"type": "preference"}]))
            .unwrap();
    }
    if base.info().mask_token.is_some() {
        let tasks = serde_json::json!([{"type": "masked_language_model"}, {"type": "token_classification"}]);
        return serde_json::from_value(tasks).unwrap();
    }
    let offers = |pooling: &Pooling| base.info().poolings.contains(pooling);
    let one = [Pooling::Cls, Pooling::First, Pooling::Last].into_iter().find(offers).unwrap();
    let by_mean = espalier_testing::tasks::all().into_iter().map(|task| task.with_pooling(Pooling::Mean));
    by_mean.chain([task::Config::default().with_pooling(one)]).collect()
}

/// `None` where the table of senseless cells says so.
fn spec(base: &Base, method: &adapter::Config, task: &task::Config) -> Option<Spec> {
    let pooling = task.pooling().unwrap();
    let asked = Asked { method, task, base: base.info(), sites: &base.sites(pooling) };
    let makes_sense = cells::faults(&asked).is_empty();
    makes_sense.then(|| espalier_testing::tasks::job(base, task, method.clone(), Hyperparameters::default(), 12).0)
}

fn each(check: impl Fn(&Arc<Base>, &Spec)) {
    for base in bases() {
        for method in methods(&base) {
            for task in tasks(&base) {
                if let Some(spec) = spec(&base, &method, &task) {
                    check(&base, &spec);
                }
            }
        }
    }
}

/// Which have no masked language model's head.
const DECODERS: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// BERT, and every other architecture; then those with a language model's head.
fn bases() -> Vec<Arc<Base>> {
    let load = |model_type: &&str| match *model_type {
        "bert" => espalier_testing::jobs::tiny_base(),
        other => {
            let folder = espalier_testing::jobs::fixture("architectures").join(other);
            Arc::new(Base::load(&folder, other, Arc::new(Cpu::best())).unwrap())
        }
    };
    let encoders = SUPPORTED.iter().filter(|model_type| !DECODERS.contains(model_type));
    let with_heads = encoders.map(|model_type| espalier_testing::tasks::language_base(model_type));
    let decoder = |model_type: &&str| {
        let folder = espalier_testing::jobs::fixture("decoders").join(model_type);
        Arc::new(Base::load(&folder, model_type, Arc::new(Cpu::best())).unwrap())
    };
    SUPPORTED.iter().map(load).chain(with_heads).chain(DECODERS.iter().map(decoder)).collect()
}

/// Every tensor drawn, none zero.
fn random_weights(base: &Arc<Base>, spec: &Spec, seed: u64) -> BTreeMap<String, Tensor> {
    let (_, built) = Network::build(base, spec, Parameters::fresh(seed)).unwrap();
    let mut random = Random::new(seed, &["weights"]);
    let mut weights = built.into_weights();
    weights.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value = random.normal() * 0.2);
    weights
}

/// `weights` are those that are trained.
fn adapted(base: &Arc<Base>, spec: &Spec, weights: BTreeMap<String, Tensor>) -> Adapted {
    Adapted::load(&artifact(base, spec, weights), base).unwrap()
}

fn artifact(base: &Arc<Base>, spec: &Spec, weights: BTreeMap<String, Tensor>) -> Artifact {
    let weights = spec.method.published(base, spec.task.pooling().unwrap(), weights).unwrap();
    let probe = Probe {
        inputs: inputs()[..1].to_vec(),
        outputs: vec![vec![0.0; spec.task.outputs(&spec.labels).unwrap_or(base.info().hidden_size)]],
        kernels: base.info().kernels.clone(),
    };
    let card = Card {
        format: 1,
        task: spec.task.clone(),
        method: spec.method.clone(),
        labels: spec.labels.clone(),
        temperature: 1.0,
        max_length: 64,
        base: BaseCard { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe,
        metrics: None,
    };
    Artifact { card, weights }
}

fn inputs() -> Vec<Input> {
    let texts = ["where is my card", "why", "please please when will my new card arrive at home", "a fee"];
    texts.map(Input::text).to_vec()
}

#[test]
fn a_fresh_adapter_leaves_the_base_as_it_is() {
    each(|base, spec| {
        let (_, built) = Network::build(base, spec, Parameters::fresh(1)).unwrap();
        let adapted = adapted(base, spec, built.into_weights());
        let with = adapted.outputs(base, &inputs()).unwrap().concat();
        let without = adapted.outputs_without_effect(base, &inputs()).unwrap().concat();
        let difference = with.iter().zip(&without).map(|(with, without)| (with - without).abs()).fold(0.0, f32::max);
        match &spec.method {
            // It divides by the length that it multiplies by.
            adapter::Config::Lora(config) if config.dora => assert!(difference < 1e-5, "{difference}"),
            method if method.starts_neutral() => assert_eq!(with, without, "{method:?}"),
            // Virtual tokens say something from the start.
            method => assert!(difference > 1e-4, "{method:?}"),
        }
    });
}

#[test]
fn what_is_published_answers_as_what_was_trained() {
    each(|base, spec| {
        let weights = random_weights(base, spec, 6);
        let (network, built) = Network::build(base, spec, Parameters::restore(weights.clone())).unwrap();
        let source = Source::tokens(tokens(base, spec).into_iter().map(Arc::new).collect());
        let mut trained = network.outputs(&network.upload(&built.tensors).unwrap(), &source).unwrap();
        match network.reader().reads {
            Reads::Rows => trained.chunks_exact_mut(network.width()).for_each(embedding::normalize),
            Reads::Language => {
                let width = base.info().hidden_size;
                let rows = Tensor::new([trained.len() / width, width], trained);
                let rows = base.kernels().upload(&rows).unwrap();
                let logits = base.kernels().linear(&rows, base.words_map().unwrap()).unwrap();
                let logits = base.kernels().download(&logits).unwrap().values;
                let rows = logits.chunks_exact(base.info().vocabulary_size);
                trained = rows.flat_map(masked_language_model::likeliest).collect();
            }
            Reads::Trained(_) => {}
        }
        let adapted = Some(Arc::new(adapted(base, spec, weights)));
        let published = mixed::forward(base, &[Group { adapted, inputs: tokens(base, spec) }]).unwrap().concat();
        assert_eq!(trained, published, "{:?}", spec.method);
    });
}

#[test]
fn every_parameter_is_learned_from() {
    each(|base, spec| {
        let (network, built) = Network::build(base, spec, Parameters::restore(random_weights(base, spec, 2))).unwrap();
        let part = taught(&network, &built.tensors, base, spec);
        let norm = |gradient: &Vec<f32>| gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
        let largest = part.gradients.iter().map(norm).fold(0.0, f32::max);
        for (name, gradient) in built.names.iter().zip(&part.gradients) {
            let (own, on) = (norm(gradient), &base.info().model_type);
            assert!(own > 1e-6 * largest, "{name}: {own} beside {largest} on {on}, {:?} {:?}", spec.method, spec.task);
        }
    });
}

fn taught(network: &Network, weights: &[Tensor], base: &Base, spec: &Spec) -> Part {
    let (tokens, taught) = teaching(base, spec);
    let dropout = Dropout { seed: 1, step: 0, examples: (0..tokens.len() as u64).collect() };
    let parameters = network.upload(weights).unwrap();
    let forward = network.forward(&parameters, Source::tokens(tokens), dropout).unwrap();
    match taught {
        Taught::Words(words) => network.language_gradients(forward, &words, 4.0).unwrap(),
        Taught::Targets(targets) => network.gradients(forward, &targets, 4.0).unwrap(),
    }
}

#[test]
fn layers_that_are_computed_again_give_the_same_bits() {
    each(|base, spec| {
        let weights = random_weights(base, spec, 2);
        let (network, built) = Network::build(base, spec, Parameters::restore(weights)).unwrap();
        let whole = taught(&network, &built.tensors, base, spec);
        // Not even one layer would keep to it.
        let again = taught(&network.within(1), &built.tensors, base, spec);
        assert_eq!(whole.loss, again.loss);
        for (name, (one, other)) in built.names.iter().zip(whole.gradients.iter().zip(&again.gradients)) {
            assert_eq!(one, other, "{name}: {:?} on {}", spec.method, base.info().model_type);
        }
    });
}

enum Taught {
    Words(Vec<u32>),
    Targets(Targets),
}

/// Four examples' sequences, and what they teach.
fn teaching(base: &Base, spec: &Spec) -> (Vec<Arc<Tokens>>, Taught) {
    if matches!(spec.task, task::Config::MaskedLanguageModel(_)) || spec.task.generates() {
        let tokens: Vec<Arc<Tokens>> = tokens(base, spec).into_iter().map(Arc::new).collect();
        let words = tokens.iter().flat_map(|tokens| &tokens.picked).map(|row| row % 20 + 6).collect();
        return (tokens, Taught::Words(words));
    }
    let examples = espalier_testing::tasks::examples(&spec.task, 4);
    let read = |example| spec.task.sequences(base.tokenizer(), example, 64).unwrap();
    let sequences: Vec<Vec<Tokens>> = examples.iter().map(read).collect();
    let targets = Targets::new(&spec.task, &spec.labels, &examples.iter().collect::<Vec<_>>()).unwrap();
    let targets = targets.cut(sequences.iter().map(|one| one[0].picked.len())).scaled_by(&[0, 1, 2, 3]);
    (sequences.into_iter().flatten().map(Arc::new).collect(), Taught::Targets(targets))
}

#[test]
fn missing_extra_and_misshapen_tensors_are_refused_by_name() {
    each(|base, spec| {
        let mut weights = random_weights(base, spec, 3);
        let names: Vec<String> = weights.keys().cloned().collect();
        let (missing, misshapen) = (&names[0], &names[names.len() - 1]);
        weights.remove(missing);
        weights.insert("stranger".to_string(), Tensor::zeros([1]));
        weights.insert(misshapen.clone(), Tensor::zeros([1, 1, 1]));
        let Err(error) = Network::build(base, spec, Parameters::restore(weights)) else { panic!("it must be refused") };
        let said = error.to_string();
        assert!([missing, "stranger", misshapen].iter().all(|name| said.contains(*name)), "{said}");
    });
}

/// In memory an adapter is what its folder holds.
#[test]
fn written_and_read_again_it_answers_with_the_same_bits() {
    each(|base, spec| {
        let weights = random_weights(base, spec, 7);
        let artifact = artifact(base, spec, weights);
        let folder = tempfile::tempdir().unwrap();
        let published = artifact::write(&artifact, base, folder.path(), &folder.path().join("temporary")).unwrap();
        let read = artifact::read(folder.path(), &published.version, base).unwrap();
        assert_eq!(read, artifact, "{:?}", spec.method);
    });
}

#[test]
fn a_text_longer_than_the_base_reads_leaves_room_for_virtual_tokens() {
    let long = [Input::text("card ".repeat(400))];
    each(|base, spec| {
        let mut artifact = artifact(base, spec, random_weights(base, spec, 8));
        artifact.card.max_length = base.info().max_tokens;
        let adapted = Adapted::load(&artifact, base).unwrap();
        let tokens = adapted.tokens(base, &long[0]).unwrap();
        assert_eq!(tokens.ids.len() + spec.method.virtual_tokens(), base.info().max_tokens);
        assert!(adapted.outputs(base, &long).unwrap()[0].iter().all(|logit| logit.is_finite()));
    });
}

#[test]
fn a_then_b_then_a_answers_as_at_first() {
    each(|base, spec| {
        let [a, b] = [4, 5].map(|seed| adapted(base, spec, random_weights(base, spec, seed)));
        let first = a.outputs(base, &inputs()).unwrap();
        assert_ne!(first, b.outputs(base, &inputs()).unwrap());
        assert_eq!(first, a.outputs(base, &inputs()).unwrap());
    });
}

#[test]
fn a_mixed_batch_answers_as_one_by_one_to_the_bit() {
    bases().iter().for_each(mixed_as_one_by_one);
}

fn mixed_as_one_by_one(base: &Arc<Base>) {
    let plain = || -> Vec<Tokens> {
        inputs().iter().map(|input| base.tokenizer().encode(&input.text, None, 64).unwrap()).collect()
    };
    let mut groups = vec![Group { adapted: None, inputs: plain() }];
    let one = |tokens| mixed::forward(base, &[Group { adapted: None, inputs: vec![tokens] }]).unwrap();
    let mut alone: Vec<Vec<f32>> = plain().into_iter().flat_map(one).collect();
    for (seed, method) in (10..).zip(methods(base)) {
        for task in tasks(base) {
            let Some(spec) = spec(base, &method, &task) else { continue };
            let adapted = Arc::new(adapted(base, &spec, random_weights(base, &spec, seed)));
            alone.extend(tokens(base, &spec).into_iter().flat_map(|one| {
                mixed::forward(base, &[Group { adapted: Some(Arc::clone(&adapted)), inputs: vec![one] }]).unwrap()
            }));
            groups.push(Group { adapted: Some(adapted), inputs: tokens(base, &spec) });
        }
    }
    let together = mixed::forward(base, &groups).unwrap();
    assert_eq!(together.len(), alone.len());
    for (mixed, alone) in together.iter().zip(&alone) {
        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(mixed), bits(alone), "{mixed:?} is not {alone:?}");
    }
}

/// What the task reads of the inputs; where words are hidden, with one that is.
fn tokens(base: &Base, spec: &Spec) -> Vec<Tokens> {
    let mask = match &spec.task {
        task::Config::MaskedLanguageModel(_) => base.info().mask_token.clone().unwrap(),
        _ => String::new(),
    };
    let read = |input: Input| {
        let input = Input::text(format!("{} {mask}", input.text));
        let mut tokens = spec.task.tokens(base.tokenizer(), &input, 64).unwrap();
        if spec.task.generates() {
            tokens.picked = vec![0, tokens.ids.len() as u32 - 1];
        }
        tokens
    };
    inputs().into_iter().map(read).collect()
}

#[test]
fn what_makes_no_sense_is_refused_with_the_tables_reason() {
    let (mut sensible, mut senseless) = (0, 0);
    for base in bases() {
        for method in methods(&base) {
            for task in tasks(&base) {
                let asked =
                    Asked { method: &method, task: &task, base: base.info(), sites: &base.sites(Pooling::Mean) };
                let faults = cells::faults(&asked);
                let request = Request { method: Some(method.clone()), task: Some(task.clone()), ..Request::default() };
                let labels = ["a", "b"].map(str::to_string);
                match Spec::resolve(&request, &labels, 12, &base) {
                    Ok(_) => {
                        assert!(faults.is_empty(), "{method:?} for {task:?}");
                        sensible += 1;
                    }
                    Err(Error::Invalid(problem)) => {
                        assert_eq!(problem.faults, faults, "{method:?} for {task:?}");
                        senseless += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    println!("{sensible} combinations of method, task and architecture make sense, {senseless} do not");
    // Of the seven ways of the tasks that do not ask for the base's own head: a head alone to embed in two ways on thirteen
    // bases, biases on three. Hidden words: on no base without that head; on those with it no head alone, no biases on one.
    // What comes next, and which of two is preferred: on no base without that head; on the five with it no head alone, no
    // biases on two.
    let (of_seven, of_hidden, of_tags) = (2 * 13 + 3 * 2 * 7, 22 * 13 + 8 + 2, 2);
    let of_next = 2 * (22 * 13 + 5 + 2 * 2);
    assert_eq!(senseless, of_seven + of_hidden + of_tags + of_next);
    assert_eq!(sensible + senseless, 22 * 13 * (9 + 1) + 22 * 8 * 2 + 22 * 5 * 2);
}

#[test]
fn settings_that_do_not_fit_the_base_are_named() {
    let base = espalier_testing::jobs::tiny_base();
    let config = |json: serde_json::Value| -> lora::Config { serde_json::from_value(json).unwrap() };
    for (json, pointer) in [
        (serde_json::json!({"rank": 0}), "/method/rank"),
        (serde_json::json!({"rank": 10_000}), "/method/rank"),
        (serde_json::json!({"alpha": -1.0}), "/method/alpha"),
        (serde_json::json!({"dropout": 1.0}), "/method/dropout"),
        (serde_json::json!({"target_modules": ["q_proj"]}), "/method/target_modules"),
        (serde_json::json!({"target_modules": "linear"}), "/method/target_modules"),
        (serde_json::json!({"target_modules": []}), "/method/target_modules"),
        (serde_json::json!({"layers": {"top": 3}}), "/method/layers"),
        (serde_json::json!({"layers": {"from": 1, "to": 0}}), "/method/layers"),
    ] {
        let refused = config(json.clone()).resolve(&base.sites(Pooling::Mean));
        let Err(espalier_core::error::Error::Invalid(problem)) = refused else { panic!("{json} must be refused") };
        let place = espalier_core::error::Place::Pointer(pointer.to_string());
        assert!(problem.faults.iter().any(|fault| fault.place == place), "{json}: {:?}", problem.faults);
    }
}

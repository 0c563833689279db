//! The contract of an adapter method, for every method, task and architecture.

use espalier::serving::AdapterHandle;
use espalier::serving::multi_adapter::{self, AdapterGroup};
use espalier_core::adapter::{self, ParameterBuilder, lora};
use espalier_core::artifact::{self, AdapterManifest, Artifact, BaseModelId, LoadedAdapter, Probe, Vocabulary};
use espalier_core::error::Error;
use espalier_core::model::{BaseModel, Module, Pooling, SUPPORTED_MODEL_TYPES, SiteInfo, TextLimits, Tokens};
use espalier_core::task::causal_language_model::NextTokenObjective;
use espalier_core::task::objective::{MicroBatch, Objective, ObjectiveContext};
use espalier_core::task::{self, HeadKind, Input, lm_loss};
use espalier_core::training::compatibility::{self, Combination};
use espalier_core::training::network::{ForwardInput, MicroBatchGradients, Network};
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, Dropout, LoraPrecision, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every method with several settings, for a base.
fn methods(base: &BaseModel) -> Vec<adapter::Config> {
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
    let is_biased = |module: Module| sites.iter().any(|info| info.site.module == module && info.has_bias);
    if !is_biased(Module::FeedForwardIn) && is_biased(Module::Query) {
        text = text.replace(r#"["feed_forward_in","output.LayerNorm"]"#, r#"["query"]"#);
    }
    let (own, theirs) = (paths(base), ["attention.self.key", "layer.1.attention.self.query", "output.LayerNorm"]);
    for (own, theirs) in own.iter().zip(theirs) {
        text = text.replace(theirs, own);
    }
    serde_json::from_str(&text).unwrap()
}

/// The base's paths of a layer's key projection, of the second layer's query projection, and of a layer's last norm.
fn paths(base: &BaseModel) -> [String; 3] {
    let sites = base.sites(Pooling::Mean);
    let path = |modules: &[Module]| {
        let is_match = |info: &&SiteInfo| info.site.layer == Some(1) && modules.contains(&info.site.module);
        let path = &sites.iter().find(is_match).unwrap().module_path;
        path[["layer", "h."].iter().find_map(|start| path.find(start)).unwrap()..].to_string()
    };
    let after_layer = |path: String| path.split_once(".1.").unwrap().1.to_string();
    let fused = Module::QueryKeyValue;
    [
        after_layer(path(&[Module::Key, fused])),
        path(&[Module::Query, fused]),
        after_layer(path(&[Module::FeedForwardNorm])),
    ]
}

/// The tasks for a base: with an embedding head, every task and a second pooling; with a masked language model's head, that task and
/// tagging; with a causal one, the generative tasks.
fn tasks(base: &BaseModel) -> Vec<task::Config> {
    if base.info().is_causal_lm {
        return serde_json::from_value(serde_json::json!([{"type": "causal_language_model"}, {"type": "preference"}]))
            .unwrap();
    }
    if base.info().mask_token.is_some() {
        let tasks = serde_json::json!([{"type": "masked_language_model"}, {"type": "token_classification"}]);
        return serde_json::from_value(tasks).unwrap();
    }
    let offers = |pooling: &Pooling| base.info().poolings.contains(pooling);
    let one = [Pooling::Cls, Pooling::First, Pooling::Last].into_iter().find(offers).unwrap();
    let by_mean = espalier_testing::tasks::all_tasks().into_iter().map(|task| task.with_pooling(Pooling::Mean));
    by_mean.chain([task::Config::default().with_pooling(one)]).collect()
}

/// `None` for an unsupported combination.
fn spec(base: &BaseModel, method: &adapter::Config, task: &task::Config) -> Option<Spec> {
    let pooling = task.pooling().unwrap();
    let asked = Combination { method, task, base: base.info(), sites: &base.sites(pooling) };
    let is_supported = compatibility::check(&asked).is_empty();
    is_supported
        .then(|| espalier_testing::tasks::spec_and_data(base, task, method.clone(), Hyperparameters::default(), 12).0)
}

fn for_each_combination(check: impl Fn(&Arc<BaseModel>, &Spec)) {
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

/// Architectures without a masked language model's head.
const DECODERS: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// Every architecture, then the encoders and decoders with a language model's head.
fn bases() -> Vec<Arc<BaseModel>> {
    let load = |model_type: &&str| match *model_type {
        "bert" => espalier_testing::jobs::tiny_base(),
        other => {
            let folder = espalier_testing::jobs::fixture("architectures").join(other);
            Arc::new(BaseModel::load(&folder, other, Arc::new(CpuBackend::detect())).unwrap())
        }
    };
    let encoders = SUPPORTED_MODEL_TYPES.iter().filter(|model_type| !DECODERS.contains(model_type));
    let with_heads = encoders.map(|model_type| espalier_testing::tasks::base_of_architecture(model_type));
    let decoder = |model_type: &&str| {
        let folder = espalier_testing::jobs::fixture("decoders").join(model_type);
        Arc::new(BaseModel::load(&folder, model_type, Arc::new(CpuBackend::detect())).unwrap())
    };
    SUPPORTED_MODEL_TYPES.iter().map(load).chain(with_heads).chain(DECODERS.iter().map(decoder)).collect()
}

/// Random weights without zeros.
fn random_weights(base: &Arc<BaseModel>, spec: &Spec, seed: u64) -> BTreeMap<String, Tensor> {
    let (_, built) = Network::build(base, spec, ParameterBuilder::from_seed(seed)).unwrap();
    let mut random = SeededRng::new(seed, &["weights"]);
    let mut weights = built.into_weights();
    weights
        .values_mut()
        .flat_map(|tensor| &mut tensor.values)
        .for_each(|value| *value = random.standard_normal() * 0.2);
    weights
}

/// Loads an adapter with these trained weights.
fn loaded_adapter(base: &Arc<BaseModel>, spec: &Spec, weights: BTreeMap<String, Tensor>) -> LoadedAdapter {
    LoadedAdapter::load(&artifact(base, spec, weights), base).unwrap()
}

fn artifact(base: &Arc<BaseModel>, spec: &Spec, weights: BTreeMap<String, Tensor>) -> Artifact {
    let weights = spec.method.inference_weights(base, spec.task.pooling().unwrap(), weights).unwrap();
    let probe = Probe {
        inputs: inputs()[..1].to_vec(),
        outputs: vec![vec![0.0; spec.task.head_outputs(&spec.labels).unwrap_or(base.info().hidden_size)]],
        kernels: base.info().backend.clone(),
    };
    let manifest = AdapterManifest {
        format: 1,
        task: spec.task.clone(),
        method: spec.method.clone(),
        vocabulary: Vocabulary::default(),
        labels: spec.labels.clone(),
        temperature: 1.0,
        thresholds: Default::default(),
        max_length: 64,
        base: BaseModelId { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe,
        metrics: None,
    };
    Artifact { manifest, weights }
}

fn inputs() -> Vec<Input> {
    let texts = ["where is my card", "why", "please please when will my new card arrive at home", "a fee"];
    texts.map(Input::from_text).to_vec()
}

#[test]
fn fresh_adapter_leaves_the_base_output_unchanged() {
    for_each_combination(|base, spec| {
        let (_, built) = Network::build(base, spec, ParameterBuilder::from_seed(1)).unwrap();
        let adapted = loaded_adapter(base, spec, built.into_weights());
        let with = adapted.forward(base, &inputs()).unwrap().concat();
        let without = adapted.forward_base(base, &inputs()).unwrap().concat();
        let difference = with.iter().zip(&without).map(|(with, without)| (with - without).abs()).fold(0.0, f32::max);
        match &spec.method {
            // DoRA divides by the norm that it multiplies by.
            adapter::Config::Lora(config) if config.dora => assert!(difference < 1e-5, "{difference}"),
            method if method.is_identity_at_init() => assert_eq!(with, without, "{method:?}"),
            // Virtual tokens change the output from the start.
            method => assert!(difference > 1e-4, "{method:?}"),
        }
    });
}

#[test]
fn published_adapter_reproduces_the_trained_outputs() {
    for_each_combination(|base, spec| {
        let weights = random_weights(base, spec, 6);
        let (network, built) = Network::build(base, spec, ParameterBuilder::from_weights(weights.clone())).unwrap();
        let source = ForwardInput::from_tokens(tokens(base, spec).into_iter().map(Arc::new).collect());
        let mut trained = network.outputs(&network.upload(&built.tensors).unwrap(), &source).unwrap();
        match network.output_head().kind {
            HeadKind::Identity => trained.chunks_exact_mut(network.output_width()).for_each(task::l2_normalize),
            HeadKind::LmHead => {
                let width = base.info().hidden_size;
                let rows = Tensor::new([trained.len() / width, width], trained);
                let rows = base.backend().upload(&rows).unwrap();
                let logits = base.backend().linear(&rows, base.lm_head_linear().unwrap()).unwrap();
                let logits = base.backend().download(&logits).unwrap().values;
                let rows = logits.chunks_exact(base.info().vocabulary_size);
                trained = rows.flat_map(lm_loss::top_tokens).collect();
            }
            HeadKind::Trained(_) => {}
        }
        let adapted = AdapterHandle::new("", Arc::new(loaded_adapter(base, spec, weights)));
        let published = multi_adapter::forward(base, &[AdapterGroup { adapter: adapted, inputs: tokens(base, spec) }])
            .unwrap()
            .concat();
        assert_eq!(trained, published, "{:?}", spec.method);
    });
}

#[test]
fn every_parameter_gets_a_gradient() {
    for_each_combination(|base, spec| {
        let (network, built) =
            Network::build(base, spec, ParameterBuilder::from_weights(random_weights(base, spec, 2))).unwrap();
        let batch = gradients(&network, &built.tensors, base, spec);
        let norm = |gradient: &Vec<f32>| gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
        let largest = batch.gradients.iter().map(norm).fold(0.0, f32::max);
        for (name, gradient) in built.names.iter().zip(&batch.gradients) {
            let (own, on) = (norm(gradient), &base.info().model_type);
            assert!(own > 1e-6 * largest, "{name}: {own} of {largest} on {on}, {:?} {:?}", spec.method, spec.task);
        }
    });
}

fn gradients(network: &Network, weights: &[Tensor], base: &BaseModel, spec: &Spec) -> MicroBatchGradients {
    let TrainingInputs { tokens, objective, label_ids } = training_inputs(base, spec);
    let dropout = Dropout { seed: 1, step: 0, example_ids: (0..tokens.len() as u64).collect() };
    let parameters = network.upload(weights).unwrap();
    let forward = network.forward(&parameters, ForwardInput::from_tokens(tokens), dropout).unwrap();
    let batch = MicroBatch { examples: &[0, 1, 2, 3], label_ids: &label_ids };
    network.gradients(forward, objective.as_ref(), &batch, 4.0).unwrap()
}

#[test]
fn gradient_checkpointing_is_bit_identical() {
    for_each_combination(|base, spec| {
        let weights = random_weights(base, spec, 2);
        let (network, built) = Network::build(base, spec, ParameterBuilder::from_weights(weights)).unwrap();
        let whole = gradients(&network, &built.tensors, base, spec);
        // No layer's activations fit this budget.
        let again = gradients(&network.with_activation_budget(1), &built.tensors, base, spec);
        assert_eq!(whole.loss, again.loss);
        for (name, (one, other)) in built.names.iter().zip(whole.gradients.iter().zip(&again.gradients)) {
            assert_eq!(one, other, "{name}: {:?} on {}", spec.method, base.info().model_type);
        }
    });
}

/// Inputs of the loss of four examples.
struct TrainingInputs {
    tokens: Vec<Arc<Tokens>>,
    objective: Box<dyn Objective>,
    /// Labels of a language model.
    label_ids: Vec<u32>,
}

fn training_inputs(base: &BaseModel, spec: &Spec) -> TrainingInputs {
    if matches!(spec.task, task::Config::MaskedLanguageModel(_)) || spec.task.is_generative() {
        let tokens: Vec<Arc<Tokens>> = tokens(base, spec).into_iter().map(Arc::new).collect();
        let label_ids = tokens.iter().flat_map(|tokens| &tokens.target_positions).map(|row| row % 20 + 6).collect();
        let token_counts = tokens.iter().map(|tokens| tokens.target_positions.len()).collect();
        return TrainingInputs { tokens, objective: Box::new(NextTokenObjective { token_counts }), label_ids };
    }
    let examples = espalier_testing::tasks::examples(&spec.task, 4);
    let tokenize = |example| spec.task.tokenize_example(base.tokenizer(), example, 64).unwrap();
    let tokens: Vec<Vec<Arc<Tokens>>> =
        examples.iter().map(|example| tokenize(example).into_iter().map(Arc::new).collect()).collect();
    let examples: Vec<_> = examples.iter().collect();
    let context = ObjectiveContext { base, labels: &spec.labels, examples: &examples, tokens: &tokens, seed: 1 };
    let mut objective = spec.task.objective(&context).unwrap();
    objective.fit(&[0, 1, 2, 3]);
    TrainingInputs { tokens: tokens.concat(), objective, label_ids: Vec::new() }
}

#[test]
fn missing_extra_and_misshapen_tensors_are_rejected_by_name() {
    for_each_combination(|base, spec| {
        let mut weights = random_weights(base, spec, 3);
        let names: Vec<String> = weights.keys().cloned().collect();
        let (missing, misshapen) = (&names[0], &names[names.len() - 1]);
        weights.remove(missing);
        weights.insert("unexpected".to_string(), Tensor::zeros([1]));
        weights.insert(misshapen.clone(), Tensor::zeros([1, 1, 1]));
        let Err(error) = Network::build(base, spec, ParameterBuilder::from_weights(weights)) else {
            panic!("it should be rejected")
        };
        let message = error.to_string();
        assert!([missing, "unexpected", misshapen].iter().all(|name| message.contains(*name)), "{message}");
    });
}

#[test]
fn saved_and_loaded_adapter_is_bit_identical() {
    for_each_combination(|base, spec| {
        let weights = random_weights(base, spec, 7);
        let artifact = artifact(base, spec, weights);
        let folder = tempfile::tempdir().unwrap();
        let published =
            artifact::publish_artifact(&artifact, base, folder.path(), &folder.path().join("temporary")).unwrap();
        let read = artifact::load_published(folder.path(), &published.version, base).unwrap();
        assert_eq!(read, artifact, "{:?}", spec.method);
    });
}

#[test]
fn truncation_reserves_virtual_tokens() {
    let long = [Input::from_text("card ".repeat(400))];
    for_each_combination(|base, spec| {
        let mut artifact = artifact(base, spec, random_weights(base, spec, 8));
        artifact.manifest.max_length = base.info().max_tokens;
        let adapted = LoadedAdapter::load(&artifact, base).unwrap();
        let tokens = adapted.tokenize(base, &long[0]).unwrap();
        assert_eq!(tokens.ids.len() + spec.method.num_virtual_tokens(), base.info().max_tokens);
        assert!(adapted.forward(base, &long).unwrap()[0].iter().all(|logit| logit.is_finite()));
    });
}

#[test]
fn switching_adapters_does_not_change_outputs() {
    for_each_combination(|base, spec| {
        let [a, b] = [4, 5].map(|seed| loaded_adapter(base, spec, random_weights(base, spec, seed)));
        let first = a.forward(base, &inputs()).unwrap();
        assert_ne!(first, b.forward(base, &inputs()).unwrap());
        assert_eq!(first, a.forward(base, &inputs()).unwrap());
    });
}

#[test]
fn mixed_batch_is_bit_identical_to_single_requests() {
    bases().iter().for_each(|base| {
        assert_mixed_equals_single(base, base.backend());
    });
}

#[test]
fn mixed_batch_in_int8_is_bit_identical_to_single_requests_and_close_to_f32() {
    for base in bases() {
        let int8 = base.backend().with_int8_activations(LoraPrecision::F32).unwrap();
        let [exact, rounded] = [base.backend(), &int8].map(|backend| assert_mixed_equals_single(&base, backend));
        // The embeddings of the bare base; the outputs of some adapters are ids of tokens.
        for (exact, rounded) in exact.iter().zip(&rounded).take(inputs().len()) {
            let cosine: f32 = exact.iter().zip(rounded).map(|(exact, rounded)| exact * rounded).sum();
            assert!(exact != rounded && cosine > 0.99, "{}: {cosine}", base.info().model_type);
        }
    }
}

/// Returns the outputs of all inputs.
fn assert_mixed_equals_single(base: &Arc<BaseModel>, backend: &Arc<dyn Backend>) -> Vec<Vec<f32>> {
    let forward = |groups: &[AdapterGroup]| multi_adapter::forward_with_backend(base, backend, groups).unwrap();
    let plain = || -> Vec<Tokens> {
        inputs().iter().map(|input| base.tokenizer().encode(&input.text, None, 64).unwrap()).collect()
    };
    let mut groups = vec![AdapterGroup { adapter: AdapterHandle::base(), inputs: plain() }];
    let one = |tokens| forward(&[AdapterGroup { adapter: AdapterHandle::base(), inputs: vec![tokens] }]);
    let mut alone: Vec<Vec<f32>> = plain().into_iter().flat_map(one).collect();
    for (seed, method) in (10..).zip(methods(base)) {
        for task in tasks(base) {
            let Some(spec) = spec(base, &method, &task) else { continue };
            let adapted = loaded_adapter(base, &spec, random_weights(base, &spec, seed));
            let adapted = AdapterHandle::new("", Arc::new(adapted));
            let one = |tokens| forward(&[AdapterGroup { adapter: adapted.clone(), inputs: vec![tokens] }]);
            alone.extend(tokens(base, &spec).into_iter().flat_map(one));
            groups.push(AdapterGroup { adapter: adapted, inputs: tokens(base, &spec) });
        }
    }
    let together = forward(&groups);
    assert_eq!(together.len(), alone.len());
    for (mixed, alone) in together.iter().zip(&alone) {
        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(mixed), bits(alone), "{mixed:?} is not {alone:?}");
    }
    together
}

/// The inputs as the task tokenizes them; with a mask token for masked language modelling.
fn tokens(base: &BaseModel, spec: &Spec) -> Vec<Tokens> {
    let mask = match &spec.task {
        task::Config::MaskedLanguageModel(_) => base.info().mask_token.clone().unwrap(),
        _ => String::new(),
    };
    let tokenize = |input: Input| {
        let input = Input::from_text(format!("{} {mask}", input.text));
        let mut tokens = spec.task.tokenize_input(base.tokenizer(), &input, TextLimits::tokens(64)).unwrap();
        if spec.task.is_generative() {
            tokens.target_positions = vec![0, tokens.ids.len() as u32 - 1];
        }
        tokens
    };
    inputs().into_iter().map(tokenize).collect()
}

#[test]
fn unsupported_combinations_are_rejected_with_their_reason() {
    let (mut supported, mut unsupported) = (0, 0);
    for base in bases() {
        for method in methods(&base) {
            for task in tasks(&base) {
                let asked =
                    Combination { method: &method, task: &task, base: base.info(), sites: &base.sites(Pooling::Mean) };
                let errors = compatibility::check(&asked);
                let request = Request { method: Some(method.clone()), task: Some(task.clone()), ..Request::default() };
                let labels = ["a", "b"].map(str::to_string);
                match Spec::resolve(&request, &labels, 12, &base) {
                    Ok(_) => {
                        assert!(errors.is_empty(), "{method:?} for {task:?}");
                        supported += 1;
                    }
                    Err(Error::Invalid(problem)) => {
                        assert_eq!(problem.errors, errors, "{method:?} for {task:?}");
                        unsupported += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    println!("{supported} combinations of method, task and architecture are supported, {unsupported} are not");
    // Tasks that do not need the base's head, in seven variants: `head` with two variants of embedding on thirteen bases, and `bias`
    // on three. Masked language modelling: every method on the thirteen bases without that head; `head` and, on one, `bias` on the
    // others. The two generative tasks: every method on the thirteen bases without that head; `head` on the five with it, `bias` on
    // two.
    let (of_seven, of_masked, of_tags) = (2 * 13 + 3 * 2 * 7, 22 * 13 + 8 + 2, 2);
    let of_next = 2 * (22 * 13 + 5 + 2 * 2);
    assert_eq!(unsupported, of_seven + of_masked + of_tags + of_next);
    assert_eq!(supported + unsupported, 22 * 13 * (9 + 1) + 22 * 8 * 2 + 22 * 5 * 2);
}

#[test]
fn settings_that_do_not_fit_the_base_are_reported_by_pointer() {
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
        let result = adapter::Config::Lora(config(json.clone())).resolve(&base, Pooling::Mean);
        let Err(Error::Invalid(problem)) = result else { panic!("{json} should be rejected") };
        let location = espalier_core::error::Location::Pointer(pointer.to_string());
        assert!(problem.errors.iter().any(|error| error.location == location), "{json}: {:?}", problem.errors);
    }
}

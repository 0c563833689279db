//! Continuous batching under load: sequences of several adapters start, finish and are cancelled at random, every output equals
//! that of the sequence alone, and no memory leaks. `make soak` runs 10,000 rounds; ESPALIER_SOAK_ROUNDS sets another number.

mod fairness;

use espalier::serving::generation::sampling::SamplingParams;
use espalier::serving::generation::{
    Completion, GenerationEngine, GenerationRequest, GenerationStream, MaxTokens, Prompt, PromptOutput, RequestFields,
    Settings, StopOutput,
};
use espalier::serving::{AdapterHandle, Owner};
use espalier_core::adapter::{self, ParameterBuilder};
use espalier_core::artifact::{AdapterManifest, Artifact, BaseModelId, LoadedAdapter, Probe, Vocabulary};
use espalier_core::model::BaseModel;
use espalier_core::task::{Config, causal_language_model};
use espalier_core::training::network::Network;
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

fn base(model_type: &str) -> Arc<BaseModel> {
    let folder = espalier_testing::jobs::fixture("decoders").join(model_type);
    Arc::new(BaseModel::load(&folder, model_type, Arc::new(CpuBackend::detect())).unwrap())
}

fn random_adapter(base: &Arc<BaseModel>, method: &str, seed: u64) -> Arc<LoadedAdapter> {
    let method: adapter::Config = serde_json::from_str(method).unwrap();
    let task = Config::CausalLanguageModel(causal_language_model::Config::default());
    let request = Request {
        method: Some(method),
        task: Some(task),
        hyperparameters: Hyperparameters { seed: Some(seed), ..Hyperparameters::default() },
        ..Request::default()
    };
    let spec = Spec::resolve(&request, &[], 12, base).unwrap();
    let (_, built) = Network::build(base, &spec, ParameterBuilder::from_seed(seed)).unwrap();
    let mut weights = built.into_weights();
    let mut random = SeededRng::new(seed, &["weights"]);
    weights
        .values_mut()
        .flat_map(|tensor| &mut tensor.values)
        .for_each(|value| *value += random.standard_normal() * 0.1);
    let card = AdapterManifest {
        format: 1,
        task: spec.task.clone(),
        max_length: 128,
        method: spec.method.clone(),
        vocabulary: Vocabulary::default(),
        labels: Vec::new(),
        temperature: 1.0,
        thresholds: Default::default(),
        base: BaseModelId { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: base.info().backend.clone() },
        metrics: None,
    };
    Arc::new(LoadedAdapter::load(&Artifact { manifest: card, weights }, base).unwrap())
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct RequestSpec {
    /// Index in [`GeneratorFixture::adapters`].
    adapter: usize,
    prompt: Vec<u32>,
    max_tokens: u32,
}

struct GeneratorFixture {
    engine: GenerationEngine,
    loaded: Vec<Arc<LoadedAdapter>>,
    /// The base model, followed by the loaded adapters.
    adapters: Vec<AdapterHandle>,
}

impl GeneratorFixture {
    /// Submits a request of one of three owners.
    fn submit(&self, spec: &RequestSpec) -> espalier_core::error::Result<GenerationStream> {
        self.submit_of(&Owner::from(format!("owner {}", spec.adapter % 3)), spec)
    }

    fn submit_of(&self, owner: &Owner, spec: &RequestSpec) -> espalier_core::error::Result<GenerationStream> {
        let request = GenerationRequest {
            prompts: vec![Prompt::Tokens(spec.prompt.clone())],
            fields: RequestFields { prompts: "inputs", logprobs: "logprobs", format: "/response_format" },
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            stop_sequences: vec!["zz".to_string()],
            stop_output: StopOutput::Exclude,
            constraint: None,
            shown_special_tokens: Vec::new(),
            max_tokens: MaxTokens::Exactly(spec.max_tokens),
            choices_per_prompt: 1,
            prompt_output: PromptOutput::None,
        };
        let permit = self.engine.admit(owner, request.sequence_count())?;
        let streams = self.engine.submit(permit, &self.adapters[spec.adapter], &request, None, &AtomicBool::new(false));
        streams.map(|mut streams| streams.remove(0))
    }

    async fn generate_text(&self, spec: &RequestSpec) -> String {
        self.submit(spec).unwrap().collect().await.unwrap().text
    }
}

fn start_engine(base: &Arc<BaseModel>, settings: Settings) -> GenerationEngine {
    GenerationEngine::start(base, Arc::clone(base.backend()), settings).unwrap().unwrap()
}

fn generator_fixture(base: &Arc<BaseModel>, settings: Settings) -> GeneratorFixture {
    let methods = [
        r#"{"type": "lora", "target_modules": "all-linear"}"#,
        r#"{"type": "prefix_tuning", "num_virtual_tokens": 6}"#,
        r#"{"type": "prompt_tuning", "num_virtual_tokens": 5}"#,
        r#"{"type": "ia3"}"#,
    ];
    let loaded: Vec<Arc<LoadedAdapter>> =
        methods.iter().zip(1..).map(|(method, seed)| random_adapter(base, method, seed)).collect();
    fixture_with_adapters(base, settings, loaded)
}

fn fixture_with_adapters(
    base: &Arc<BaseModel>,
    settings: Settings,
    loaded: Vec<Arc<LoadedAdapter>>,
) -> GeneratorFixture {
    let handle = |(index, adapter): (usize, &Arc<LoadedAdapter>)| {
        AdapterHandle::new(format!("version {index}"), Arc::clone(adapter))
    };
    let adapters = std::iter::once(AdapterHandle::base()).chain(loaded.iter().enumerate().map(handle)).collect();
    GeneratorFixture { engine: start_engine(base, settings), loaded, adapters }
}

fn settings() -> Settings {
    Settings {
        threads: 2,
        kv_cache_bytes: 4 << 20,
        constraint_bytes: 1 << 20,
        max_queued_sequences: 1 << 20,
        max_text_bytes: 1 << 20,
        max_running_sequences: 16,
        default_max_tokens: 16,
        training_cpu_share: 0.0,
        prefill_chunk_tokens: 9,
        prompt_lookup_tokens: 7,
    }
}

fn random_spec(random: &mut SeededRng) -> RequestSpec {
    // Prompts have common prefixes, so that KV blocks are shared.
    let length = 1 + random.uniform_below(80);
    let variant = random.uniform_below(3) as u32;
    let prompt = (0..length as u32).map(|at| 4 + (at * 7 + if at > 40 { variant } else { 0 }) % 280).collect();
    RequestSpec { adapter: random.uniform_below(5), prompt, max_tokens: 1 + random.uniform_below(24) as u32 }
}

fn soak_rounds() -> usize {
    let number = std::env::var("ESPALIER_SOAK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    number.unwrap_or(if std::env::var_os("ESPALIER_SOAK").is_some() { 10_000 } else { 1_000 })
}

/// Resident memory of this process in bytes; 0 on systems without `/proc`.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Memory growth that the allocator may cause after the first rounds, in bytes.
const ALLOWED_GROWTH: u64 = 64 << 20;

/// Serializes the tests of this file: one of them measures the memory of the whole process.
static MEMORY_TEST_LOCK: Mutex<()> = Mutex::new(());

fn serialize_tests() -> MutexGuard<'static, ()> {
    MEMORY_TEST_LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a sequence to its end, or drops its stream after `cancel_after` tokens.
async fn read_until_cancelled(
    fixture: &GeneratorFixture,
    spec: &RequestSpec,
    expected: &HashMap<RequestSpec, String>,
    cancel_after: Option<usize>,
) {
    let mut generation = fixture.submit(spec).unwrap();
    let (mut text, mut token_count) = (String::new(), 0);
    while let Some(token) = generation.next().await.unwrap() {
        text.push_str(&token.text_delta);
        token_count += 1;
        if cancel_after.is_some_and(|limit| token_count > limit) {
            return;
        }
    }
    assert_eq!(text, expected[spec]);
}

#[test]
fn soak_rotary_outputs_are_exact_and_memory_is_stable() {
    run_soak("qwen2", soak_rounds());
}

#[test]
fn soak_learned_positions_outputs_are_exact() {
    run_soak("gpt2", 300);
}

fn run_soak(model_type: &str, rounds: usize) {
    let (_lock, base) = (serialize_tests(), base(model_type));
    let fixture = Arc::new(generator_fixture(&base, settings()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut random = SeededRng::new(11, &["soak"]);
    let specs: Vec<RequestSpec> = (0..60).map(|_| random_spec(&mut random)).collect();
    let expected = Arc::new(runtime.block_on(isolated_outputs(&base, &fixture, &specs)));
    let warm_bytes = runtime.block_on(run_rounds(&fixture, &specs, &expected, &mut random, rounds));
    let final_bytes = resident_bytes();
    println!(
        "resident after a fifth of {rounds} rounds: {} KiB, after all: {} KiB",
        warm_bytes >> 10,
        final_bytes >> 10
    );
    assert!(final_bytes < warm_bytes + ALLOWED_GROWTH, "{warm_bytes} bytes became {final_bytes}");
    runtime.block_on(async {
        while fixture.engine.stats().running_sequences + fixture.engine.stats().queued_sequences > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let stats = fixture.engine.stats();
    assert_eq!(stats.reserved_blocks, 0, "{stats:?}");
    assert!(stats.prefix_cache_hit_tokens > 0, "common prefixes are computed once: {stats:?}");
    assert!(stats.kv_cache_reserved_bytes <= 4 << 20, "{stats:?}");
    for adapter in &fixture.loaded {
        assert_eq!(Arc::strong_count(adapter), 2, "only the fixture and its handle refer to the adapter");
    }
}

/// The output of each request, generated alone by an engine of its own, where no prefix is cached and no token is drafted.
async fn isolated_outputs(
    base: &Arc<BaseModel>,
    fixture: &GeneratorFixture,
    specs: &[RequestSpec],
) -> HashMap<RequestSpec, String> {
    let mut outputs = HashMap::new();
    for spec in specs {
        let settings = Settings { prompt_lookup_tokens: 0, ..settings() };
        let isolated = fixture_with_adapters(base, settings, fixture.loaded.clone());
        outputs.insert(spec.clone(), isolated.generate_text(spec).await);
        assert_eq!(isolated.engine.stats().prefix_cache_hit_tokens, 0);
        isolated.engine.close();
        isolated.engine.join();
    }
    outputs
}

/// Runs requests, up to 48 at once, and cancels some. Returns the resident bytes after a fifth of the rounds.
async fn run_rounds(
    fixture: &Arc<GeneratorFixture>,
    specs: &[RequestSpec],
    expected: &Arc<HashMap<RequestSpec, String>>,
    random: &mut SeededRng,
    rounds: usize,
) -> u64 {
    let mut tasks = tokio::task::JoinSet::new();
    let mut warm_bytes = 0;
    for round in 0..rounds {
        if round == rounds / 5 {
            warm_bytes = resident_bytes();
        }
        let (spec, token_count) = (pick_spec(specs, random), random.uniform_below(40));
        let cancel_after = (random.uniform_below(3) == 0).then_some(token_count);
        let (task_fixture, expected) = (Arc::clone(fixture), Arc::clone(expected));
        tasks.spawn(async move { read_until_cancelled(&task_fixture, &spec, &expected, cancel_after).await });
        if tasks.len() > 48 {
            tasks.join_next().await.unwrap().unwrap();
        }
        // Some requests are cancelled before their first token.
        if random.uniform_below(9) == 0 {
            drop(fixture.submit(&pick_spec(specs, random)).unwrap());
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    warm_bytes
}

fn pick_spec(specs: &[RequestSpec], random: &mut SeededRng) -> RequestSpec {
    specs[random.uniform_below(specs.len())].clone()
}

fn current_thread_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Prompts that repeat themselves make drafts, and random weights make many of them wrong.
#[test]
fn drafted_tokens_change_no_text() {
    let _lock = serialize_tests();
    let runtime = current_thread_runtime();
    let (mut plain_steps, mut drafting) = (0, espalier::serving::generation::Stats::default());
    for model_type in ["qwen2", "gpt2"] {
        let base = base(model_type);
        let specs = (0..5).flat_map(|adapter| {
            let prompt = move |length: u32| (0..40).map(|at| 4 + at % length).collect();
            [3, 11].map(|length| RequestSpec { adapter, prompt: prompt(length), max_tokens: 60 })
        });
        for pair in specs.collect::<Vec<_>>().chunks(2) {
            let run = |prompt_lookup_tokens| {
                let fixture = generator_fixture(&base, Settings { prompt_lookup_tokens, ..settings() });
                let streams: Vec<GenerationStream> = pair.iter().map(|spec| fixture.submit(spec).unwrap()).collect();
                let collect = |stream: GenerationStream| {
                    let completion = runtime.block_on(stream.collect()).unwrap();
                    (completion.text, completion.tokens.len(), completion.finish_reason)
                };
                let outputs: Vec<_> = streams.into_iter().map(collect).collect();
                fixture.engine.close();
                fixture.engine.join();
                (outputs, fixture.engine.stats())
            };
            let ((expected, plain), (found, stats)) = (run(0), run(7));
            assert_eq!(found, expected);
            assert_eq!((plain.draft_tokens, stats.generated_tokens), (0, plain.generated_tokens));
            plain_steps += plain.steps;
            drafting.steps += stats.steps;
            drafting.draft_tokens += stats.draft_tokens;
            drafting.accepted_draft_tokens += stats.accepted_draft_tokens;
        }
    }
    assert!(
        drafting.accepted_draft_tokens > 0 && drafting.accepted_draft_tokens < drafting.draft_tokens,
        "{drafting:?}"
    );
    assert!(drafting.steps < plain_steps, "{drafting:?}, {plain_steps} steps without drafts");
}

#[test]
fn concurrent_identical_prompts_are_prefilled_once() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    // Of one owner: the lanes compute prefixes apart.
    let (fixture, owner) = (generator_fixture(&base, settings()), Owner::from("a"));
    let runtime = current_thread_runtime();
    // The prompt fills more than two KV blocks, which begin with the rows of a prefix or a soft prompt.
    for (adapter, virtual_rows) in [(0, 0), (1, 0), (2, 6), (3, 5)] {
        let before = fixture.engine.stats();
        let spec = RequestSpec { adapter, prompt: (4..84).collect(), max_tokens: 5 };
        let streams: Vec<GenerationStream> = (0..4).map(|_| fixture.submit_of(&owner, &spec).unwrap()).collect();
        let texts: Vec<String> =
            streams.into_iter().map(|stream| runtime.block_on(stream.collect()).unwrap().text).collect();
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
        let hit_tokens = fixture.engine.stats().prefix_cache_hit_tokens - before.prefix_cache_hit_tokens;
        assert_eq!(hit_tokens, 3 * (2 * 32 - virtual_rows), "adapter {adapter}");
    }
}

#[test]
fn cached_prefixes_are_prefilled_in_one_batch() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    let fixture = generator_fixture(&base, settings());
    let runtime = current_thread_runtime();
    let spec = |last: u32| RequestSpec { adapter: 0, prompt: (4..84).chain([last]).collect(), max_tokens: 1 };
    runtime.block_on(fixture.generate_text(&spec(4)));
    let before = fixture.engine.stats();
    let streams: Vec<GenerationStream> = (0..12).map(|last| fixture.submit(&spec(5 + last)).unwrap()).collect();
    streams.into_iter().for_each(|stream| drop(runtime.block_on(stream.collect()).unwrap()));
    let after = fixture.engine.stats();
    assert_eq!(after.prefix_cache_hit_tokens - before.prefix_cache_hit_tokens, 12 * 64);
    // Prefilled in chunks of all sequences; one sequence after another would take twelve times as many steps.
    let steps = after.steps - before.steps;
    assert!(steps <= 12 * 17 / 9 + 12, "{steps} steps");
}

#[test]
fn blocks_of_a_shared_prefix_are_reserved_once() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    let block_bytes = base.kv_cache_shape().unwrap().block_bytes() as u64;
    // The common prefix fills 3 blocks, and each of the 16 sequences needs another one.
    let fixture = generator_fixture(&base, Settings { kv_cache_bytes: 20 * block_bytes, ..settings() });
    let isolated = generator_fixture(&base, settings());
    let runtime = current_thread_runtime();
    let spec = |last: u32| RequestSpec { adapter: 1, prompt: (4..100).chain([last]).collect(), max_tokens: 20 };
    let streams: Vec<GenerationStream> = (0..16).map(|last| fixture.submit(&spec(100 + last)).unwrap()).collect();
    let collected = streams.into_iter().map(|stream| runtime.block_on(stream.collect()).unwrap());
    let completions: Vec<Completion> = collected.collect();
    fixture.engine.close();
    fixture.engine.join();
    let stats = fixture.engine.stats();
    // Five sequences with blocks of their own fill the budget; they would take 64 steps, even if no prompt took any.
    assert!(stats.steps < 60, "{stats:?}");
    assert_eq!(stats.prefix_cache_hit_tokens, 15 * 96, "{stats:?}");
    assert_eq!(stats.reserved_blocks, 0, "{stats:?}");
    assert!(stats.kv_cache_reserved_bytes <= 20 * block_bytes, "{stats:?}");
    for (completion, last) in completions.into_iter().zip(0..) {
        assert_eq!(completion.text, runtime.block_on(isolated.generate_text(&spec(100 + last))));
    }
}

#[test]
fn full_queue_is_busy_and_closed_scheduler_drains() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    let fixture =
        generator_fixture(&base, Settings { max_queued_sequences: 2, max_running_sequences: 1, ..settings() });
    let spec = RequestSpec { adapter: 0, prompt: vec![5, 6, 7], max_tokens: 90 };
    let mut streams = Vec::new();
    let busy = loop {
        match fixture.submit(&spec) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() < 100);
    };
    assert_eq!(busy.code(), "generation_queue_full");
    fixture.engine.close();
    assert_eq!(fixture.submit(&spec).err().map(|error| error.code()), Some("shutting_down"));
    let runtime = current_thread_runtime();
    for stream in streams {
        assert!(!runtime.block_on(stream.collect()).unwrap().tokens.is_empty());
    }
    fixture.engine.join();
}

#[test]
fn admitted_requests_count_against_the_queue_limit() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    let fixture = generator_fixture(&base, Settings { max_queued_sequences: 2, ..settings() });
    let owner = Owner::from("a");
    let permit = fixture.engine.admit(&owner, 2).unwrap();
    assert_eq!(fixture.engine.admit(&owner, 1).err().map(|error| error.code()), Some("generation_queue_full"));
    drop(permit);
    assert!(
        fixture.engine.admit(&owner, 100).is_ok(),
        "a request larger than the queue is admitted when nothing waits"
    );
}

/// The base with a tokenizer that lacks the last tokens, as where a vocabulary is padded.
fn base_with_padded_vocabulary(id_count: u64) -> Arc<BaseModel> {
    let (source, folder) = (espalier_testing::jobs::fixture("decoders").join("qwen2"), tempfile::tempdir().unwrap());
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.retain(|_, id| id.as_u64().unwrap() < id_count);
    let tokens: HashSet<String> = vocabulary.keys().cloned().collect();
    let merge_is_known =
        |merge: &Value| tokens.contains(&format!("{}{}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
    tokenizer["model"]["merges"].as_array_mut().unwrap().retain(merge_is_known);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    Arc::new(BaseModel::load(folder.path(), "qwen2", Arc::new(CpuBackend::detect())).unwrap())
}

#[test]
fn ids_beyond_the_tokenizer_are_not_sampled() {
    let (_lock, base) = (serialize_tests(), base_with_padded_vocabulary(300));
    assert_eq!((base.info().vocabulary_size, base.sampled_vocabulary_size()), (320, 300));
    let engine = start_engine(&base, settings());
    let request = GenerationRequest {
        prompts: vec![Prompt::Tokens(vec![5, 6, 7])],
        fields: RequestFields { prompts: "inputs", logprobs: "logprobs", format: "/response_format" },
        sampling: SamplingParams { temperature: 2.0, logprobs: Some(3), seed: 1, ..SamplingParams::default() },
        stop_sequences: Vec::new(),
        stop_output: StopOutput::Exclude,
        constraint: None,
        shown_special_tokens: Vec::new(),
        max_tokens: MaxTokens::Exactly(100),
        choices_per_prompt: 4,
        prompt_output: PromptOutput::None,
    };
    let permit = engine.admit(&Owner::from("a"), request.sequence_count()).unwrap();
    let streams = engine.submit(permit, &AdapterHandle::base(), &request, None, &AtomicBool::new(false)).unwrap();
    let runtime = current_thread_runtime();
    let tokens: Vec<_> =
        streams.into_iter().flat_map(|stream| runtime.block_on(stream.collect()).unwrap().tokens).collect();
    // With logits like these, an id beyond the tokenizer had a chance of about one in 16 at each token.
    assert!(tokens.len() > 50, "{} tokens", tokens.len());
    let ids = tokens.iter().flat_map(|token| {
        let top = token.logprobs.iter().flat_map(|logprobs| &logprobs.top);
        std::iter::once(token.token_id).chain(top.map(|(id, _)| *id))
    });
    assert!(ids.max().is_some_and(|largest| largest < 300));
}

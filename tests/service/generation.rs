//! Many texts at once, for long: joins, cancels, disconnects and changes of adapters at random moments, always with the words that each
//! says alone, and nothing left behind. `make soak` runs it at full length, and so many rounds as ESPALIER_SOAK_ROUNDS says.

use espalier::serving::AdapterHandle;
use espalier::serving::generation::detokenizer::{StopConditions, StopOutput};
use espalier::serving::generation::sampling;
use espalier::serving::generation::{GenerationEngine, GenerationStream, SequenceRequest, Settings};
use espalier_core::adapter::{self, ParameterBuilder};
use espalier_core::artifact::{AdapterManifest, Artifact, BaseModelId, LoadedAdapter, Probe};
use espalier_core::model::BaseModel;
use espalier_core::task::{Config, causal_language_model};
use espalier_core::training::network::Network;
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::cpu::CpuBackend;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::weight_ops::ActivationQuantization;
use std::collections::HashMap;
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
        labels: Vec::new(),
        temperature: 1.0,
        base: BaseModelId { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: base.info().backend.clone() },
        metrics: None,
    };
    Arc::new(LoadedAdapter::load(&Artifact { manifest: card, weights }, base).unwrap())
}

/// What is asked: an adapter, a prompt that others begin like, and how long the answer may be.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RequestSpec {
    adapter: usize,
    prompt: Vec<u32>,
    max_tokens: u32,
}

struct GeneratorFixture {
    generator: GenerationEngine,
    adapters: Vec<Option<Arc<LoadedAdapter>>>,
}

impl GeneratorFixture {
    fn submit(&self, spec: &RequestSpec) -> espalier_core::error::Result<GenerationStream> {
        let request = SequenceRequest {
            adapter: AdapterHandle(self.adapters[spec.adapter].clone()),
            version: format!("version {}", spec.adapter),
            prompt_ids: spec.prompt.clone(),
            sampling: sampling::SamplingParams { temperature: 0.0, ..sampling::SamplingParams::default() },
            constraint: None,
            stop_conditions: StopConditions {
                stop_sequences: vec!["zz".to_string()],
                stop_output: StopOutput::Exclude,
                stop_token_ids: Vec::new(),
                max_tokens: spec.max_tokens,
            },
            choice_index: 0,
        };
        self.generator.submit(vec![request]).map(|mut all| all.remove(0))
    }

    async fn generate_text(&self, spec: &RequestSpec) -> String {
        self.submit(spec).unwrap().collect().await.unwrap().text
    }
}

fn generator(base: &Arc<BaseModel>, settings: Settings) -> GenerationEngine {
    GenerationEngine::start(base, settings).unwrap().unwrap()
}

fn generator_fixture(base: &Arc<BaseModel>, settings: Settings) -> GeneratorFixture {
    let methods = [
        r#"{"type": "lora", "target_modules": "all-linear"}"#,
        r#"{"type": "prefix_tuning", "num_virtual_tokens": 6}"#,
        r#"{"type": "prompt_tuning", "num_virtual_tokens": 5}"#,
        r#"{"type": "ia3"}"#,
    ];
    let adapters = methods.iter().zip(1..).map(|(method, seed)| Some(random_adapter(base, method, seed)));
    GeneratorFixture { generator: generator(base, settings), adapters: std::iter::once(None).chain(adapters).collect() }
}

fn settings() -> Settings {
    Settings {
        threads: 2,
        kv_cache_bytes: 4 << 20,
        max_queued_sequences: 1 << 20,
        max_running_sequences: 16,
        default_max_tokens: 16,
        training_cpu_share: 0.0,
        activation_quantization: ActivationQuantization::F32,
        prefill_chunk_tokens: 9,
    }
}

fn random_spec(random: &mut SeededRng) -> RequestSpec {
    // Prompts share their beginnings, so that pages are shared too.
    let length = 1 + random.uniform_below(80);
    let variant = random.uniform_below(3) as u32;
    let prompt = (0..length as u32).map(|at| 4 + (at * 7 + if at > 40 { variant } else { 0 }) % 280).collect();
    RequestSpec { adapter: random.uniform_below(5), prompt, max_tokens: 1 + random.uniform_below(24) as u32 }
}

/// How many come.
fn soak_rounds() -> usize {
    let number = std::env::var("ESPALIER_SOAK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    number.unwrap_or(if std::env::var_os("ESPALIER_SOAK").is_some() { 10_000 } else { 1_000 })
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// What a process may grow by after its first rounds: what the allocator holds back.
const ALLOWED_GROWTH: u64 = 8 << 20;

/// Tests of this file run one after another: one of them looks at the memory of the whole process.
static MEMORY_TEST_LOCK: Mutex<()> = Mutex::new(());

fn serialize_tests() -> MutexGuard<'static, ()> {
    MEMORY_TEST_LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears a text to its end, or leaves after so many words.
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
        if cancel_after.is_some_and(|patience| token_count > patience) {
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
    let all: Vec<RequestSpec> = (0..60).map(|_| random_spec(&mut random)).collect();
    // What each says alone, each in a house of its own: nothing is shared there.
    let expected_text = |wanted: &RequestSpec| {
        let isolated = GeneratorFixture { generator: generator(&base, settings()), adapters: fixture.adapters.clone() };
        let text = runtime.block_on(isolated.generate_text(wanted));
        assert_eq!(isolated.generator.stats().prefix_cache_hit_tokens, 0);
        isolated.generator.close();
        isolated.generator.join();
        text
    };
    let expected: HashMap<RequestSpec, String> =
        all.iter().map(|wanted| (wanted.clone(), expected_text(wanted))).collect();
    let expected = Arc::new(expected);
    let work = async {
        let mut tasks = tokio::task::JoinSet::new();
        let mut warm = 0;
        for round in 0..rounds {
            if round == rounds / 5 {
                warm = resident_bytes();
            }
            let (wanted, patience) = (all[random.uniform_below(all.len())].clone(), random.uniform_below(40));
            let is_cancelled = random.uniform_below(3) == 0;
            let own = Arc::clone(&fixture);
            let (house, expected) = (Arc::clone(&fixture), Arc::clone(&expected));
            let patience = is_cancelled.then_some(patience);
            tasks.spawn(async move { read_until_cancelled(&house, &wanted, &expected, patience).await });
            if tasks.len() > 48 {
                tasks.join_next().await.unwrap().unwrap();
            }
            // Some never listen at all.
            if random.uniform_below(9) == 0 {
                drop(own.submit(&pick_spec(&all, &mut random)).unwrap());
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        warm
    };
    let warm = runtime.block_on(work);
    let now = resident_bytes();
    println!("resident after a fifth of {rounds} rounds: {} KiB, after all: {} KiB", warm >> 10, now >> 10);
    assert!(now < warm + ALLOWED_GROWTH, "{warm} bytes became {now}");
    runtime.block_on(async {
        while fixture.generator.stats().running_sequences + fixture.generator.stats().queued_sequences > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let stats = fixture.generator.stats();
    assert_eq!(stats.reserved_blocks, 0, "{stats:?}");
    assert!(stats.prefix_cache_hit_tokens > 0, "prompts that begin alike are computed once: {stats:?}");
    assert!(stats.kv_cache_reserved_bytes <= 4 << 20, "{stats:?}");
    // Nobody but this test has the adapters any more.
    for adapted in fixture.adapters.iter().flatten() {
        assert_eq!(Arc::strong_count(adapted), 1);
    }
}

fn pick_spec(all: &[RequestSpec], random: &mut SeededRng) -> RequestSpec {
    all[random.uniform_below(all.len())].clone()
}

#[test]
fn concurrent_identical_prompts_are_prefilled_once() {
    let (_turn, base) = (serialize_tests(), base("qwen2"));
    let house = generator_fixture(&base, settings());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Two whole pages, and more; what a prefix or a soft prompt puts in front is in them.
    for (adapter, front) in [(0, 0), (1, 0), (2, 6), (3, 5)] {
        let before = house.generator.stats();
        let wanted = RequestSpec { adapter, prompt: (4..84).collect(), max_tokens: 5 };
        let asked: Vec<GenerationStream> = (0..4).map(|_| house.submit(&wanted).unwrap()).collect();
        let texts: Vec<String> = asked.into_iter().map(|one| runtime.block_on(one.collect()).unwrap().text).collect();
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
        let shared = house.generator.stats().prefix_cache_hit_tokens - before.prefix_cache_hit_tokens;
        assert_eq!(shared, 3 * (2 * 32 - front), "of adapter {adapter}");
    }
}

#[test]
fn cached_prefixes_are_prefilled_in_one_batch() {
    let (_turn, base) = (serialize_tests(), base("qwen2"));
    let house = generator_fixture(&base, settings());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let wanted = |last: u32| RequestSpec { adapter: 0, prompt: (4..84).chain([last]).collect(), max_tokens: 1 };
    runtime.block_on(house.generate_text(&wanted(4)));
    let before = house.generator.stats();
    let asked: Vec<GenerationStream> = (0..12).map(|last| house.submit(&wanted(5 + last)).unwrap()).collect();
    asked.into_iter().for_each(|one| drop(runtime.block_on(one.collect()).unwrap()));
    let after = house.generator.stats();
    assert_eq!(after.prefix_cache_hit_tokens - before.prefix_cache_hit_tokens, 12 * 64);
    // Read in pieces, all of them together; one after another would take twelve times as many steps.
    let steps = after.steps - before.steps;
    assert!(steps <= 12 * 17 / 9 + 12, "{steps} steps");
}

#[test]
fn full_queue_is_busy_and_closed_scheduler_drains() {
    let (_turn, base) = (serialize_tests(), base("qwen2"));
    let house = generator_fixture(&base, Settings { max_queued_sequences: 2, max_running_sequences: 1, ..settings() });
    let wanted = RequestSpec { adapter: 0, prompt: vec![5, 6, 7], max_tokens: 90 };
    let mut waiting = Vec::new();
    let busy = loop {
        match house.submit(&wanted) {
            Ok(generation) => waiting.push(generation),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100);
    };
    assert_eq!(busy.code(), "generation_queue_full");
    house.generator.close();
    assert_eq!(house.submit(&wanted).err().map(|error| error.code()), Some("shutting_down"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for generation in waiting {
        assert!(!runtime.block_on(generation.collect()).unwrap().tokens.is_empty());
    }
    house.generator.join();
}

//! Many texts at once, for long: joins, cancels, disconnects and changes of adapters at random moments, always with the words that each
//! says alone, and nothing left behind. `make soak` runs it at full length, and so many rounds as ESPALIER_SOAK_ROUNDS says.

use espalier::serving::Resident;
use espalier::serving::generate::sampling;
use espalier::serving::generate::text::{Limits, StopText};
use espalier::serving::generate::{Ask, Generation, Generator, Settings};
use espalier_core::adapter::{self, Parameters};
use espalier_core::artifact::{Adapted, Artifact, BaseCard, Card, Probe};
use espalier_core::model::Base;
use espalier_core::task::{Config, causal_language_model};
use espalier_core::training::network::Network;
use espalier_core::training::spec::Request;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::cpu::Cpu;
use espalier_tensor::held::Activations;
use espalier_tensor::random::Random;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

fn base(model_type: &str) -> Arc<Base> {
    let folder = espalier_testing::jobs::fixture("decoders").join(model_type);
    Arc::new(Base::load(&folder, model_type, Arc::new(Cpu::best())).unwrap())
}

fn adapted(base: &Arc<Base>, method: &str, seed: u64) -> Arc<Adapted> {
    let method: adapter::Config = serde_json::from_str(method).unwrap();
    let task = Config::CausalLanguageModel(causal_language_model::Config::default());
    let request = Request {
        method: Some(method),
        task: Some(task),
        hyperparameters: Hyperparameters { seed: Some(seed), ..Hyperparameters::default() },
        ..Request::default()
    };
    let spec = Spec::resolve(&request, &[], 12, base).unwrap();
    let (_, built) = Network::build(base, &spec, Parameters::fresh(seed)).unwrap();
    let mut weights = built.into_weights();
    let mut random = Random::new(seed, &["weights"]);
    weights.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value += random.normal() * 0.1);
    let card = Card {
        format: 1,
        task: spec.task.clone(),
        max_length: 128,
        method: spec.method.clone(),
        labels: Vec::new(),
        temperature: 1.0,
        base: BaseCard { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: base.info().kernels.clone() },
        metrics: None,
    };
    Arc::new(Adapted::load(&Artifact { card, weights }, base).unwrap())
}

/// What is asked: an adapter, a prompt that others begin like, and how long the answer may be.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    adapter: usize,
    prompt: Vec<u32>,
    max_tokens: u32,
}

struct House {
    generator: Generator,
    adapters: Vec<Option<Arc<Adapted>>>,
}

impl House {
    fn submit(&self, wanted: &Wanted) -> espalier_core::error::Result<Generation> {
        let ask = Ask {
            resident: Resident(self.adapters[wanted.adapter].clone()),
            version: format!("version {}", wanted.adapter),
            prompt: wanted.prompt.clone(),
            sampling: sampling::Settings { temperature: 0.0, ..sampling::Settings::default() },
            grammar: None,
            limits: Limits {
                stops: vec!["zz".to_string()],
                stop_text: StopText::Cut,
                stop_ids: Vec::new(),
                max_tokens: wanted.max_tokens,
            },
            choice: 0,
        };
        self.generator.submit(vec![ask]).map(|mut all| all.remove(0))
    }

    async fn said(&self, wanted: &Wanted) -> String {
        self.submit(wanted).unwrap().all().await.unwrap().text
    }
}

fn generator(base: &Arc<Base>, settings: Settings) -> Generator {
    Generator::start(base, settings).unwrap().unwrap()
}

fn house(base: &Arc<Base>, settings: Settings) -> House {
    let methods = [
        r#"{"type": "lora", "target_modules": "all-linear"}"#,
        r#"{"type": "prefix_tuning", "num_virtual_tokens": 6}"#,
        r#"{"type": "prompt_tuning", "num_virtual_tokens": 5}"#,
        r#"{"type": "ia3"}"#,
    ];
    let adapters = methods.iter().zip(1..).map(|(method, seed)| Some(adapted(base, method, seed)));
    House { generator: generator(base, settings), adapters: std::iter::once(None).chain(adapters).collect() }
}

fn settings() -> Settings {
    Settings {
        threads: 2,
        memory_bytes: 4 << 20,
        max_waiting: 1 << 20,
        max_running: 16,
        usual_tokens: 16,
        training_share: 0.0,
        activations: Activations::F32,
        prompt_tokens: 9,
    }
}

fn wanted(random: &mut Random) -> Wanted {
    // Prompts share their beginnings, so that pages are shared too.
    let length = 1 + random.below(80);
    let variant = random.below(3) as u32;
    let prompt = (0..length as u32).map(|at| 4 + (at * 7 + if at > 40 { variant } else { 0 }) % 280).collect();
    Wanted { adapter: random.below(5), prompt, max_tokens: 1 + random.below(24) as u32 }
}

/// How many come.
fn rounds() -> usize {
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
const SLACK: u64 = 8 << 20;

/// Tests of this file run one after another: one of them looks at the memory of the whole process.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears a text to its end, or leaves after so many words.
async fn listen(house: &House, wanted: &Wanted, expected: &HashMap<Wanted, String>, patience: Option<usize>) {
    let mut generation = house.submit(wanted).unwrap();
    let (mut text, mut words) = (String::new(), 0);
    while let Some(chosen) = generation.next().await.unwrap() {
        text.push_str(&chosen.text);
        words += 1;
        if patience.is_some_and(|patience| words > patience) {
            return;
        }
    }
    assert_eq!(text, expected[wanted]);
}

#[test]
fn whoever_comes_and_goes_every_text_is_right_and_nothing_is_left() {
    come_and_go("qwen2", rounds());
}

#[test]
fn so_it_is_where_positions_are_learned() {
    come_and_go("gpt2", 300);
}

fn come_and_go(model_type: &str, rounds: usize) {
    let (_turn, base) = (turn(), base(model_type));
    let house = Arc::new(house(&base, settings()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut random = Random::new(11, &["soak"]);
    let all: Vec<Wanted> = (0..60).map(|_| wanted(&mut random)).collect();
    // What each says alone, each in a house of its own: nothing is shared there.
    let said = |wanted: &Wanted| {
        let alone = House { generator: generator(&base, settings()), adapters: house.adapters.clone() };
        let text = runtime.block_on(alone.said(wanted));
        assert_eq!(alone.generator.stats().shared_tokens, 0);
        alone.generator.close();
        alone.generator.join();
        text
    };
    let expected: HashMap<Wanted, String> = all.iter().map(|wanted| (wanted.clone(), said(wanted))).collect();
    let expected = Arc::new(expected);
    let work = async {
        let mut tasks = tokio::task::JoinSet::new();
        let mut warm = 0;
        for round in 0..rounds {
            if round == rounds / 5 {
                warm = resident_bytes();
            }
            let (wanted, patience) = (all[random.below(all.len())].clone(), random.below(40));
            let leaves = random.below(3) == 0;
            let own = Arc::clone(&house);
            let (house, expected) = (Arc::clone(&house), Arc::clone(&expected));
            let patience = leaves.then_some(patience);
            tasks.spawn(async move { listen(&house, &wanted, &expected, patience).await });
            if tasks.len() > 48 {
                tasks.join_next().await.unwrap().unwrap();
            }
            // Some never listen at all.
            if random.below(9) == 0 {
                drop(own.submit(&wanted_at(&all, &mut random)).unwrap());
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
    assert!(now < warm + SLACK, "{warm} bytes became {now}");
    runtime.block_on(async {
        while house.generator.stats().running + house.generator.stats().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let stats = house.generator.stats();
    assert_eq!(stats.promised_pages, 0, "{stats:?}");
    assert!(stats.shared_tokens > 0, "prompts that begin alike are computed once: {stats:?}");
    assert!(stats.memory_bytes <= 4 << 20, "{stats:?}");
    // Nobody but this test has the adapters any more.
    for adapted in house.adapters.iter().flatten() {
        assert_eq!(Arc::strong_count(adapted), 1);
    }
}

fn wanted_at(all: &[Wanted], random: &mut Random) -> Wanted {
    all[random.below(all.len())].clone()
}

#[test]
fn what_several_ask_at_once_is_read_once() {
    let (_turn, base) = (turn(), base("qwen2"));
    let house = house(&base, settings());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Two whole pages, and more; what a prefix or a soft prompt puts in front is in them.
    for (adapter, front) in [(0, 0), (1, 0), (2, 6), (3, 5)] {
        let before = house.generator.stats();
        let wanted = Wanted { adapter, prompt: (4..84).collect(), max_tokens: 5 };
        let asked: Vec<Generation> = (0..4).map(|_| house.submit(&wanted).unwrap()).collect();
        let texts: Vec<String> = asked.into_iter().map(|one| runtime.block_on(one.all()).unwrap().text).collect();
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
        let shared = house.generator.stats().shared_tokens - before.shared_tokens;
        assert_eq!(shared, 3 * (2 * 32 - front), "of adapter {adapter}");
    }
}

#[test]
fn those_whose_beginning_is_known_join_at_once() {
    let (_turn, base) = (turn(), base("qwen2"));
    let house = house(&base, settings());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let wanted = |last: u32| Wanted { adapter: 0, prompt: (4..84).chain([last]).collect(), max_tokens: 1 };
    runtime.block_on(house.said(&wanted(4)));
    let before = house.generator.stats();
    let asked: Vec<Generation> = (0..12).map(|last| house.submit(&wanted(5 + last)).unwrap()).collect();
    asked.into_iter().for_each(|one| drop(runtime.block_on(one.all()).unwrap()));
    let after = house.generator.stats();
    assert_eq!(after.shared_tokens - before.shared_tokens, 12 * 64);
    // Read in pieces, all of them together; one after another would take twelve times as many steps.
    let steps = after.steps - before.steps;
    assert!(steps <= 12 * 17 / 9 + 12, "{steps} steps");
}

#[test]
fn a_full_line_is_busy_and_a_closed_one_finishes_what_it_has() {
    let (_turn, base) = (turn(), base("qwen2"));
    let house = house(&base, Settings { max_waiting: 2, max_running: 1, ..settings() });
    let wanted = Wanted { adapter: 0, prompt: vec![5, 6, 7], max_tokens: 90 };
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
        assert!(!runtime.block_on(generation.all()).unwrap().tokens.is_empty());
    }
    house.generator.join();
}

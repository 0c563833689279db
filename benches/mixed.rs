//! What adapters cost in a batch: texts for the bare base and for one adapter of every method, with the tasks in turn, against
//! the same texts for the base alone, alternating, on one thread. Prints a Markdown table.
//!
//!     cargo bench --bench mixed -- MODEL CSV [TEXTS_EACH] [ROUNDS]

mod support;

use espalier::serving::AdapterHandle;
use espalier::serving::multi_adapter::{self, AdapterGroup};
use espalier_core::adapter::{self, BuildContext, ParameterBuilder, TensorSet};
use espalier_core::artifact::{AdapterManifest, Artifact, BaseModelId, LoadedAdapter, Probe};
use espalier_core::model::{BaseModel, Pooling, TextLimits};
use espalier_core::task::{self, Input, head};
use espalier_tensor::Tensor;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::seeded_rng::SeededRng;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use support::{Outcomes, arguments, base, median, read, say};

const LABELS: usize = 20;
/// Fields of requests, for the methods' defaults.
const METHODS: [&str; 9] =
    ["lora", "ia3", "prompt_tuning", "prefix_tuning", "bottleneck", "bias", "layer_norm", "vera", "head"];
/// In turn; the last method, a head, is a classifier.
const TASKS: [&str; 4] = ["sequence_classification", "token_classification", "embedding", "regression"];

fn main() -> Outcomes<()> {
    let arguments = arguments();
    let [model, csv, rest @ ..] = arguments.as_slice() else { return Err("MODEL CSV [TEXTS_EACH] [ROUNDS]".into()) };
    let each: usize = rest.first().map_or(Ok(4), |text| text.parse())?;
    let rounds: usize = rest.get(1).map_or(Ok(30), |text| text.parse())?;
    let base = base(model, Arc::new(CpuBackend::detect()))?;
    let examples = read(csv, 1)?;
    let inputs: Vec<Input> =
        examples.iter().take(each * (METHODS.len() + 1)).map(|example| Input::from_text(&example.text)).collect();
    let alone = || vec![group(&base, None, &inputs)];
    say("| with the base's texts | ms | of the base alone |");
    say("|---|---|---|");
    for name in METHODS {
        let adapted = adapted(&base, name, TASKS[0])?;
        let (own, others) = inputs.split_at(inputs.len() / 2);
        let both = || vec![group(&base, None, own), group(&base, Some(&adapted), others)];
        compare(&base, &format!("half of them for {name}"), &both, &alone, rounds)?;
    }
    let named = METHODS.iter().zip(TASKS.iter().cycle());
    let all: Vec<Arc<LoadedAdapter>> = named.map(|(name, task)| adapted(&base, name, task)).collect::<Outcomes<_>>()?;
    let mixed = || {
        let adapters = std::iter::once(None).chain(all.iter().map(Some));
        adapters.zip(inputs.chunks(each)).map(|(adapted, some)| group(&base, adapted, some)).collect()
    };
    compare(&base, "a tenth each for the base and all methods, four tasks", &mixed, &alone, rounds)
}

/// Texts as the adapter's task reads them.
fn group(base: &BaseModel, adapted: Option<&Arc<LoadedAdapter>>, inputs: &[Input]) -> AdapterGroup {
    let plain = task::Config::default();
    let task = adapted.map_or(&plain, |adapted| &adapted.manifest.task);
    let tokens = |input| {
        task.tokenize_input(base.tokenizer(), input, TextLimits::tokens(128)).expect("texts of the dataset can be read")
    };
    let adapter = adapted.map_or_else(AdapterHandle::base, |adapted| AdapterHandle::new("", Arc::clone(adapted)));
    AdapterGroup { adapter, inputs: inputs.iter().map(tokens).collect() }
}

/// Medians of alternating runs, and of their ratios.
fn compare(
    base: &BaseModel,
    name: &str,
    mixed: &dyn Fn() -> Vec<AdapterGroup>,
    alone: &dyn Fn() -> Vec<AdapterGroup>,
    rounds: usize,
) -> Outcomes<()> {
    let time = |groups: Vec<AdapterGroup>| -> Outcomes<f64> {
        let start = Instant::now();
        black_box(multi_adapter::forward(base, &groups)?);
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    time(mixed())?;
    time(alone())?;
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (with, without) = (time(mixed())?, time(alone())?);
        times.push(with);
        ratios.push(with / without);
    }
    say(format!("| {name} | {:.2} | {:.2} |", median(times), median(ratios)));
    Ok(())
}

/// An adapter with its method's defaults and random tensors: what it answers does not matter, and none is idle.
fn adapted(base: &Arc<BaseModel>, name: &str, task: &str) -> Outcomes<Arc<LoadedAdapter>> {
    let task: task::Config = serde_json::from_value(serde_json::json!({"type": task}))?;
    let method: adapter::Config = serde_json::from_value(serde_json::json!({"type": name}))?;
    let pooling = Pooling::Mean;
    let method = method.resolve(base, pooling)?;
    let mut parameters = ParameterBuilder::from_seed(1);
    let ground = BuildContext { base, sites: &base.sites(pooling), tensor_set: TensorSet::Inference };
    method.build(&ground, &mut parameters)?;
    let labels: Vec<String> = (0..LABELS).map(|label| format!("label {label}")).collect();
    if let Some(outputs) = task.head_outputs(&labels) {
        parameters.add_head_layer(head::OUTPUT_LAYER, outputs, base.info().hidden_size);
    }
    let mut weights = parameters.build()?.into_weights();
    let mut random = SeededRng::new(1, &[name]);
    weights.values_mut().flat_map(|tensor: &mut Tensor| &mut tensor.values).for_each(|value| {
        *value += random.standard_normal() * 0.01;
    });
    let card = AdapterManifest {
        format: 1,
        task: task.with_pooling(pooling),
        method,
        labels,
        temperature: 1.0,
        thresholds: Default::default(),
        max_length: 128,
        vocabulary: Default::default(),
        base: BaseModelId { name: base.info().name.clone(), fingerprint: Some(base.info().fingerprint.clone()) },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: base.info().backend.clone() },
        metrics: None,
    };
    Ok(Arc::new(LoadedAdapter::load(&Artifact { manifest: card, weights }, base)?))
}

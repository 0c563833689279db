//! Share of the GEMM kernel's throughput that a training step and a serving forward pass reach: their arithmetic per second
//! over the kernel's alone, on as many threads and in the same run. Prints a Markdown table.
//!
//!     cargo bench --bench roofline -- MODEL CSV [THREADS] [ROUNDS]

mod support;

use espalier::serving::AdapterHandle;
use espalier::serving::multi_adapter::{self, AdapterGroup};
use espalier_core::adapter;
use espalier_core::model::{BaseModel, Pooling, Tokens};
use espalier_core::task::Example;
use espalier_core::training::{Hyperparameters, Progress};
use espalier_tensor::backend::WeightOps;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Backend, Tensor};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Job, Outcomes, arguments, base, median, read, run, say};

const TIME: Duration = Duration::from_millis(400);
const WARM: u64 = 3;
const STEPS: u64 = 60;
const RANK: usize = 8;

/// Operations of one text of `tokens`: the forward pass, and a training step with LoRA on query and value.
struct OperationCount {
    forward: f64,
    training: f64,
}

impl OperationCount {
    fn of(base: &BaseModel, tokens: usize) -> Self {
        let (layers, hidden, n) = (base.info().layers as f64, base.info().hidden_size as f64, tokens as f64);
        let wide = 4.0 * hidden;
        let linear = 2.0 * n * (4.0 * hidden * hidden + 2.0 * hidden * wide);
        let attention = 4.0 * n * n * hidden;
        let low_rank = 2.0 * (2.0 * n * RANK as f64 * 2.0 * hidden);
        let forward = layers * (linear + attention);
        // Backward pass: gradients of the inputs of every linear map and of the four operands of attention, and three products
        // for the two of a low-rank update. The lowest layer needs no gradients below query and value, nor for the keys.
        let backward = layers * (linear + 2.0 * attention + 2.0 * low_rank);
        let lowest = 2.0 * n * 3.0 * hidden * hidden + 2.0 * n * n * hidden + low_rank / 2.0;
        Self { forward, training: forward + layers * low_rank + backward - lowest }
    }
}

/// Operations per second of the GEMM kernel on all threads at once.
fn gemm_rate(threads: usize) -> Outcomes<f64> {
    let backend = CpuBackend::detect();
    let mut best = 0f64;
    for [input, output] in [[384, 384], [384, 1536], [1536, 384]] {
        let linear = backend.freeze_linear(Tensor::zeros([output, input]), None)?;
        let rows = 240;
        let x = backend.upload(&Tensor::zeros([rows, input]))?;
        let operations = (2 * rows * input * output) as f64;
        best = best.max(rate_on_threads(threads, || {
            black_box(backend.linear(&x, &linear).ok());
            operations
        }));
    }
    Ok(best)
}

/// Runs `work` on several threads at once; returns the operations per second, of which each call returns its count.
fn rate_on_threads(threads: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    let start = Instant::now();
    let one = || {
        let mut done = 0.0;
        while start.elapsed() < TIME {
            done += work();
        }
        done / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

fn training(base: &Arc<BaseModel>, examples: &[Example], threads: usize) -> Outcomes<f64> {
    let hyperparameters = Hyperparameters {
        batch_size: Some(32),
        max_steps: Some(WARM + STEPS),
        epochs: Some(1000),
        ..Hyperparameters::default()
    };
    let job = Job { method: adapter::Config::default(), pooling: Pooling::Mean, hyperparameters, threads };
    let (mut clock, mut seconds) = (Instant::now(), 0.0);
    run(base, job, examples.to_vec(), &mut |progress: &Progress| {
        match progress.step {
            WARM => clock = Instant::now(),
            step if step == WARM + STEPS && seconds == 0.0 => seconds = clock.elapsed().as_secs_f64(),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(STEPS as f64 * 32.0 / seconds)
}

fn main() -> Outcomes<()> {
    let arguments = arguments();
    let [model, csv, rest @ ..] = arguments.as_slice() else { return Err("give MODEL CSV [THREADS] [ROUNDS]".into()) };
    let number = |place: usize, default: usize| rest.get(place).map_or(Ok(default), |text| text.parse());
    let (threads, rounds) = (number(0, 2)?, number(1, 5)?);
    let base = base(model, Arc::new(CpuBackend::detect()))?;
    let examples = read(csv, 1)?;
    let encode = |example: &Example| base.tokenizer().encode(&example.text, None, 128);
    let tokens: Vec<Tokens> = examples.iter().map(encode).collect::<Result<_, _>>()?;
    let needed: Vec<OperationCount> = tokens.iter().map(|tokens| OperationCount::of(&base, tokens.ids.len())).collect();
    let mean = |of: fn(&OperationCount) -> f64| needed.iter().map(of).sum::<f64>() / needed.len() as f64;
    let (forward, both) = (mean(|needed| needed.forward), mean(|needed| needed.training));
    let batches: Vec<AdapterGroup> = tokens
        .chunks_exact(32)
        .map(|some| AdapterGroup { adapter: AdapterHandle::base(), inputs: some.to_vec() })
        .collect();
    let operations = (batches.len() * 32) as f64 * forward;
    let (mut alone, mut trained, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let limit = gemm_rate(threads)?;
        alone.push(limit / 1e9);
        trained.push(training(&base, &examples, threads)? * both / limit);
        let serve = || {
            for batch in &batches {
                black_box(multi_adapter::forward(&base, std::slice::from_ref(batch)).ok());
            }
            operations
        };
        served.push(rate_on_threads(threads, serve) / limit);
    }
    say("| threads | kernel alone, GFLOP/s | training step | serving forward |\n|---|---|---|---|");
    let share = |values| 100.0 * median(values);
    say(format!("| {threads} | {:.0} | {:.0} % | {:.0} % |", median(alone), share(trained), share(served)));
    Ok(())
}

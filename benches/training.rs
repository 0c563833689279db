//! Examples per second of LoRA training on a base model: one side of `benches/training.py`, which compares it with PyTorch and
//! PEFT, and both sides of `benches/precision.py`. Prints one JSON line.
//!
//!     cargo bench --bench training -- MODEL CSV mean|cls STEPS THREADS MAX_LENGTH [cpu|native|int8|candle]
//!
//! `cpu` holds the weights as `f32`, `native` as the checkpoint does; `int8` also computes forward passes in int8.

mod support;

use espalier_core::adapter;
use espalier_core::model::Pooling;
use espalier_core::training::hyperparameters::Precision;
use espalier_core::training::{Hyperparameters, Progress};
use espalier_tensor::Backend;
use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::{CpuBackend, WeightStorage};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use support::{Job, Outcomes, arguments, base, read, run, say};

/// Updates before the clock starts.
const WARM: u64 = 3;

fn main() -> Outcomes<()> {
    let arguments = arguments();
    let [model, csv, pooling, steps, threads, length, kernels @ ..] = arguments.as_slice() else {
        return Err("give MODEL CSV mean|cls STEPS THREADS MAX_LENGTH [cpu|native|int8|candle]".into());
    };
    let native = || Arc::new(CpuBackend::detect().with_weight_storage(WeightStorage::Native));
    let (kernels, precision): (Arc<dyn Backend>, _) = match kernels.first().map(String::as_str) {
        Some("candle") => (Arc::new(CandleBackend::cpu()), Precision::F32),
        Some("native") => (native(), Precision::F32),
        Some("int8") => (native(), Precision::Int8),
        _ => (Arc::new(CpuBackend::detect()), Precision::F32),
    };
    let base = base(model, kernels)?;
    let steps: u64 = steps.parse()?;
    // Below 0: every text is repeated until it is cut at that length.
    let length: i64 = length.parse()?;
    let examples = read(csv, if length < 0 { length.unsigned_abs() as usize } else { 1 })?;
    let hyperparameters = Hyperparameters {
        batch_size: Some(32),
        max_length: Some(length.unsigned_abs().min(base.info().max_tokens as u64) as u32),
        max_steps: Some(WARM + steps),
        epochs: Some(1000),
        precision: Some(precision),
        ..Hyperparameters::default()
    };
    let pooling = if pooling == "cls" { Pooling::Cls } else { Pooling::Mean };
    let job = Job { method: adapter::Config::default(), pooling, hyperparameters, threads: threads.parse()? };
    let (mut clock, mut seconds) = (None, 0.0);
    let trained = run(&base, job, examples, &mut |progress: &Progress| {
        if progress.step == WARM && clock.is_none() {
            clock = Some(Instant::now());
        }
        if progress.step == WARM + steps && seconds == 0.0 {
            seconds = clock.map_or(0.0, |clock| clock.elapsed().as_secs_f64());
        }
        ControlFlow::Continue(())
    })?;
    let rate = steps as f64 * 32.0 / seconds;
    let last = trained.metrics_rows.last().map(|row| row.metrics["loss"].clone());
    say(serde_json::json!({"examples_per_second": rate, "kernels": base.info().backend, "loss": last}));
    Ok(())
}

//! What it is worth that the frozen base is not computed twice: seconds per epoch of a head alone, of LoRA on the upper two
//! layers and of LoRA on all, on the real base model. Prints a Markdown table.
//!
//!     cargo bench --bench epochs -- MODEL CSV [THREADS]

mod support;

use espalier_core::model::Pooling;
use espalier_core::training::{Hyperparameters, Progress};
use espalier_tensor::backend::cpu::CpuBackend;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use support::{Job, Outcomes, arguments, base, median, read, run, say};

const EPOCHS: u32 = 4;

fn main() -> Outcomes<()> {
    let arguments = arguments();
    let [model, csv, threads @ ..] = arguments.as_slice() else { return Err("give MODEL CSV [THREADS]".into()) };
    let threads = threads.first().map_or(Ok(2), |threads| threads.parse())?;
    let base = base(model, Arc::new(CpuBackend::detect()))?;
    say("| method | first epoch, s | later epochs, s | ratio | examples/s later |\n|---|---|---|---|---|");
    let methods = [
        ("head", serde_json::json!({"type": "head"})),
        ("LoRA, upper two layers", serde_json::json!({"type": "lora", "layers": {"top": 2}})),
        ("LoRA, all layers", serde_json::json!({"type": "lora"})),
    ];
    for (name, method) in methods {
        let examples = read(csv, 1)?;
        let count = examples.len() as f64;
        let hyperparameters =
            Hyperparameters { batch_size: Some(32), epochs: Some(EPOCHS), ..Hyperparameters::default() };
        let job = Job { method: serde_json::from_value(method)?, pooling: Pooling::Mean, hyperparameters, threads };
        // With the tokens, what is remembered, the head's start and the first checkpoint.
        let (mut epochs, mut clock) = (Vec::new(), Instant::now());
        run(&base, job, examples, &mut |progress: &Progress| {
            if progress.epoch >= (epochs.len() + 1) as f64 {
                epochs.push(clock.elapsed().as_secs_f64());
                clock = Instant::now();
            }
            ControlFlow::Continue(())
        })?;
        let later = median(epochs[1..].to_vec());
        let ratio = epochs[0] / later;
        say(format!("| {name} | {:.2} | {later:.3} | {ratio:.1} | {:.0} |", epochs[0], count / later));
    }
    Ok(())
}

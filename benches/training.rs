//! Examples per second of LoRA training on the real base model: one side of `benches/training.py`, which compares it with
//! PyTorch and PEFT. Prints one JSON line.
//!
//!     cargo bench --bench training -- MODEL CSV mean|cls STEPS THREADS MAX_LENGTH [cpu|candle]

use espalier::adapter::{self, lora};
use espalier::compute::Kernels;
use espalier::compute::candle::Candle;
use espalier::compute::cpu::Cpu;
use espalier::model::{Base, Pooling};
use espalier::task::{self, Example, Target, sequence_classification};
use espalier::training::spec::Request;
use espalier::training::{Data, Folders, Hyperparameters, Outcome, Progress, Settings, Spec, Validation, train};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Updates before the clock starts.
const WARM: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [model, csv, pooling, steps, threads, max_length, rest @ ..] = arguments.as_slice() else {
        return Err("MODEL CSV mean|cls STEPS THREADS MAX_LENGTH [cpu|candle]".into());
    };
    let kernels: Arc<dyn Kernels> = match rest.first().map(String::as_str) {
        Some("candle") => Arc::new(Candle::cpu()),
        _ => Arc::new(Cpu::best()),
    };
    let base = Arc::new(Base::load(Path::new(model), "benchmark", kernels)?);
    let length: i64 = max_length.parse()?;
    // Below 0 every text is repeated until truncation makes it exactly that long.
    let repeats = if length < 0 { length.unsigned_abs() as usize } else { 1 };
    let examples = read(Path::new(csv), repeats)?;
    let labels = labels(&examples);
    let pooling = if pooling == "cls" { Pooling::Cls } else { Pooling::Mean };
    let steps: u64 = steps.parse()?;
    let hyperparameters = Hyperparameters {
        batch_size: Some(32),
        learning_rate: Some(1e-3),
        max_length: Some(u32::try_from(length.unsigned_abs())?),
        max_steps: Some(steps + WARM),
        epochs: Some(1000),
        ..Hyperparameters::default()
    };
    let task = sequence_classification::Config { pooling: Some(pooling) };
    let request = Request {
        task: Some(task::Config::SequenceClassification(task)),
        method: Some(adapter::Config::Lora(lora::Config::default())),
        hyperparameters,
        validation: Some(Validation::Fraction(0.0)),
    };
    let spec = Spec::resolve(&request, &labels, examples.len(), &base)?;
    let folder = tempfile::tempdir()?;
    let folders = Folders { checkpoints: folder.path().join("run"), remembered: folder.path().join("remembered") };
    let settings =
        Settings { threads: threads.parse()?, checkpoint_every: Duration::from_secs(3600), remembered_bytes: 1 << 30 };
    let mut clock: Option<Instant> = None;
    let mut seconds = 0.0;
    let mut report = |progress: &Progress| {
        if progress.step == WARM && clock.is_none() {
            clock = Some(Instant::now());
        }
        if progress.step == WARM + steps && seconds == 0.0 {
            seconds = clock.map_or(0.0, |clock| clock.elapsed().as_secs_f64());
        }
        ControlFlow::Continue(())
    };
    let data = Data { examples, validation: None };
    let outcome = train(&base, &spec, &data, &folders, &settings, &mut report)?;
    let Outcome::Finished(trained) = outcome else { return Err("the run was stopped".into()) };
    let rate = steps as f64 * 32.0 / seconds;
    let last = trained.rows.last().map(|row| row.metrics["loss"].clone());
    let line = serde_json::json!({"examples_per_second": rate, "kernels": base.info().kernels, "loss": last});
    #[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
    {
        println!("{line}");
    }
    Ok(())
}

fn labels(examples: &[Example]) -> Vec<String> {
    let label = |example: &Example| {
        let Target::Label(label) = &example.target;
        label.clone()
    };
    examples.iter().map(label).collect()
}

/// The columns `text` and `category`.
fn read(path: &Path, repeats: usize) -> Result<Vec<Example>, Box<dyn Error>> {
    let mut examples = Vec::new();
    for (index, row) in csv::Reader::from_path(path)?.records().enumerate() {
        let row = row?;
        let target = Target::Label(row[1].to_string());
        examples.push(Example {
            line: index as u64 + 2,
            text: format!("{} ", &row[0]).repeat(repeats),
            text_pair: None,
            target,
        });
    }
    Ok(examples)
}

//! A job with realistic columns for the benchmarks of the store, and percentiles.

use espalier::store::{ClaimRules, DEFAULT_OWNER, Metadata, NewDataset, NewJob, Platform, Store};
use espalier_core::dataset::{Format, Options, Report};
use espalier_core::training::hyperparameters::DefaultsContext;
use espalier_core::training::{Hyperparameters, Plan, Spec, Validation};
use espalier_core::{adapter, task};
use std::time::Duration;
use uuid::Uuid;

pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Rules of a worker that claims the job of [`add_template`] and its copies.
pub fn claim_rules(lease_duration: Duration) -> ClaimRules {
    let spec = template_spec();
    let platform = Platform { base: spec.base, kernels: spec.kernels };
    ClaimRules { platform, lease_duration, max_attempts: 10, max_running_per_owner: None }
}

/// Median and 99th percentile.
pub fn percentiles(times: &[f64]) -> (f64, f64) {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[(times.len() * 99 / 100).min(times.len() - 1)])
}

/// Adds a queued job of the default owner and its dataset.
pub async fn add_template(store: &dyn Store) -> Outcome<()> {
    let options = Options::new(Format::Csv);
    let dataset = NewDataset {
        owner: DEFAULT_OWNER.to_string(),
        file_name: None,
        hash: "da".repeat(32),
        bytes: 1,
        options: options.clone(),
        report: Report::default(),
        limits: Default::default(),
    };
    let dataset_id = store.add_dataset(dataset).await?.id;
    let spec: Plan = template_spec().into();
    let (id, owner) = (Uuid::now_v7(), DEFAULT_OWNER.to_string());
    let job = NewJob {
        id,
        owner,
        name: None,
        dataset_id,
        validation_dataset_id: None,
        options,
        spec,
        metadata: Metadata::new(),
        created_by: None,
        trace_context: None,
        priority: 0,
    };
    store.add_job(job, 1000).await?;
    Ok(())
}

/// Specification with 77 labels, as of a job on banking77.
fn template_spec() -> Spec {
    let task = task::Config::default();
    let context = DefaultsContext {
        examples: 10_000,
        max_tokens: 128,
        learning_rate: 1e-3,
        min_steps: 1,
        metric_names: &["accuracy"],
        held_out_examples: None,
        task_defaults: task.defaults(),
    };
    Spec {
        task,
        method: adapter::Config::default(),
        from_adapter: None,
        hyperparameters: Hyperparameters::default().resolve(context, &mut Vec::new()),
        validation: Validation::Fraction(0.1),
        selection_metric: None,
        samples: None,
        labels: (0..77).map(|label| format!("label_number_{label}")).collect(),
        micro_batch_tokens: 4096,
        kernels: "cpu".to_string(),
        base: "ba".repeat(32),
    }
}

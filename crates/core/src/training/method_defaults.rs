//! Default method of a task, and the training defaults of each method.

use crate::adapter::target_modules::TargetModules;
use crate::adapter::{self, lora};
use crate::model::BaseModelInfo;
use crate::task::{self, RowSelection};

/// Default method of a task on a base.
///
/// A sentence encoder's pooled rows are trained to be separable: on banking77 a head alone is as accurate as LoRA and takes a third
/// of the time of one epoch (`benches/README.md`). The rows of other bases need an adapter.
pub fn default_method(info: &BaseModelInfo, task: &task::Config) -> adapter::Config {
    let default_rows = RowSelection::Pooled(info.default_pooling);
    let reads_sentence_embedding =
        info.sentence_encoder && RowSelection::for_task(task, info.default_pooling) == default_rows;
    // A task without a trained head has no parameters besides the adapter's.
    match reads_sentence_embedding && task.head_outputs(&[]).is_some() {
        true => adapter::Config::Head(adapter::head::Config::default()),
        // Generation needs LoRA on all linear maps (Dettmers et al. 2023).
        false if task.is_generative() => {
            let target_modules = TargetModules::Single("all-linear".to_string());
            adapter::Config::Lora(lora::Config { target_modules, ..lora::Config::default() })
        }
        false => adapter::Config::default(),
    }
}

/// Least number of steps on a small dataset, for a method that changes the base's outputs.
pub const MIN_STEPS: u64 = 150;

/// Learning rate of a method, and the least number of steps on a small dataset. Measured on a quarter of banking77
/// (`benches/README.md`).
pub fn method_defaults(method: &adapter::Config) -> (f64, u64) {
    match method {
        adapter::Config::Lora(_) | adapter::Config::PTuning(_) | adapter::Config::LayerNorm(_) => (1e-3, MIN_STEPS),
        adapter::Config::Bottleneck(_)
        | adapter::Config::PrefixTuning(_)
        | adapter::Config::Bias(_)
        | adapter::Config::Vera(_)
        | adapter::Config::PromptTuning(_)
        | adapter::Config::Ia3(_) => (3e-3, MIN_STEPS),
        // A step of the head alone is cheap once the features are cached.
        adapter::Config::Head(_) => (1e-3, 600),
    }
}

//! Defaults of a job that depend on the base, the task and the number of examples: method and pooling.

use crate::adapter::target_modules::TargetModules;
use crate::adapter::{self, lora};
use crate::model::{BaseModelInfo, Pooling};
use crate::task::{self, RowSelection};

/// Examples from which a base's own pooler is the default. With 40 examples, mean pooling is more accurate and depends less on the seed
/// (`benches/README.md`, "Defaults").
const MIN_POOLER_EXAMPLES: usize = 200;

/// Default pooling of a task: that of the base, but the mean in place of its pooler for classification and regression with few examples.
pub fn default_pooling(info: &BaseModelInfo, task: &task::Config, examples: usize) -> Pooling {
    let reads_pooled_rows = matches!(RowSelection::for_task(task, info.default_pooling), RowSelection::Pooled(_));
    let has_pooled_head = reads_pooled_rows && task.head_outputs(&[]).is_some();
    match info.default_pooling {
        Pooling::Cls if has_pooled_head && examples < MIN_POOLER_EXAMPLES => Pooling::Mean,
        other => other,
    }
}

/// Default method of a task on a base.
///
/// A sentence encoder's pooled rows are trained to be separable: on banking77 a head alone is as accurate as LoRA and takes a third
/// of the time of one epoch (`benches/README.md`). With few examples, and for numbers, LoRA is more accurate, and costs seconds. The rows of
/// other bases need an adapter, and so do those of two texts that are read as one: on STS-B a head alone reaches a rank correlation of
/// 0.56, LoRA 0.83.
pub fn default_method(
    info: &BaseModelInfo,
    task: &task::Config,
    examples: usize,
    has_text_pairs: bool,
) -> adapter::Config {
    let default_rows = RowSelection::Pooled(info.default_pooling);
    let reads_sentence_embedding =
        info.sentence_encoder && RowSelection::for_task(task, info.default_pooling) == default_rows;
    let has_enough_examples = task.defaults().min_head_examples.is_some_and(|min| examples >= min);
    // A task without a trained head has no parameters besides the adapter's.
    match reads_sentence_embedding && has_enough_examples && !has_text_pairs && task.head_outputs(&[]).is_some() {
        true => adapter::Config::Head(adapter::head::Config::default()),
        // Generation needs LoRA on all linear maps (Dettmers et al. 2023).
        false if task.is_generative() => {
            let target_modules = TargetModules::Single("all-linear".to_string());
            adapter::Config::Lora(lora::Config { target_modules, ..lora::Config::default() })
        }
        false => adapter::Config::default(),
    }
}

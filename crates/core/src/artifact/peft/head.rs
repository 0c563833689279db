//! The head's tensors in a PEFT file.
//!
//! Prompt-learning methods save them with one `model` fewer than the others; both are read. Knows nothing of the method's
//! own tensors.

use super::module_naming::{KEY_PREFIX, ModuleNaming};
use super::weights::{TensorMap, shape_mismatch};
use crate::adapter;
use crate::artifact::BaseSummary;
use crate::artifact::validation_errors::ValidationErrors;
use crate::model::ClassificationHeadSpec;
use crate::task;
use espalier_tensor::Tensor;

/// What stands before the head's keys in the files of prompt-learning methods.
const PROMPT_LEARNING_KEY_PREFIX: &str = "base_model.";

/// What a file calls the head's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    dense_path: Option<&'static str>,
    output_path: &'static str,
    /// Of the outputs: without one it is nothing.
    has_bias: bool,
}

impl HeadLayout {
    /// One linear map.
    pub const LINEAR: Self = Self { dense_path: None, output_path: "classifier", has_bias: true };

    /// Of an adapter's file as it is written.
    pub fn for_writing(task: &task::Config, naming: ModuleNaming, transformers_head: ClassificationHeadSpec) -> Self {
        match (naming, task.head_activation()) {
            (ModuleNaming::WithHead, _) => {
                let ClassificationHeadSpec { dense, output_path: output, output_has_bias: has_bias } =
                    transformers_head;
                Self { dense_path: dense.map(|dense| dense.path), output_path: output, has_bias }
            }
            (ModuleNaming::Bare, None) => Self::LINEAR,
            (ModuleNaming::Bare, Some(_)) => {
                Self { dense_path: Some("classifier.dense"), output_path: "classifier.out_proj", ..Self::LINEAR }
            }
        }
    }

    /// Of a file as it is read. A decoder's may have a bias that transformers' head has not.
    pub fn for_reading(tensors: &TensorMap, task: &task::Config, summary: &BaseSummary) -> Self {
        let expected = Self::for_writing(
            task,
            ModuleNaming::for_adapter(task, &TensorMap::new(), summary),
            summary.info.classification_head(),
        );
        let uses_linear_with_bias =
            !expected.has_bias && expected.is_missing_from(tensors) && !Self::LINEAR.is_missing_from(tensors);
        if uses_linear_with_bias { Self::LINEAR } else { expected }
    }

    /// Our name and the file's path of each tensor: weights, then biases, the outputs' first.
    fn tensor_paths(self) -> Vec<(String, String)> {
        let layers = [
            Some((task::head::OUTPUT_LAYER, self.output_path)),
            self.dense_path.map(|path| (task::head::DENSE_LAYER, path)),
        ];
        let named_paths = |suffix: &str| {
            let named_path = |(ours, path): (&str, &str)| (format!("{ours}.{suffix}"), format!("{path}.{suffix}"));
            layers.into_iter().flatten().map(named_path).collect::<Vec<_>>()
        };
        if self.has_bias { [named_paths("weight"), named_paths("bias")].concat() } else { named_paths("weight") }
    }

    /// Whether a file has none of its tensors.
    pub fn is_missing_from(self, tensors: &TensorMap) -> bool {
        let keys = self
            .tensor_paths()
            .into_iter()
            .flat_map(|(_, path)| [KEY_PREFIX, PROMPT_LEARNING_KEY_PREFIX].map(|prefix| format!("{prefix}{path}")));
        !keys.into_iter().any(|key| tensors.contains_key(&key))
    }

    /// The head's tensors under our names; what is missing, misshapen or twice there becomes a fault. `width` is that of the
    /// pooled row.
    pub fn extract(
        self,
        tensors: &mut TensorMap,
        method: &adapter::Config,
        hidden_size: usize,
        errors: &mut ValidationErrors,
    ) -> TensorMap {
        let outputs = self.num_outputs(tensors);
        let mut native_tensors = TensorMap::new();
        for (name, path) in self.tensor_paths() {
            let rows = if name.starts_with(task::head::DENSE_LAYER) { hidden_size } else { outputs };
            let shape = if name.ends_with("weight") { vec![rows, hidden_size] } else { vec![rows] };
            let keys = [KEY_PREFIX, PROMPT_LEARNING_KEY_PREFIX].map(|prefix| format!("{prefix}{path}"));
            match keys.each_ref().map(|key| tensors.remove(key)) {
                [None, None] => errors.push(format!("{} is missing", head_key(method, &path))),
                [Some(_), Some(_)] => errors.push(format!("{} is there twice", keys[0])),
                [Some(tensor), None] => {
                    insert_if_shape_matches(&keys[0], name, tensor, shape, &mut native_tensors, errors);
                }
                [None, Some(tensor)] => {
                    insert_if_shape_matches(&keys[1], name, tensor, shape, &mut native_tensors, errors);
                }
            }
        }
        if !self.has_bias {
            native_tensors.insert(task::head::OUTPUT_BIAS.to_string(), Tensor::zeros([outputs]));
        }
        native_tensors
    }

    /// The rows of the outputs' map, as its weight or else its bias says.
    fn num_outputs(self, tensors: &TensorMap) -> usize {
        let first_dimension = |suffix: &str| {
            let find_tensor = |prefix: &str| tensors.get(&format!("{prefix}{}.{suffix}", self.output_path));
            [KEY_PREFIX, PROMPT_LEARNING_KEY_PREFIX]
                .into_iter()
                .find_map(find_tensor)
                .and_then(|tensor| tensor.shape.first())
        };
        first_dimension("weight").or_else(|| first_dimension("bias")).copied().unwrap_or(0)
    }

    /// Moves the head's tensors from our names in `weights` to the file's keys in `keyed`.
    pub fn write_to<'a>(
        self,
        method: &adapter::Config,
        mut take_weight: impl FnMut(&String) -> Option<&'a Tensor>,
        peft_tensors: &mut TensorMap,
    ) {
        for (name, path) in self.tensor_paths() {
            if let Some(tensor) = take_weight(&name) {
                peft_tensors.insert(head_key(method, &path), tensor.clone());
            }
        }
        if !self.has_bias {
            take_weight(&task::head::OUTPUT_BIAS.to_string());
        }
    }

    /// The modules that PEFT saves as a whole.
    pub fn modules_to_save(self) -> Vec<&'static str> {
        // RoBERTa's two are parts of one.
        let top_level_module = |path: &'static str| path.split('.').next().unwrap_or(path);
        let mut modules: Vec<&str> = self.layer_paths().map(top_level_module).collect();
        modules.dedup();
        modules
    }

    /// Where its linear maps stand in the classification model, none of which an adapter touches.
    pub fn layer_paths(self) -> impl Iterator<Item = &'static str> {
        self.dense_path.into_iter().chain([self.output_path])
    }
}

fn insert_if_shape_matches(
    key: &str,
    name: String,
    tensor: Tensor,
    shape: Vec<usize>,
    native_tensors: &mut TensorMap,
    errors: &mut ValidationErrors,
) {
    match tensor.shape == shape {
        true => drop(native_tensors.insert(name, tensor)),
        false => errors.push(shape_mismatch(key, &tensor, &shape)),
    }
}

/// The key as PEFT writes it for this method.
fn head_key(method: &adapter::Config, path: &str) -> String {
    let prefix = if method.num_virtual_tokens() == 0 { KEY_PREFIX } else { PROMPT_LEARNING_KEY_PREFIX };
    format!("{prefix}{path}")
}

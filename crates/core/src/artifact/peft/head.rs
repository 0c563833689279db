//! The head's tensors in a PEFT file, and whether transformers' classification model can hold the head.
//!
//! Prompt-learning methods save the head's keys without the second `model`; both forms are read.

use crate::adapter::peft::{KEY_PREFIX, ModuleNaming};
use crate::adapter::tensor_spec::{TensorSpec, ValidationErrors};
use crate::adapter::{self, TensorMap};
use crate::artifact::base::BaseSummary;
use crate::artifact::safetensors::take_tensor;
use crate::model::ClassificationHeadSpec;
use crate::task;
use espalier_tensor::Tensor;

/// Prefix of the head's keys in files of prompt-learning methods.
const PROMPT_LEARNING_KEY_PREFIX: &str = "base_model.";

/// Paths of the head's linear layers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    dense_path: Option<&'static str>,
    output_path: &'static str,
    /// Whether the output layer has a bias; a missing one is read as zero.
    has_bias: bool,
}

impl HeadLayout {
    /// One linear layer.
    pub const LINEAR: Self = Self { dense_path: None, output_path: "classifier", has_bias: true };

    /// The layout in which an adapter is written.
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

    /// The layout of a file to read. The head of a decoder may have a bias, although transformers' has none.
    pub fn for_reading(tensors: &TensorMap, task: &task::Config, summary: &BaseSummary) -> Self {
        let expected =
            Self::for_writing(task, naming_for(task, &TensorMap::new(), summary), summary.info.classification_head());
        let uses_linear_with_bias =
            !expected.has_bias && expected.is_missing_from(tensors) && !Self::LINEAR.is_missing_from(tensors);
        if uses_linear_with_bias { Self::LINEAR } else { expected }
    }

    /// Native name and path of each tensor: weights, then biases, of the output layer first.
    fn tensor_paths(self) -> Vec<(String, String)> {
        let layers = [
            Some((task::head::OUTPUT_LAYER, self.output_path)),
            self.dense_path.map(|path| (task::head::DENSE_LAYER, path)),
        ];
        let named_paths = |suffix: &str| {
            let named_path = |(name, path): (&str, &str)| (format!("{name}.{suffix}"), format!("{path}.{suffix}"));
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

    /// Moves the head's tensors out of `tensors` and returns them by native names. Records an error for every tensor that is
    /// missing, misshapen or there under both prefixes.
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
            let key = match keys.each_ref().map(|key| tensors.contains_key(key)) {
                [true, true] => {
                    errors.push(format!("{} is there twice", keys[0]));
                    keys.iter().for_each(|key| drop(tensors.remove(key)));
                    continue;
                }
                [true, false] => keys[0].clone(),
                [false, true] => keys[1].clone(),
                [false, false] => head_key(method, &path),
            };
            take_tensor(&TensorSpec::with_key(key, name, shape), tensors, &mut native_tensors, errors);
        }
        if !self.has_bias {
            native_tensors.insert(task::head::OUTPUT_BIAS.to_string(), Tensor::zeros([outputs]));
        }
        native_tensors
    }

    /// Number of outputs: the rows of the output layer's weight, or of its bias if the weight is missing.
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

    /// Copies the head's tensors to the file's keys. `take_weight` returns a tensor by its native name.
    pub fn write_to<'a>(
        self,
        method: &adapter::Config,
        mut take_weight: impl FnMut(&str) -> Option<&'a Tensor>,
        peft_tensors: &mut TensorMap,
    ) {
        for (name, path) in self.tensor_paths() {
            if let Some(tensor) = take_weight(&name) {
                peft_tensors.insert(head_key(method, &path), tensor.clone());
            }
        }
        if !self.has_bias {
            take_weight(task::head::OUTPUT_BIAS);
        }
    }

    /// The modules that PEFT saves whole.
    pub fn modules_to_save(self) -> Vec<&'static str> {
        // RoBERTa's two layers are children of one module.
        let top_level_module = |path: &'static str| path.split('.').next().unwrap_or(path);
        let mut modules: Vec<&str> = self.layer_paths().map(top_level_module).collect();
        modules.dedup();
        modules
    }

    /// Paths of its linear layers in the classification model; no adapter adapts them.
    pub fn layer_paths(self) -> impl Iterator<Item = &'static str> {
        self.dense_path.into_iter().chain([self.output_path])
    }
}

/// PEFT's key of a head's tensor for this method.
fn head_key(method: &adapter::Config, path: &str) -> String {
    let prefix = if method.num_virtual_tokens() == 0 { KEY_PREFIX } else { PROMPT_LEARNING_KEY_PREFIX };
    format!("{prefix}{path}")
}

/// The naming in which an adapter is written.
///
/// An adapter whose head is that of transformers' classification model opens in that model; the head of a decoder has no bias
/// there. Any other opens in the bare encoder, where the user pools: the classification models have no mean pooling and no other
/// heads.
pub fn naming_for(task: &task::Config, weights: &TensorMap, summary: &BaseSummary) -> ModuleNaming {
    // The language model of a decoder names its modules as its classification model does.
    if task.is_generative() {
        return ModuleNaming::WithHead;
    }
    let transformers_head = summary.info.classification_head();
    let is_classifier = task.head_outputs(&[]).is_some() && task.head(&[]).rows == task::HeadRows::Pooled;
    let has_same_pooling = summary.pooling(task) == summary.info.classification_pooling();
    let has_same_layers = task.head_activation() == transformers_head.dense_activation();
    let has_bias =
        || weights.get(task::head::OUTPUT_BIAS).is_some_and(|bias| bias.values.iter().any(|value| *value != 0.0));
    let fits = is_classifier && has_same_pooling && has_same_layers;
    match fits && (transformers_head.output_has_bias || !has_bias()) {
        true => ModuleNaming::WithHead,
        false => ModuleNaming::Bare,
    }
}

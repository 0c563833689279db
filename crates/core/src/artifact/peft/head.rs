//! The head's tensors in a PEFT file.
//!
//! Prompt-learning methods save them with one `model` fewer than the others; both are read. Knows nothing of the method's
//! own tensors.

use super::keys::{Form, PREFIX};
use super::weights::{Tensors, misshapen};
use crate::adapter;
use crate::artifact::Outline;
use crate::artifact::faults::Faults;
use crate::model::HeadForm;
use crate::task;
use espalier_tensor::Tensor;

/// What stands before the head's keys in the files of prompt-learning methods.
const SHORT: &str = "base_model.";

/// What a file calls the head's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    dense: Option<&'static str>,
    output: &'static str,
    /// Of the outputs: without one it is nothing.
    has_bias: bool,
}

impl Head {
    /// One linear map.
    pub const LINEAR: Self = Self { dense: None, output: "classifier", has_bias: true };

    /// Of an adapter's file as it is written.
    pub fn of(task: &task::Config, form: Form, theirs: HeadForm) -> Self {
        match (form, task.dense()) {
            (Form::Headed, _) => {
                let HeadForm { dense, output, has_bias } = theirs;
                Self { dense: dense.map(|dense| dense.path), output, has_bias }
            }
            (Form::Bare, None) => Self::LINEAR,
            (Form::Bare, Some(_)) => {
                Self { dense: Some("classifier.dense"), output: "classifier.out_proj", ..Self::LINEAR }
            }
        }
    }

    /// Of a file as it is read. A decoder's may have a bias that transformers' head has not.
    pub fn in_file(tensors: &Tensors, task: &task::Config, outline: &Outline) -> Self {
        let theirs = Self::of(task, Form::of(task, &Tensors::new(), outline), outline.info.head());
        let is_biased = !theirs.has_bias && theirs.is_absent(tensors) && !Self::LINEAR.is_absent(tensors);
        if is_biased { Self::LINEAR } else { theirs }
    }

    /// Our name and the file's path of each tensor: weights, then biases, the outputs' first.
    fn tensors(self) -> Vec<(String, String)> {
        let layers = [Some((task::head::NAME, self.output)), self.dense.map(|path| (task::head::DENSE, path))];
        let of = |what: &str| {
            let pair = |(ours, path): (&str, &str)| (format!("{ours}.{what}"), format!("{path}.{what}"));
            layers.into_iter().flatten().map(pair).collect::<Vec<_>>()
        };
        if self.has_bias { [of("weight"), of("bias")].concat() } else { of("weight") }
    }

    /// Whether a file has none of its tensors.
    pub fn is_absent(self, tensors: &Tensors) -> bool {
        let keys =
            self.tensors().into_iter().flat_map(|(_, path)| [PREFIX, SHORT].map(|prefix| format!("{prefix}{path}")));
        !keys.into_iter().any(|key| tensors.contains_key(&key))
    }

    /// The head's tensors under our names; what is missing, misshapen or twice there becomes a fault. `width` is that of the
    /// pooled row.
    pub fn take(self, tensors: &mut Tensors, method: &adapter::Config, width: usize, faults: &mut Faults) -> Tensors {
        let outputs = self.outputs(tensors);
        let mut named = Tensors::new();
        for (name, path) in self.tensors() {
            let rows = if name.starts_with(task::head::DENSE) { width } else { outputs };
            let shape = if name.ends_with("weight") { vec![rows, width] } else { vec![rows] };
            let keys = [PREFIX, SHORT].map(|prefix| format!("{prefix}{path}"));
            match keys.each_ref().map(|key| tensors.remove(key)) {
                [None, None] => faults.add(format!("{} is missing", key(method, &path))),
                [Some(_), Some(_)] => faults.add(format!("{} is there twice", keys[0])),
                [Some(tensor), None] => fit(&keys[0], name, tensor, shape, &mut named, faults),
                [None, Some(tensor)] => fit(&keys[1], name, tensor, shape, &mut named, faults),
            }
        }
        if !self.has_bias {
            named.insert(task::head::BIAS.to_string(), Tensor::zeros([outputs]));
        }
        named
    }

    /// The rows of the outputs' map, as its weight or else its bias says.
    fn outputs(self, tensors: &Tensors) -> usize {
        let rows = |what: &str| {
            let tensor = |prefix: &str| tensors.get(&format!("{prefix}{}.{what}", self.output));
            [PREFIX, SHORT].into_iter().find_map(tensor).and_then(|tensor| tensor.shape.first())
        };
        rows("weight").or_else(|| rows("bias")).copied().unwrap_or(0)
    }

    /// Moves the head's tensors from our names in `weights` to the file's keys in `keyed`.
    pub fn put<'a>(
        self,
        method: &adapter::Config,
        mut remove: impl FnMut(&String) -> Option<&'a Tensor>,
        keyed: &mut Tensors,
    ) {
        for (name, path) in self.tensors() {
            if let Some(tensor) = remove(&name) {
                keyed.insert(key(method, &path), tensor.clone());
            }
        }
        if !self.has_bias {
            remove(&task::head::BIAS.to_string());
        }
    }

    /// The modules that PEFT saves as a whole.
    pub fn modules(self) -> Vec<&'static str> {
        // RoBERTa's two are parts of one.
        let whole = |path: &'static str| path.split('.').next().unwrap_or(path);
        let mut modules: Vec<&str> = self.paths().map(whole).collect();
        modules.dedup();
        modules
    }

    /// Where its linear maps stand in the classification model, none of which an adapter touches.
    pub fn paths(self) -> impl Iterator<Item = &'static str> {
        self.dense.into_iter().chain([self.output])
    }
}

fn fit(key: &str, name: String, tensor: Tensor, shape: Vec<usize>, named: &mut Tensors, faults: &mut Faults) {
    match tensor.shape == shape {
        true => drop(named.insert(name, tensor)),
        false => faults.add(misshapen(key, &tensor, &shape)),
    }
}

/// The key as PEFT writes it for this method.
fn key(method: &adapter::Config, path: &str) -> String {
    let prefix = if method.virtual_tokens() == 0 { PREFIX } else { SHORT };
    format!("{prefix}{path}")
}

//! An adapter on the device: its hooks, its head and its tensors.

use super::manifest::{AdapterManifest, Artifact};
use super::vocabulary::{self, LmHeadChange, LoadedVocabulary};
use crate::adapter::{BuildContext, ParameterBuilder, TensorSet};
use crate::error::Result;
use crate::model::{BaseModel, Batch, Hooks, TextLimits, Tokens};
use crate::task::{Input, OutputHead};
use espalier_tensor::{Parameter, Recording, Tape};
use std::sync::Arc;

/// An adapter that is ready for inference.
pub struct LoadedAdapter {
    /// Without metrics and probe.
    pub manifest: AdapterManifest,
    pub hooks: Box<dyn Hooks>,
    pub output_head: OutputHead,
    /// The adapter's own head of a causal language model.
    pub lm_head: Option<LmHeadChange>,
    pub parameters: Arc<[Parameter]>,
    tensor_bytes: u64,
}

impl LoadedAdapter {
    /// Uploads an adapter's tensors to the base's device.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) naming every unknown, missing and misshapen tensor.
    pub fn load(artifact: &Artifact, base: &BaseModel) -> Result<Self> {
        let mut manifest = artifact.manifest.clone();
        // Metrics and probe may be larger than the tensors, and inference needs neither.
        (manifest.metrics, manifest.probe.inputs, manifest.probe.outputs) = (None, Vec::new(), Vec::new());
        let pooling = manifest.task.pooling().unwrap_or(base.info().default_pooling);
        let (mut vocabulary_weights, weights) = vocabulary::split_weights(artifact.weights.clone());
        let mut builder = ParameterBuilder::from_weights(weights);
        let context = BuildContext { base, sites: &base.sites(pooling), tensor_set: TensorSet::Inference };
        let hooks = manifest.method.build(&context, &mut builder)?;
        let mut vocabulary = LoadedVocabulary::load(&manifest.vocabulary, &mut vocabulary_weights, base, &mut builder)?;
        let hooks = vocabulary.wrap_hooks(hooks);
        let hidden_size = base.info().hidden_size;
        let output_head =
            OutputHead::build(&manifest.task, &manifest.labels, pooling, hidden_size, |name, outputs, inputs| {
                builder.add_head_layer(name, outputs, inputs)
            });
        let built = builder.build()?;
        let tensors = built.tensors;
        let bytes: u64 = tensors.iter().chain(built.frozen_tensors.values()).map(|tensor| tensor.bytes() as u64).sum();
        let parameters = base.backend().upload_parameters(&tensors)?;
        let tensor_bytes = bytes + vocabulary.bytes;
        Ok(Self { manifest, hooks, output_head, lm_head: vocabulary.lm_head, parameters, tensor_bytes })
    }

    /// Size of the tensors in memory, in bytes.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensor_bytes
    }

    /// The longest input in tokens: that of training, limited by the context window after the virtual tokens.
    pub fn max_input_tokens(&self, base: &BaseModel) -> usize {
        self.manifest.max_length.min(base.info().max_tokens.saturating_sub(self.manifest.method.num_virtual_tokens()))
    }

    /// Tokenizes an input and truncates it to [`Self::max_input_tokens`].
    pub fn tokenize(&self, base: &BaseModel, input: &Input) -> Result<Tokens> {
        self.tokenize_within(base, input, TextLimits::tokens(self.max_input_tokens(base)))
    }

    /// [`Self::tokenize`] within the limits of a request, whose `max_length` it replaces by [`Self::max_input_tokens`] if that
    /// is less.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`).
    pub fn tokenize_within(&self, base: &BaseModel, input: &Input, limits: TextLimits) -> Result<Tokens> {
        let max_length = limits.max_length.min(self.max_input_tokens(base));
        self.manifest.task.tokenize_input(base.tokenizer(), input, TextLimits { max_length, ..limits })
    }

    /// The output of each input: logits, or an embedding of norm 1.
    pub fn forward(&self, base: &BaseModel, inputs: &[Input]) -> Result<Vec<Vec<f32>>> {
        self.forward_with_hooks(base, inputs, self.hooks.as_ref())
    }

    /// The output of the same head on the bare base, that is of an adapter without an effect.
    pub fn forward_base(&self, base: &BaseModel, inputs: &[Input]) -> Result<Vec<Vec<f32>>> {
        self.forward_with_hooks(base, inputs, &())
    }

    fn forward_with_hooks(&self, base: &BaseModel, inputs: &[Input], hooks: &dyn Hooks) -> Result<Vec<Vec<f32>>> {
        let tokens: Vec<Tokens> = inputs.iter().map(|input| self.tokenize(base, input)).collect::<Result<_>>()?;
        let output_head = self.output_head.probe_head();
        let mut tape = Tape::new(Arc::clone(base.backend()), Arc::clone(&self.parameters), Recording::Off);
        let batch = Batch::new(&tokens, hooks.virtual_tokens());
        let hidden = base.encode(&mut tape, &batch, hooks, output_head.row_selection.required_rows())?;
        output_head.serving_outputs(base, &mut tape, hidden, hooks, &tokens)
    }
}

//! What is trained: an adapter's hooks, its head, and the frozen base between them.
//!
//! One micro-batch at a time, on whatever thread calls: the loop knows nothing of tapes, this knows nothing of steps.

use crate::adapter::parameter_builder::ParameterSet;
use crate::adapter::{BuildContext, ParameterBuilder};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Batch, FirstTrainableLayer, Hooks, RequiredRows, Tokens};
use crate::task::metrics::language_model::TOKEN_METRICS_WIDTH;
use crate::task::targets::Targets;
use crate::task::{HeadKind, OutputHead, lm_loss};
use espalier_tensor::{Parameter, RaggedLayout, Recording, Tape, Tensor, Var};
use std::sync::Arc;

mod forward;
mod gradient_checkpointing;

pub use forward::Forward;

use super::Spec;
use gradient_checkpointing::ActivationCost;

/// The adapter and head of a job on its base.
pub struct Network {
    base: Arc<BaseModel>,
    hooks: Box<dyn Hooks>,
    output_head: OutputHead,
    /// Numbers that evaluation keeps of a row.
    output_width: usize,
    /// Of the rows that are read.
    head_dropout: f64,
    activation_cost: ActivationCost,
    /// Bytes of what one micro-batch remembers.
    activation_budget: u64,
}

/// The tensors of one moment, on the device, for all threads.
pub type DeviceParameters = Arc<[Parameter]>;

/// What one micro-batch adds to a step.
pub struct MicroBatchGradients {
    /// Summed over its examples.
    pub loss: f64,
    /// By parameter; empty for one that took no part.
    pub gradients: Vec<Vec<f32>>,
}

/// What a forward pass starts from: sequences, and perhaps what is known of them.
pub struct ForwardInput {
    pub tokens: Vec<Arc<Tokens>>,
    pub cached: Option<CachedRows>,
}

impl ForwardInput {
    /// Sequences of which nothing is known.
    pub fn from_tokens(tokens: Vec<Arc<Tokens>>) -> Self {
        Self { tokens, cached: None }
    }
}

/// What the frozen base computed before: the rows that go into `place`, sequence by sequence.
pub struct CachedRows {
    pub rows: Tensor,
    pub layout: Arc<RaggedLayout>,
    pub layer: FirstTrainableLayer,
}

impl Network {
    /// Builds the adapter and the head on the base; their tensors are drawn or restored by `parameters`.
    pub fn build(base: &Arc<BaseModel>, spec: &Spec, mut parameters: ParameterBuilder) -> Result<(Self, ParameterSet)> {
        let info = base.info();
        let pooling = spec.task.pooling().unwrap_or(info.default_pooling);
        let context = BuildContext { base, sites: &base.sites(pooling), tensor_set: spec.tensor_set() };
        let hooks = spec.method.build(&context, &mut parameters)?;
        let output_head =
            OutputHead::build(&spec.task, &spec.labels, pooling, info.hidden_size, |name, outputs, inputs| {
                parameters.add_head_layer(name, outputs, inputs)
            });
        let output_width = match output_head.kind {
            HeadKind::Trained(_) | HeadKind::Identity => {
                spec.task.head_outputs(&spec.labels).unwrap_or(info.hidden_size)
            }
            HeadKind::LmHead => TOKEN_METRICS_WIDTH,
        };
        let dropout = spec.method.head_dropout();
        let (base, activation_cost) = (Arc::clone(base), ActivationCost::of(base, pooling));
        Ok((
            Self {
                base,
                hooks,
                output_head,
                output_width,
                head_dropout: dropout,
                activation_cost,
                activation_budget: u64::MAX,
            },
            parameters.build()?,
        ))
    }

    /// Remembers at most about so many bytes of a micro-batch, and computes the rest again.
    pub fn with_activation_budget(self, budget: u64) -> Self {
        Self { activation_budget: budget, ..self }
    }

    /// Whether the whole way back of so many rows keeps to what one micro-batch may remember.
    pub fn fits_budget(&self, rows: usize) -> bool {
        self.activation_cost.partition(0..self.base.info().layers, rows, self.activation_budget).len() < 2
    }

    pub fn base(&self) -> &Arc<BaseModel> {
        &self.base
    }

    pub fn hooks(&self) -> &dyn Hooks {
        self.hooks.as_ref()
    }

    /// The lowest place that is trained: what lies below it may be remembered.
    pub fn first_trainable_layer(&self) -> FirstTrainableLayer {
        self.hooks.first_trainable_layer()
    }

    pub fn output_head(&self) -> OutputHead {
        self.output_head
    }

    /// Numbers that evaluation keeps of a row: those of the head, of the row itself, or how a language model's word was judged.
    pub fn output_width(&self) -> usize {
        self.output_width
    }

    pub fn upload(&self, tensors: &[Tensor]) -> Result<DeviceParameters> {
        Ok(self.base.backend().upload_parameters(tensors)?)
    }

    /// The gradients of `Σ loss / denominator` over one micro-batch.
    pub fn gradients(&self, forward: Forward, targets: &Targets, denominator: f64) -> Result<MicroBatchGradients> {
        let kernels = self.base.backend().as_ref();
        let (loss, gradient) = targets.loss(&forward.tape, kernels, forward.outputs, denominator)?;
        Ok(MicroBatchGradients {
            loss: check_finite_loss(loss)?,
            gradients: self.backward_on_device(forward, gradient)?,
        })
    }

    /// The same where the rows that are read are to find these words.
    pub fn language_gradients(
        &self,
        forward: Forward,
        target_ids: &[u32],
        denominator: f64,
    ) -> Result<MicroBatchGradients> {
        let token_losses = lm_loss::TokenLosses::new(&self.base, &forward.tape, forward.outputs, target_ids)?;
        let loss = check_finite_loss(token_losses.losses.iter().sum())?;
        let gradient = token_losses.into_weighted_gradient(std::iter::repeat(1.0 / denominator));
        Ok(MicroBatchGradients { loss, gradients: self.backward(forward, &gradient)? })
    }

    /// The same where of two answers one is preferred, pair by pair.
    pub fn preference_gradients(
        &self,
        forward: Forward,
        target_ids: &[u32],
        targets: &Targets,
        denominator: f64,
    ) -> Result<MicroBatchGradients> {
        let Targets::PreferencePairs { answer_lengths: lengths, reference_logprobs: reference, config } = targets
        else {
            return Err(Error::internal("only pairs of answers are preferred"));
        };
        let token_losses = lm_loss::TokenLosses::new(&self.base, &forward.tape, forward.outputs, target_ids)?;
        let (mut losses, mut weights, mut loss) =
            (token_losses.losses.iter(), Vec::with_capacity(target_ids.len()), 0.0);
        for (lengths, reference_logprob) in lengths.iter().zip(reference) {
            let policy = lengths.map(|length| -losses.by_ref().take(length).sum::<f64>());
            let pair_loss = config.pair_loss(policy, *reference_logprob, *lengths);
            loss += pair_loss.loss;
            // A word's loss is less what its answer's log-probability is more.
            let weight = pair_loss.gradient.map(|gradient| -gradient / denominator);
            weights.extend(lengths.iter().zip(weight).flat_map(|(length, factor)| vec![factor; *length]));
        }
        let loss = check_finite_loss(loss)?;
        let gradient = token_losses.into_weighted_gradient(weights.into_iter());
        Ok(MicroBatchGradients { loss, gradients: self.backward(forward, &gradient)? })
    }

    /// The outputs `(rows, width)`.
    pub fn outputs(&self, parameters: &DeviceParameters, input: &ForwardInput) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
        let outputs = self.output_head.training_outputs(&self.base, &mut tape, rows)?;
        Ok(tape.to_host(outputs)?.values)
    }

    /// How the base's own head judges these words, `(words, JUDGED)`.
    pub fn token_metrics(
        &self,
        parameters: &DeviceParameters,
        input: &ForwardInput,
        target_ids: &[u32],
    ) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
        let rows = self.base.lm_head_transform(&mut tape, rows)?;
        lm_loss::token_metrics(&self.base, &mut tape, rows, target_ids)
    }

    /// The rows that a fresh head of this adapter would read: with what the adapter already does.
    pub fn head_inputs(&self, parameters: &DeviceParameters, input: &ForwardInput) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
        Ok(tape.to_host(rows)?.values)
    }

    /// The bare base's rows that go into `place`: those of each sequence, or, from the pooler on, those that are read.
    pub fn frozen_features(&self, input: &ForwardInput, layer: FirstTrainableLayer) -> Result<Vec<f32>> {
        let mut tape = self.tape(&DeviceParameters::from([]), Recording::Off);
        let rows = self.forward_to(&mut tape, input, layer, &())?;
        Ok(tape.to_host(rows)?.values)
    }

    fn tape(&self, parameters: &DeviceParameters, recording: Recording) -> Tape {
        Tape::new(Arc::clone(self.base.backend()), Arc::clone(parameters), recording)
    }

    /// The rows that a forward pass begins with, and the place that they go into.
    fn forward_start(
        &self,
        tape: &mut Tape,
        input: &ForwardInput,
        hooks: &dyn Hooks,
    ) -> Result<(Var, FirstTrainableLayer)> {
        match &input.cached {
            None => {
                let batch = Batch::new(input.tokens.iter().map(Arc::as_ref), hooks.virtual_tokens());
                Ok((self.base.forward_embeddings(tape, &batch, hooks)?, FirstTrainableLayer::Layer(0)))
            }
            Some(CachedRows { rows, layout, layer: place }) => {
                Ok((tape.constant(self.base.backend().upload(rows)?, Arc::clone(layout)), *place))
            }
        }
    }

    /// The rows that go into `to`.
    fn forward_to(
        &self,
        tape: &mut Tape,
        input: &ForwardInput,
        target: FirstTrainableLayer,
        hooks: &dyn Hooks,
    ) -> Result<Var> {
        let sequences = || input.tokens.iter().map(Arc::as_ref);
        let (rows, start) = self.forward_start(tape, input, hooks)?;
        let hidden = match (start, target) {
            (FirstTrainableLayer::Head, _) => return Ok(rows),
            (FirstTrainableLayer::Pooler, _) | (_, FirstTrainableLayer::Embeddings) => rows,
            (FirstTrainableLayer::Layer(first), FirstTrainableLayer::Layer(end)) => {
                return self.base.forward_layers(tape, rows, first..end, hooks, RequiredRows::All);
            }
            (FirstTrainableLayer::Embeddings, _) => unreachable!("nothing is remembered below the embeddings"),
            (FirstTrainableLayer::Layer(first), _) => {
                let range = first..self.base.info().layers;
                self.base.forward_layers(tape, rows, range, hooks, self.output_head.row_selection.required_rows())?
            }
        };
        match target {
            FirstTrainableLayer::Head => self.output_head.select_rows(&self.base, tape, hidden, hooks, sequences()),
            _ => Ok(hidden),
        }
    }
}

/// # Errors
/// `Invalid` (`training_diverged`) where the loss is no number.
pub fn check_finite_loss(loss: f64) -> Result<f64> {
    match loss.is_finite() {
        true => Ok(loss),
        false => {
            let advice = "training diverged: the loss is no longer a number; lower learning_rate";
            Err(Error::invalid("training_diverged", advice))
        }
    }
}

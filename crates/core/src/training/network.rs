//! Trainable network of a job: the adapter's hooks and the head on the frozen base. Computes one micro-batch at a time, on any
//! thread.

use crate::adapter::parameter_builder::ParameterSet;
use crate::adapter::{BuildContext, ParameterBuilder};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Batch, FirstTrainableLayer, Hooks, RequiredRows};
use crate::task::lm_loss::{self, TOKEN_METRICS_WIDTH};
use crate::task::objective::{LossAndGradient, LossContext, MicroBatch, Objective};
use crate::task::{HeadKind, OutputHead};
use espalier_tensor::{Backend, Parameter, Recording, Tape, Tensor, Var};
use std::sync::Arc;

mod forward;

pub use super::batching::{CachedRows, ForwardInput};
pub use forward::{BatchSize, Forward};

use super::divergence;
use super::spec::Spec;
use forward::ActivationCost;

/// Adapter and head of a job on its base.
pub struct Network {
    base: Arc<BaseModel>,
    /// Backend of forward and backward passes.
    backend: Arc<dyn Backend>,
    hooks: Box<dyn Hooks>,
    output_head: OutputHead,
    /// Values that evaluation keeps per row.
    output_width: usize,
    /// Dropout rate of the head's input.
    head_dropout: f64,
    activation_cost: ActivationCost,
    /// Bytes of saved activations per micro-batch.
    activation_budget: u64,
}

/// Trainable parameters on the device, shared by all threads.
pub type DeviceParameters = Arc<[Parameter]>;

/// Contribution of one micro-batch to a step.
pub struct MicroBatchGradients {
    /// Sum over the examples.
    pub loss: f64,
    /// Gradient of each parameter; empty for a parameter that was not used.
    pub gradients: Vec<Vec<f32>>,
}

impl Network {
    /// Builds the adapter and the head. `parameters` draws or restores their tensors.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_precision`) if the base's backend has no kernels for the precision of the job.
    pub fn build(base: &Arc<BaseModel>, spec: &Spec, mut parameters: ParameterBuilder) -> Result<(Self, ParameterSet)> {
        let info = base.info();
        let backend = spec.hyperparameters.precision.backend(base).ok_or_else(|| {
            let detail =
                "this worker's base is on a GPU, which has no int8 kernels: run the job on a worker without one";
            Error::invalid("unsupported_precision", detail)
        })?;
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
                backend,
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

    /// Limits the saved activations of a micro-batch to about `budget` bytes by gradient checkpointing.
    pub fn with_activation_budget(self, budget: u64) -> Self {
        Self { activation_budget: budget, ..self }
    }

    /// Whether the saved activations of a micro-batch are within the budget.
    pub fn fits_budget(&self, size: BatchSize) -> bool {
        self.activation_cost.partition(0..self.base.info().layers, size, self.activation_budget).len() < 2
    }

    pub fn base(&self) -> &Arc<BaseModel> {
        &self.base
    }

    pub fn hooks(&self) -> &dyn Hooks {
        self.hooks.as_ref()
    }

    /// Lowest layer with trainable parameters. Features below it can be cached.
    pub fn first_trainable_layer(&self) -> FirstTrainableLayer {
        self.hooks.first_trainable_layer()
    }

    pub fn output_head(&self) -> OutputHead {
        self.output_head
    }

    /// Values per row of [`Self::eval_outputs`].
    pub fn output_width(&self) -> usize {
        self.output_width
    }

    pub fn upload(&self, tensors: &[Tensor]) -> Result<DeviceParameters> {
        Ok(self.base.backend().upload_parameters(tensors)?)
    }

    /// Loss of one micro-batch, and the gradients of the loss divided by `denominator`.
    ///
    /// # Errors
    /// `Invalid` (`training_diverged`) where the loss is not finite.
    pub fn gradients(
        &self,
        forward: Forward,
        objective: &dyn Objective,
        batch: &MicroBatch,
        denominator: f64,
    ) -> Result<MicroBatchGradients> {
        let context = LossContext { base: &self.base, tape: &forward.tape, outputs: forward.outputs };
        let LossAndGradient { loss, gradient } = objective.loss(&context, batch, denominator)?;
        Ok(MicroBatchGradients {
            loss: divergence::check_finite_loss(loss)?,
            gradients: self.backward_on_device(forward, gradient)?,
        })
    }

    /// Outputs that the training loss reads, `(rows, outputs)`.
    pub fn outputs(&self, parameters: &DeviceParameters, input: &ForwardInput) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
        let outputs = self.output_head.training_outputs(&self.base, &mut tape, rows)?;
        Ok(tape.to_host(outputs)?.values)
    }

    /// Values that evaluation keeps: the outputs, or for a language model the loss and the accuracy of each token.
    pub fn eval_outputs(
        &self,
        parameters: &DeviceParameters,
        input: &ForwardInput,
        label_ids: &[u32],
    ) -> Result<Vec<f32>> {
        match self.output_head.kind {
            HeadKind::Trained(_) | HeadKind::Identity => self.outputs(parameters, input),
            HeadKind::LmHead => {
                let mut tape = self.tape(parameters, Recording::Off);
                let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
                let rows = self.base.lm_head_transform(&mut tape, rows)?;
                lm_loss::token_metrics(&self.base, &mut tape, rows, label_ids)
            }
        }
    }

    /// Input rows of the head, computed with the adapter.
    pub fn head_inputs(&self, parameters: &DeviceParameters, input: &ForwardInput) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.forward_to(&mut tape, input, FirstTrainableLayer::Head, self.hooks.as_ref())?;
        Ok(tape.to_host(rows)?.values)
    }

    /// Input rows of `layer`, computed without the adapter: all rows of each sequence, or from the pooler on the selected ones.
    pub fn frozen_features(&self, input: &ForwardInput, layer: FirstTrainableLayer) -> Result<Vec<f32>> {
        let mut tape = self.tape(&DeviceParameters::from([]), Recording::Off);
        let rows = self.forward_to(&mut tape, input, layer, &())?;
        Ok(tape.to_host(rows)?.values)
    }

    fn tape(&self, parameters: &DeviceParameters, recording: Recording) -> Tape {
        Tape::new(Arc::clone(&self.backend), Arc::clone(parameters), recording)
    }

    /// Rows that a forward pass starts from, and the layer that reads them.
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
            Some(CachedRows { rows, layout, layer }) => {
                Ok((tape.constant(self.base.backend().upload(rows)?, Arc::clone(layout)), *layer))
            }
        }
    }

    /// Input rows of the layer `target`.
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
            (FirstTrainableLayer::Embeddings, _) => unreachable!("no features are cached below the embeddings"),
            (FirstTrainableLayer::Layer(first), _) => {
                let range = first..self.base.info().layers;
                self.base.forward_layers(tape, rows, range, hooks, self.output_head.row_selection.required_rows())?
            }
        };
        match target {
            FirstTrainableLayer::Head => self.output_head.select_rows(&self.base, tape, hidden, hooks, sequences()),
            FirstTrainableLayer::Embeddings | FirstTrainableLayer::Layer(_) | FirstTrainableLayer::Pooler => Ok(hidden),
        }
    }
}

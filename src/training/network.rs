//! What is trained: an adapter's hooks, its head, and the frozen base between them.
//!
//! One micro-batch at a time, on whatever thread calls: the loop knows nothing of tapes, this knows nothing of steps.

use crate::adapter::parameters::Built;
use crate::adapter::{Form, Ground, Parameters};
use crate::compute::{Buffer, Dropout, Packed, Parameter, Recording, Rows, Tape, Tensor};
use crate::error::{Error, Result};
use crate::model::{Base, Batch, Hooks, Lowest, Pooling, Tokens, Wanted};
use crate::task::head::Head;
use crate::task::targets::Targets;
use std::sync::Arc;

use super::Spec;

/// The adapter and head of a job on its base.
pub struct Network {
    base: Arc<Base>,
    hooks: Box<dyn Hooks>,
    head: Head,
    pooling: Pooling,
    outputs: usize,
}

/// The tensors of one moment, on the device, for all threads.
pub type Uploaded = Arc<[Parameter]>;

/// What one micro-batch adds to a step.
pub struct Part {
    /// Summed over its examples.
    pub loss: f64,
    /// By parameter; empty for one that took no part.
    pub gradients: Vec<Vec<f32>>,
}

/// What a forward pass starts from.
pub enum Source {
    Tokens(Vec<Arc<Tokens>>),
    /// What the frozen base computed before: the rows that go into `place`, sequence by sequence.
    Remembered {
        rows: Tensor,
        layout: Arc<Packed>,
        place: Lowest,
    },
}

impl Network {
    /// Builds the adapter and the head on the base; their tensors are drawn or restored by `parameters`.
    pub fn build(base: &Arc<Base>, spec: &Spec, mut parameters: Parameters) -> Result<(Self, Built)> {
        let pooling = spec.task.pooling().unwrap_or(base.info().default_pooling);
        let outputs = spec.task.outputs(&spec.labels);
        let ground = Ground { base, sites: &base.sites(pooling), form: Form::Training };
        let hooks = spec.method.build(&ground, &mut parameters)?;
        let head = Head::build(spec.task.dense(), outputs, base.info().hidden_size, |name, output, input| {
            parameters.dense(name, output, input)
        });
        let network = Self { base: Arc::clone(base), hooks, head, pooling, outputs };
        Ok((network, parameters.finish()?))
    }

    /// The lowest place that is trained: what lies below it may be remembered.
    pub fn lowest(&self) -> Lowest {
        self.hooks.lowest()
    }

    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// Numbers that the head gives for a sequence.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn upload(&self, tensors: &[Tensor]) -> Result<Uploaded> {
        self.base.kernels().parameters(tensors)
    }

    /// The gradients of `Σ loss / denominator` over one micro-batch.
    pub fn gradients(
        &self,
        parameters: &Uploaded,
        source: &Source,
        targets: &Targets,
        denominator: f64,
        dropout: Dropout,
    ) -> Result<Part> {
        let mut tape = self.tape(parameters, Recording::On(dropout));
        let pooled = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        let logits = self.head.logits(&mut tape, pooled)?;
        let (loss, gradient) = targets.loss(&tape, self.base.kernels().as_ref(), logits, denominator)?;
        if !loss.is_finite() {
            let advice = "training diverged: the loss is no longer a number; lower learning_rate";
            return Err(Error::invalid("training_diverged", advice));
        }
        let gradients = tape.backward(logits, gradient)?;
        let kernels = self.base.kernels();
        let download = |gradient: Option<Buffer>| match gradient {
            Some(gradient) => kernels.download(&gradient).map(|tensor| tensor.values),
            None => Ok(Vec::new()),
        };
        Ok(Part { loss, gradients: gradients.into_iter().map(download).collect::<Result<_>>()? })
    }

    /// The head's outputs `(sequences, outputs)`.
    pub fn logits(&self, parameters: &Uploaded, source: &Source) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let pooled = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        let logits = self.head.logits(&mut tape, pooled)?;
        Ok(tape.read(logits)?.values)
    }

    /// The rows that a fresh head of this adapter would read: with what the adapter already does.
    pub fn pooled(&self, parameters: &Uploaded, source: &Source) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        Ok(tape.read(rows)?.values)
    }

    /// The bare base's rows that go into `place`: those of each sequence, or, from the pooler on, one per sequence.
    pub fn frozen(&self, source: &Source, place: Lowest) -> Result<Vec<f32>> {
        let mut tape = self.tape(&Uploaded::from([]), Recording::Off);
        let rows = self.climb(&mut tape, source, place, &())?;
        Ok(tape.read(rows)?.values)
    }

    fn tape(&self, parameters: &Uploaded, recording: Recording) -> Tape {
        Tape::new(Arc::clone(self.base.kernels()), Arc::clone(parameters), recording)
    }

    /// The rows that go into `to`.
    fn climb(&self, tape: &mut Tape, source: &Source, to: Lowest, hooks: &dyn Hooks) -> Result<Rows> {
        let (rows, from) = match source {
            Source::Tokens(tokens) => {
                let batch = Batch::new(tokens.iter().map(Arc::as_ref), hooks.virtual_tokens());
                (self.base.embed(tape, &batch, hooks)?, Lowest::Layer(0))
            }
            Source::Remembered { rows, layout, place } => {
                (tape.constant(self.base.kernels().upload(rows)?, Arc::clone(layout)), *place)
            }
        };
        let hidden = match (from, to) {
            (Lowest::Head, _) => return Ok(rows),
            (Lowest::Pooler, _) | (_, Lowest::Embeddings) => rows,
            (Lowest::Layer(first), Lowest::Layer(end)) => {
                return self.base.layers(tape, rows, first..end, hooks, Wanted::All);
            }
            (Lowest::Embeddings, _) => unreachable!("nothing is remembered below the embeddings"),
            (Lowest::Layer(first), _) => {
                let range = first..self.base.info().layers;
                self.base.layers(tape, rows, range, hooks, self.pooling.wanted())?
            }
        };
        match to {
            Lowest::Head => self.base.pool(tape, hidden, self.pooling, hooks),
            _ => Ok(hidden),
        }
    }
}

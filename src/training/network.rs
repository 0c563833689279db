//! What is trained: an adapter's hooks, its head, and the frozen base between them.
//!
//! One micro-batch at a time, on whatever thread calls: the loop knows nothing of tapes, this knows nothing of steps.

use crate::adapter::Parameters;
use crate::adapter::parameters::Built;
use crate::compute::{Buffer, Dropout, Packed, Recording, Rows, Tape, Tensor};
use crate::error::{Error, Result};
use crate::model::{Base, Batch, Hooks, Lowest, Pooling, Tokens};
use crate::task::{self, head::Head};
use std::sync::Arc;

use super::Spec;

/// The adapter and head of a job on its base.
pub struct Network {
    base: Arc<Base>,
    hooks: Box<dyn Hooks>,
    head: Head,
    pooling: Pooling,
    labels: usize,
}

/// The tensors of one moment, on the device, for all threads.
pub type Uploaded = Arc<[Buffer]>;

/// What one micro-batch adds to a step.
pub struct Part {
    /// Summed over its examples.
    pub loss: f64,
    /// By parameter; empty for one that took no part.
    pub gradients: Vec<Vec<f32>>,
}

/// What a forward pass starts from.
#[derive(Clone)]
pub enum Source {
    Tokens(Vec<Arc<Tokens>>),
    /// Pooled rows `(sequences, hidden)`, where nothing below the head is trained.
    Features(Tensor),
}

impl Network {
    /// Builds the adapter and the head on the base; their tensors are drawn or restored by `parameters`.
    pub fn build(base: &Arc<Base>, spec: &Spec, mut parameters: Parameters) -> Result<(Self, Built)> {
        let task::Config::SequenceClassification(task) = &spec.task;
        let pooling = task.pooling.unwrap_or(base.info().default_pooling);
        let hooks = spec.method.build(&base.sites(pooling), &mut parameters)?;
        let (weight, bias) = parameters.dense(task::head::NAME, spec.labels.len(), base.info().hidden_size);
        let network =
            Self { base: Arc::clone(base), hooks, head: Head { weight, bias }, pooling, labels: spec.labels.len() };
        Ok((network, parameters.finish()?))
    }

    /// Whether only the head is trained, so that pooled rows may be remembered.
    pub fn is_head_only(&self) -> bool {
        self.hooks.lowest() == Lowest::Head
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn labels(&self) -> usize {
        self.labels
    }

    pub fn upload(&self, tensors: &[Tensor]) -> Result<Uploaded> {
        tensors.iter().map(|tensor| self.base.kernels().upload(tensor)).collect()
    }

    /// The gradients of `Σ loss / denominator` over one micro-batch.
    pub fn gradients(
        &self,
        parameters: &Uploaded,
        source: &Source,
        labels: &[u32],
        denominator: f64,
        dropout: Dropout,
    ) -> Result<Part> {
        let mut tape = self.tape(parameters, Recording::On(dropout));
        let pooled = self.pooled(&mut tape, source, self.hooks.as_ref())?;
        let logits = self.head.logits(&mut tape, pooled)?;
        let (loss, gradient) = tape.cross_entropy(logits, labels, denominator)?;
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

    /// Logits `(sequences, labels)`.
    pub fn logits(&self, parameters: &Uploaded, source: &Source) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let pooled = self.pooled(&mut tape, source, self.hooks.as_ref())?;
        let logits = self.head.logits(&mut tape, pooled)?;
        Ok(tape.read(logits)?.values)
    }

    /// The bare base's pooled rows `(sequences, hidden)`.
    pub fn features(&self, tokens: Vec<Arc<Tokens>>) -> Result<Vec<f32>> {
        let mut tape = self.tape(&Uploaded::from([]), Recording::Off);
        let pooled = self.pooled(&mut tape, &Source::Tokens(tokens), &())?;
        Ok(tape.read(pooled)?.values)
    }

    fn tape(&self, parameters: &Uploaded, recording: Recording) -> Tape {
        Tape::new(Arc::clone(self.base.kernels()), Arc::clone(parameters), recording)
    }

    fn pooled(&self, tape: &mut Tape, source: &Source, hooks: &dyn Hooks) -> Result<Rows> {
        match source {
            Source::Tokens(tokens) => {
                let batch = Batch::new(tokens.iter().map(Arc::as_ref));
                let hidden = self.base.encode(tape, &batch, hooks, self.pooling.wanted())?;
                self.base.pool(tape, hidden, self.pooling, hooks)
            }
            Source::Features(rows) => {
                let layout = Arc::new(Packed::single_rows(rows.shape[0]));
                Ok(tape.constant(self.base.kernels().upload(rows)?, layout))
            }
        }
    }
}

//! What is trained: an adapter's hooks, its head, and the frozen base between them.
//!
//! One micro-batch at a time, on whatever thread calls: the loop knows nothing of tapes, this knows nothing of steps.

use crate::adapter::parameters::Built;
use crate::adapter::{Ground, Parameters};
use crate::error::{Error, Result};
use crate::model::{Base, Batch, Hooks, Lowest, Tokens, Wanted};
use crate::task::head::Head;
use crate::task::metrics::language::JUDGED;
use crate::task::targets::Targets;
use crate::task::{Reader, Reads, language};
use espalier_tensor::{Packed, Parameter, Recording, Rows, Tape, Tensor};
use std::sync::Arc;

mod forward;
mod segments;

pub use forward::Forward;

use super::Spec;
use segments::Costs;

/// The adapter and head of a job on its base.
pub struct Network {
    base: Arc<Base>,
    hooks: Box<dyn Hooks>,
    reader: Reader,
    /// Numbers that evaluation keeps of a row.
    width: usize,
    /// Of the rows that are read.
    dropout: f64,
    costs: Costs,
    /// Bytes of what one micro-batch remembers.
    budget: u64,
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

/// What a forward pass starts from: sequences, and perhaps what is known of them.
pub struct Source {
    pub tokens: Vec<Arc<Tokens>>,
    pub known: Option<Known>,
}

impl Source {
    /// Sequences of which nothing is known.
    pub fn tokens(tokens: Vec<Arc<Tokens>>) -> Self {
        Self { tokens, known: None }
    }
}

/// What the frozen base computed before: the rows that go into `place`, sequence by sequence.
pub struct Known {
    pub rows: Tensor,
    pub layout: Arc<Packed>,
    pub place: Lowest,
}

impl Network {
    /// Builds the adapter and the head on the base; their tensors are drawn or restored by `parameters`.
    pub fn build(base: &Arc<Base>, spec: &Spec, mut parameters: Parameters) -> Result<(Self, Built)> {
        let info = base.info();
        let pooling = spec.task.pooling().unwrap_or(info.default_pooling);
        let ground = Ground { base, sites: &base.sites(pooling), form: spec.form() };
        let hooks = spec.method.build(&ground, &mut parameters)?;
        let outputs = spec.task.outputs(&spec.labels);
        let head = outputs.map(|outputs| {
            Head::build(spec.task.dense(), outputs, info.hidden_size, |name, output, input| {
                parameters.dense(name, output, input)
            })
        });
        let reader = Reader::new(&spec.task, pooling, head);
        let width = match reader.reads {
            Reads::Trained(_) | Reads::Rows => outputs.unwrap_or(info.hidden_size),
            Reads::Language => JUDGED,
        };
        let dropout = spec.method.dropout_of_rows();
        let (base, costs) = (Arc::clone(base), Costs::of(base, pooling));
        Ok((Self { base, hooks, reader, width, dropout, costs, budget: u64::MAX }, parameters.finish()?))
    }

    /// Remembers at most about so many bytes of a micro-batch, and computes the rest again.
    pub fn within(self, budget: u64) -> Self {
        Self { budget, ..self }
    }

    /// Whether the whole way back of so many rows keeps to what one micro-batch may remember.
    pub fn keeps(&self, rows: usize) -> bool {
        self.costs.cut(0..self.base.info().layers, rows, self.budget).len() < 2
    }

    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    pub fn hooks(&self) -> &dyn Hooks {
        self.hooks.as_ref()
    }

    /// The lowest place that is trained: what lies below it may be remembered.
    pub fn lowest(&self) -> Lowest {
        self.hooks.lowest()
    }

    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// Numbers that evaluation keeps of a row: those of the head, of the row itself, or how a language model's word was judged.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn upload(&self, tensors: &[Tensor]) -> Result<Uploaded> {
        Ok(self.base.kernels().parameters(tensors)?)
    }

    /// The gradients of `Σ loss / denominator` over one micro-batch.
    pub fn gradients(&self, forward: Forward, targets: &Targets, denominator: f64) -> Result<Part> {
        let kernels = self.base.kernels().as_ref();
        let (loss, gradient) = targets.loss(&forward.tape, kernels, forward.outputs, denominator)?;
        Ok(Part { loss: finite(loss)?, gradients: self.back(forward, gradient)? })
    }

    /// The same where the rows that are read are to find these words.
    pub fn language_gradients(&self, forward: Forward, words: &[u32], denominator: f64) -> Result<Part> {
        let found = language::Found::new(&self.base, &forward.tape, forward.outputs, words)?;
        let loss = finite(found.losses.iter().sum())?;
        let gradient = found.weighed(std::iter::repeat(1.0 / denominator));
        Ok(Part { loss, gradients: self.backward(forward, &gradient)? })
    }

    /// The same where of two answers one is preferred, pair by pair.
    pub fn preference_gradients(
        &self,
        forward: Forward,
        words: &[u32],
        targets: &Targets,
        denominator: f64,
    ) -> Result<Part> {
        let Targets::Preferred { lengths, reference, config } = targets else {
            return Err(Error::internal("only pairs of answers are preferred"));
        };
        let found = language::Found::new(&self.base, &forward.tape, forward.outputs, words)?;
        let (mut losses, mut factors, mut loss) = (found.losses.iter(), Vec::with_capacity(words.len()), 0.0);
        for (lengths, before) in lengths.iter().zip(reference) {
            let now = lengths.map(|length| -losses.by_ref().take(length).sum::<f64>());
            let verdict = config.judge(now, *before, *lengths);
            loss += verdict.loss;
            // A word's loss is less what its answer's log-probability is more.
            let factor = verdict.gradient.map(|gradient| -gradient / denominator);
            factors.extend(lengths.iter().zip(factor).flat_map(|(length, factor)| vec![factor; *length]));
        }
        let loss = finite(loss)?;
        let gradient = found.weighed(factors.into_iter());
        Ok(Part { loss, gradients: self.backward(forward, &gradient)? })
    }

    /// The outputs `(rows, width)`.
    pub fn outputs(&self, parameters: &Uploaded, source: &Source) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        let outputs = self.reader.outputs(&self.base, &mut tape, rows)?;
        Ok(tape.read(outputs)?.values)
    }

    /// How the base's own head judges these words, `(words, JUDGED)`.
    pub fn judged(&self, parameters: &Uploaded, source: &Source, words: &[u32]) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        let rows = self.base.before_words(&mut tape, rows)?;
        language::judge(&self.base, &mut tape, rows, words)
    }

    /// The rows that a fresh head of this adapter would read: with what the adapter already does.
    pub fn read(&self, parameters: &Uploaded, source: &Source) -> Result<Vec<f32>> {
        let mut tape = self.tape(parameters, Recording::Off);
        let rows = self.climb(&mut tape, source, Lowest::Head, self.hooks.as_ref())?;
        Ok(tape.read(rows)?.values)
    }

    /// The bare base's rows that go into `place`: those of each sequence, or, from the pooler on, those that are read.
    pub fn frozen(&self, source: &Source, place: Lowest) -> Result<Vec<f32>> {
        let mut tape = self.tape(&Uploaded::from([]), Recording::Off);
        let rows = self.climb(&mut tape, source, place, &())?;
        Ok(tape.read(rows)?.values)
    }

    fn tape(&self, parameters: &Uploaded, recording: Recording) -> Tape {
        Tape::new(Arc::clone(self.base.kernels()), Arc::clone(parameters), recording)
    }

    /// The rows that a forward pass begins with, and the place that they go into.
    fn begin(&self, tape: &mut Tape, source: &Source, hooks: &dyn Hooks) -> Result<(Rows, Lowest)> {
        match &source.known {
            None => {
                let batch = Batch::new(source.tokens.iter().map(Arc::as_ref), hooks.virtual_tokens());
                Ok((self.base.embed(tape, &batch, hooks)?, Lowest::Layer(0)))
            }
            Some(Known { rows, layout, place }) => {
                Ok((tape.constant(self.base.kernels().upload(rows)?, Arc::clone(layout)), *place))
            }
        }
    }

    /// The rows that go into `to`.
    fn climb(&self, tape: &mut Tape, source: &Source, to: Lowest, hooks: &dyn Hooks) -> Result<Rows> {
        let sequences = || source.tokens.iter().map(Arc::as_ref);
        let (rows, from) = self.begin(tape, source, hooks)?;
        let hidden = match (from, to) {
            (Lowest::Head, _) => return Ok(rows),
            (Lowest::Pooler, _) | (_, Lowest::Embeddings) => rows,
            (Lowest::Layer(first), Lowest::Layer(end)) => {
                return self.base.layers(tape, rows, first..end, hooks, Wanted::All);
            }
            (Lowest::Embeddings, _) => unreachable!("nothing is remembered below the embeddings"),
            (Lowest::Layer(first), _) => {
                let range = first..self.base.info().layers;
                self.base.layers(tape, rows, range, hooks, self.reader.reading.wanted())?
            }
        };
        match to {
            Lowest::Head => self.reader.rows(&self.base, tape, hidden, hooks, sequences()),
            _ => Ok(hidden),
        }
    }
}

/// # Errors
/// `Invalid` (`training_diverged`) where the loss is no number.
pub fn finite(loss: f64) -> Result<f64> {
    match loss.is_finite() {
        true => Ok(loss),
        false => {
            let advice = "training diverged: the loss is no longer a number; lower learning_rate";
            Err(Error::invalid("training_diverged", advice))
        }
    }
}

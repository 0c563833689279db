//! An adapter ready to compute: its hooks, its head and its tensors on the device.
//!
//! Knows nothing of other adapters: a batch with several is serving's matter.

use super::{Artifact, Card};
use crate::adapter::{Form, Ground, Parameters};
use crate::error::Result;
use crate::model::{Base, Batch, Hooks, Pooling, Tokens};
use crate::task::head::Head;
use crate::task::{Input, Reader, Reading, Reads};
use espalier_tensor::{Parameter, Recording, Tape};
use std::sync::Arc;

pub struct Adapted {
    /// Without metrics and probe.
    pub card: Card,
    pub hooks: Box<dyn Hooks>,
    pub reader: Reader,
    pub parameters: Arc<[Parameter]>,
    bytes: u64,
}

impl Adapted {
    /// Puts an adapter's tensors on the base's device.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) that names every unknown, missing and misshapen tensor.
    pub fn load(artifact: &Artifact, base: &Base) -> Result<Self> {
        let mut card = artifact.card.clone();
        // What was measured and the probe may take more room than the tensors, and answer no request.
        (card.metrics, card.probe.inputs, card.probe.outputs) = (None, Vec::new(), Vec::new());
        let pooling = card.task.pooling().unwrap_or(base.info().default_pooling);
        let mut parameters = Parameters::restore(artifact.weights.clone());
        let ground = Ground { base, sites: &base.sites(pooling), form: Form::Published };
        let hooks = card.method.build(&ground, &mut parameters)?;
        let head = card.task.outputs(&card.labels).map(|outputs| {
            Head::build(card.task.dense(), outputs, base.info().hidden_size, |name, output, input| {
                parameters.dense(name, output, input)
            })
        });
        let reader = Reader::new(&card.task, pooling, head);
        let built = parameters.finish()?;
        let tensors = built.tensors;
        let bytes = tensors.iter().chain(built.frozen.values()).map(|tensor| tensor.bytes() as u64).sum();
        let parameters = base.kernels().parameters(&tensors)?;
        Ok(Self { card, hooks, reader, parameters, bytes })
    }

    /// Bytes of its tensors in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The longest input in tokens: as in training, and never more than the base reads behind the adapter's own.
    pub fn longest(&self, base: &Base) -> usize {
        self.card.max_length.min(base.info().max_tokens.saturating_sub(self.card.method.virtual_tokens()))
    }

    /// An input's tokens, truncated to [`Self::longest`].
    pub fn tokens(&self, base: &Base, input: &Input) -> Result<Tokens> {
        self.card.task.tokens(base.tokenizer(), input, self.longest(base))
    }

    /// What shows how each input is answered, in their order: logits, or a row of length 1.
    pub fn outputs(&self, base: &Base, inputs: &[Input]) -> Result<Vec<Vec<f32>>> {
        self.outputs_under(base, inputs, self.hooks.as_ref())
    }

    /// The same head on the bare base: what the answers would be if the adapter had no effect.
    pub fn outputs_without_effect(&self, base: &Base, inputs: &[Input]) -> Result<Vec<Vec<f32>>> {
        self.outputs_under(base, inputs, &())
    }

    fn outputs_under(&self, base: &Base, inputs: &[Input], hooks: &dyn Hooks) -> Result<Vec<Vec<f32>>> {
        let tokens: Vec<Tokens> = inputs.iter().map(|input| self.tokens(base, input)).collect::<Result<_>>()?;
        // A text without masks has nothing to be filled, but its rows say what the adapter does.
        let reader = match self.reader.reads {
            Reads::Language => Reader { reading: Reading::Pooled(Pooling::Mean), reads: Reads::Rows },
            _ => self.reader,
        };
        let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::clone(&self.parameters), Recording::Off);
        let batch = Batch::new(&tokens, hooks.virtual_tokens());
        let hidden = base.encode(&mut tape, &batch, hooks, reader.reading.wanted())?;
        reader.answers(base, &mut tape, hidden, hooks, &tokens)
    }
}

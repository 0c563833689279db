//! What the methods with virtual tokens share: what the tokens start from, and the small network that may make them.

use super::targets::Check;
use crate::adapter::{Init, Parameters};
use crate::error::{Error, Fault, Problem, Result};
use crate::model::{Base, Hooks, Lowest, Virtual};
use espalier_tensor::columns::Front;
use espalier_tensor::kernels::Activation;
use espalier_tensor::random::Random;
use espalier_tensor::{Param, Rows, Tape};
use std::ops::Range;

/// The published tensor of a soft prompt: `(virtual tokens, hidden)`.
pub const NAME: &str = "prompt";

/// How many there are where nothing is said: with more, other rows of a sentence encoder's are pooled, and it is worse before
/// and after training (`benches/README.md`).
pub const DEFAULT: usize = 5;

/// Real text must keep some room.
pub fn check_number(check: &mut Check, count: usize, max_tokens: usize) {
    let most = max_tokens / 2;
    let message = format!("num_virtual_tokens must be between 1 and {most}, half of what this base can read");
    check.require((1..=most).contains(&count), "num_virtual_tokens", message);
}

/// Tokens of the vocabulary drawn without preference.
pub fn sampled(base: &Base, count: usize, seed: u64, name: &str) -> Vec<u32> {
    let mut random = Random::new(seed, &["vocabulary", name]);
    let vocabulary = base.info().vocabulary_size as f32;
    (0..count).map(|_| ((random.uniform() * vocabulary) as u32).min(vocabulary as u32 - 1)).collect()
}

/// A text's tokens without special ones, repeated or cut to the number.
///
/// # Errors
/// `Invalid` (`invalid_method`) where the text has none.
pub fn repeated(base: &Base, text: &str, count: usize) -> Result<Vec<u32>> {
    let own = base.tokenizer().plain(text)?;
    if own.is_empty() {
        let message = "the base's tokenizer makes no token of the text";
        let fault = Fault::at_pointer("/method/init/text", message);
        return Err(Error::Invalid(Problem::new("invalid_method", message).with_faults(vec![fault])));
    }
    Ok(own.iter().copied().cycle().take(count).collect())
}

/// Dense layers with an activation between them, over rows that are learned themselves: what a prompt is made by in
/// training, and no longer needed then.
pub struct Encoder {
    rows: Param,
    layers: Vec<(Param, Param)>,
    activation: Activation,
}

impl Encoder {
    /// `widths` are those between the layers, the first being the rows'.
    pub fn build(count: usize, widths: &[usize], activation: Activation, parameters: &mut Parameters) -> Self {
        let rows = parameters.tensor("encoder.embedding".to_string(), &[count, widths[0]], Init::Normal(1.0));
        let layer = |(index, pair): (usize, &[usize])| dense(parameters, &format!("encoder.{index}"), pair[1], pair[0]);
        Self { rows, layers: widths.windows(2).enumerate().map(layer).collect(), activation }
    }

    /// What comes out of the last layer, with the activation where `is_open`: others follow.
    pub fn rows(&self, tape: &mut Tape, is_open: bool) -> Result<Rows> {
        let mut rows = tape.parameter(self.rows)?;
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            rows = tape.dense(rows, *weight, *bias)?;
            if is_open || index + 1 < self.layers.len() {
                rows = tape.activate(self.activation, rows)?;
            }
        }
        Ok(rows)
    }
}

/// A dense layer as PyTorch draws it: weight `(output, input)`, bias 0.
pub fn dense(parameters: &mut Parameters, name: &str, output: usize, input: usize) -> (Param, Param) {
    let weight = parameters.tensor(format!("{name}.weight"), &[output, input], Init::KaimingUniform);
    (weight, parameters.tensor(format!("{name}.bias"), &[output], Init::Zeros))
}

enum Source {
    Plain(Param),
    Encoded(Encoder),
}

/// Virtual tokens in front of every sequence.
pub struct Prompt {
    source: Source,
    count: usize,
}

impl Prompt {
    pub fn plain(rows: Param, count: usize) -> Self {
        Self { source: Source::Plain(rows), count }
    }

    pub fn encoded(encoder: Encoder, count: usize) -> Self {
        Self { source: Source::Encoded(encoder), count }
    }

    /// `(virtual tokens, hidden)`
    pub fn rows(&self, tape: &mut Tape) -> Result<Rows> {
        match &self.source {
            Source::Plain(rows) => Ok(tape.parameter(*rows)?),
            Source::Encoded(encoder) => encoder.rows(tape, false),
        }
    }
}

impl Hooks for Prompt {
    fn lowest(&self) -> Lowest {
        Lowest::Embeddings
    }

    fn virtual_tokens(&self) -> Virtual {
        Virtual::Tokens(self.count)
    }

    fn prompt(&self, tape: &mut Tape, sequences: Range<usize>) -> Result<Vec<Front<Rows>>> {
        Ok(vec![Front { sequences, rows: self.rows(tape)? }])
    }
}

//! What the examples of a job teach, as numbers: one class, a set of classes, a value, the tags of its words, or which texts
//! belong together.
//!
//! Knows the losses of these and their gradients, and nothing of how outputs come about.

use super::metrics::multi_label::binary;
use super::preference;
use crate::error::Result;
use espalier_tensor::{Buffer, Kernels, Rows, Tape, Tensor};
use similar::Belonging;
use std::borrow::Cow;
use std::sync::Arc;

mod change;
mod new;
mod pick;
mod scale;
pub mod similar;

pub use scale::Scale;

/// By example.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    Classes {
        classes: Vec<u32>,
        count: usize,
    },
    /// Sorted.
    Sets {
        sets: Vec<Vec<u32>>,
        count: usize,
    },
    Values {
        values: Vec<f32>,
        scale: Scale,
    },
    /// Of every word, and how many of them are read: the others were cut off.
    Tags {
        tags: Vec<Vec<u32>>,
        read: Vec<usize>,
        count: usize,
    },
    /// Of pairs of texts.
    Scores {
        scores: Vec<f32>,
        scale: Scale,
    },
    /// The texts by number: one, another that belongs to it, and perhaps one that does not.
    Ranked {
        texts: Vec<Vec<u32>>,
        /// Of all examples, also where these are some of them.
        belonging: Arc<Belonging>,
    },
    /// Of two answers to a prompt, the chosen one first: the tokens of each, and what they were worth before the first step.
    Preferred {
        lengths: Vec<[usize; 2]>,
        reference: Vec<preference::Pair>,
        config: preference::Config,
    },
    /// How many tokens of each a language model is to find; which ones is known when they are needed.
    Words {
        counts: Vec<usize>,
    },
}

impl Targets {
    /// Texts by number, of which all that is known to belong together is in them.
    fn ranked(texts: Vec<Vec<u32>>) -> Self {
        let belonging = Arc::new(Belonging::of(&texts));
        Self::Ranked { texts, belonging }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Classes { classes, .. } => classes.len(),
            Self::Sets { sets, .. } => sets.len(),
            Self::Values { values, .. } => values.len(),
            Self::Tags { tags, .. } => tags.len(),
            Self::Scores { scores, .. } => scores.len(),
            Self::Ranked { texts, .. } => texts.len(),
            Self::Words { counts } => counts.len(),
            Self::Preferred { lengths, .. } => lengths.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers that a head gives for a row; 0 where there is none.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { count, .. } | Self::Sets { count, .. } | Self::Tags { count, .. } => *count,
            Self::Values { .. } => 1,
            Self::Scores { .. } | Self::Ranked { .. } | Self::Words { .. } | Self::Preferred { .. } => 0,
        }
    }

    /// Rows that a head, or else the loss, reads of an example.
    pub fn rows(&self, example: usize) -> usize {
        match self {
            Self::Classes { .. } | Self::Sets { .. } | Self::Values { .. } => 1,
            Self::Tags { read, .. } | Self::Words { counts: read } => read[example],
            Self::Scores { .. } => 2,
            Self::Preferred { lengths, .. } => lengths[example].iter().sum(),
            Self::Ranked { texts, .. } => texts[example].len(),
        }
    }

    /// What a batch's loss is divided by: its examples, or its words.
    pub fn weight(&self, examples: &[usize]) -> usize {
        match self {
            Self::Tags { read, .. } | Self::Words { counts: read } => {
                examples.iter().map(|example| read[*example]).sum()
            }
            _ => examples.len(),
        }
    }

    /// Whether an example's loss depends on the others of its batch.
    pub fn is_coupled(&self) -> bool {
        matches!(self, Self::Ranked { .. })
    }

    /// The classes of single rows, and their number, where rows have classes.
    pub fn classes(&self) -> Option<(Cow<'_, [u32]>, usize)> {
        match self {
            Self::Classes { classes, count } => Some((Cow::Borrowed(classes), *count)),
            Self::Tags { tags, read, count } => {
                let read = tags.iter().zip(read).flat_map(|(tags, read)| tags[..*read].iter().copied());
                Some((Cow::Owned(read.collect()), *count))
            }
            _ => None,
        }
    }

    /// What each row teaches by itself.
    pub fn by_row(self) -> Self {
        match self.classes() {
            Some((classes, count)) => Self::Classes { classes: classes.into_owned(), count },
            None => self,
        }
    }

    /// Groups that a split keeps in proportion, and their number.
    pub fn strata(&self) -> (Vec<u32>, usize) {
        match self {
            Self::Classes { classes, count } => (classes.clone(), *count),
            _ => (vec![0; self.len()], 1),
        }
    }

    /// The sum of the examples' losses, and its gradient by the outputs divided by `denominator`: −log softmax (of words,
    /// or of what belongs together), the mean binary cross entropy over the labels, half the squared error of the scaled
    /// value, or the squared error of the cosine.
    pub fn loss(&self, tape: &Tape, kernels: &dyn Kernels, outputs: Rows, denominator: f64) -> Result<(f64, Buffer)> {
        let (loss, gradient) = self.loss_on(kernels, &tape.rows(outputs)?)?;
        Ok((loss, kernels.scale(&gradient, 1.0 / denominator)?))
    }

    /// The same of outputs `(examples, outputs)` on a device, without a denominator.
    pub fn loss_on(&self, kernels: &dyn Kernels, outputs: &Buffer) -> Result<(f64, Buffer)> {
        if let Some((classes, _)) = self.classes() {
            let found = kernels.cross_entropy(outputs, &classes)?;
            return Ok((found.losses.iter().sum(), found.gradient));
        }
        let outputs = kernels.download(outputs)?;
        let (loss, gradient) = self.loss_of(&outputs.values);
        let gradient = gradient.into_iter().map(|value| value as f32).collect();
        Ok((loss, kernels.upload(&Tensor::new(outputs.shape, gradient))?))
    }

    /// The sum of the losses and its gradient, on the host; of classes only what is left of others is asked.
    pub fn loss_of(&self, rows: &[f32]) -> (f64, Vec<f64>) {
        let outputs = rows.iter().map(|output| f64::from(*output));
        match self {
            Self::Classes { .. } | Self::Tags { .. } | Self::Words { .. } | Self::Preferred { .. } => {
                unreachable!("the device computes the loss of classes, and that of a language model's words")
            }
            Self::Scores { scores, scale } => similar::scored(rows, scores, *scale),
            Self::Ranked { texts, belonging } => similar::Ranked::new(texts, belonging).loss(rows),
            Self::Sets { sets, count } => {
                let meant =
                    sets.iter().flat_map(|set| (0..*count).map(|label| set.binary_search(&(label as u32)).is_ok()));
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(sets.len() * count));
                for (logit, meant) in outputs.zip(meant) {
                    loss += binary(logit, meant) / *count as f64;
                    let probability = 1.0 / (1.0 + (-logit).exp());
                    gradient.push((probability - f64::from(u8::from(meant))) / *count as f64);
                }
                (loss, gradient)
            }
            Self::Values { values, scale } => {
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(values.len()));
                for (output, value) in outputs.zip(values) {
                    let difference = output - scale.apply(*value);
                    loss += difference * difference / 2.0;
                    gradient.push(difference);
                }
                (loss, gradient)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::head;

    #[test]
    fn gradients_agree_with_differences() {
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0, 0.5];
        // With the numbers that each reads; cosines are sharpened, so they bend more.
        let all = [
            (Targets::Sets { sets: vec![vec![0, 2], vec![], vec![1]], count: 3 }, 9, 5e-4),
            (Targets::Values { values: vec![3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 2.5, 7.0, 2.0], scale }, 9, 5e-4),
            (Targets::Scores { scores: vec![3.0, -1.0], scale }, 8, 1e-3),
            (Targets::ranked(vec![vec![0, 1], vec![2, 3, 4]]), 10, 2e-2),
        ];
        for (targets, count, tolerance) in all {
            let outputs = &outputs[..count];
            let (_, gradient) = targets.loss_of(outputs);
            assert_eq!(gradient.len(), count);
            for (index, found) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut outputs = outputs.to_vec();
                    outputs[index] += by;
                    targets.loss_of(&outputs).0
                };
                let expected = (moved(2e-3) - moved(-2e-3)) / 4e-3;
                assert!((found - expected).abs() < tolerance, "{targets:?}, {index}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_head_answers_in_the_values_own_unit() {
        let values = vec![10.0, 20.0, 60.0];
        let targets = Targets::Values { values, scale: Scale::PLAIN }.scaled_by(&[0, 1]);
        let Targets::Values { scale, .. } = &targets else { panic!("values stay values") };
        assert_eq!((scale.mean, scale.deviation), (15.0, 5.0));
        let head = [(head::WEIGHT, vec![2.0]), (head::BIAS, vec![0.5])];
        let weights = head.map(|(name, values)| (name.to_string(), Tensor::new([values.len()], values)));
        let weights = targets.in_units(weights.into());
        assert_eq!((weights[head::WEIGHT].values[0], weights[head::BIAS].values[0]), (10.0, 17.5));
        let back = targets.in_learned_units(weights);
        assert_eq!((back[head::WEIGHT].values[0], back[head::BIAS].values[0]), (2.0, 0.5));
        assert_eq!(scale.undo(2.0 * 3.0 + 0.5), 10.0 * 3.0 + 17.5);
    }
}

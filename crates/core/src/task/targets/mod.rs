//! What the examples of a job teach, as numbers: one class, a set of classes, a value, the tags of its words, or which texts
//! belong together.
//!
//! Knows the losses of these and their gradients, and nothing of how outputs come about.

use super::metrics::multi_label::binary_cross_entropy;
use super::preference;
use crate::error::Result;
use contrastive::PositivePairs;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use std::borrow::Cow;
use std::sync::Arc;

pub mod contrastive;
mod from_examples;
mod refine;
mod scale;
mod select;

pub use scale::Scale;

/// By example.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    Classes {
        classes: Vec<u32>,
        class_count: usize,
    },
    /// Sorted.
    LabelSets {
        sets: Vec<Vec<u32>>,
        label_count: usize,
    },
    Values {
        values: Vec<f32>,
        scale: Scale,
    },
    /// Of every word, and how many of them are read: the others were cut off.
    Tags {
        tags: Vec<Vec<u32>>,
        word_counts: Vec<usize>,
        tag_count: usize,
    },
    /// Of pairs of texts.
    SimilarityScores {
        scores: Vec<f32>,
        scale: Scale,
    },
    /// The texts by number: one, another that belongs to it, and perhaps one that does not.
    ContrastivePairs {
        text_ids: Vec<Vec<u32>>,
        /// Of all examples, also where these are some of them.
        positives: Arc<PositivePairs>,
    },
    /// Of two answers to a prompt, the chosen one first: the tokens of each, and what they were worth before the first step.
    PreferencePairs {
        answer_lengths: Vec<[usize; 2]>,
        reference_logprobs: Vec<preference::LogProbs>,
        config: preference::Config,
    },
    /// How many tokens of each a language model is to find; which ones is known when they are needed.
    LmTokens {
        token_counts: Vec<usize>,
    },
}

impl Targets {
    /// Texts by number, of which all that is known to belong together is in them.
    fn contrastive(texts: Vec<Vec<u32>>) -> Self {
        let belonging = Arc::new(PositivePairs::new(&texts));
        Self::ContrastivePairs { text_ids: texts, positives: belonging }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Classes { classes, .. } => classes.len(),
            Self::LabelSets { sets, .. } => sets.len(),
            Self::Values { values, .. } => values.len(),
            Self::Tags { tags, .. } => tags.len(),
            Self::SimilarityScores { scores, .. } => scores.len(),
            Self::ContrastivePairs { text_ids: texts, .. } => texts.len(),
            Self::LmTokens { token_counts: counts } => counts.len(),
            Self::PreferencePairs { answer_lengths: lengths, .. } => lengths.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers that a head gives for a row; 0 where there is none.
    pub fn output_width(&self) -> usize {
        match self {
            Self::Classes { class_count: count, .. }
            | Self::LabelSets { label_count: count, .. }
            | Self::Tags { tag_count: count, .. } => *count,
            Self::Values { .. } => 1,
            Self::SimilarityScores { .. }
            | Self::ContrastivePairs { .. }
            | Self::LmTokens { .. }
            | Self::PreferencePairs { .. } => 0,
        }
    }

    /// Rows that a head, or else the loss, reads of an example.
    pub fn row_count(&self, example: usize) -> usize {
        match self {
            Self::Classes { .. } | Self::LabelSets { .. } | Self::Values { .. } => 1,
            Self::Tags { word_counts: read, .. } | Self::LmTokens { token_counts: read } => read[example],
            Self::SimilarityScores { .. } => 2,
            Self::PreferencePairs { answer_lengths: lengths, .. } => lengths[example].iter().sum(),
            Self::ContrastivePairs { text_ids: texts, .. } => texts[example].len(),
        }
    }

    /// What a batch's loss is divided by: its examples, or its words.
    pub fn loss_denominator(&self, examples: &[usize]) -> usize {
        match self {
            Self::Tags { word_counts: read, .. } | Self::LmTokens { token_counts: read } => {
                examples.iter().map(|example| read[*example]).sum()
            }
            _ => examples.len(),
        }
    }

    /// Whether an example's loss depends on the others of its batch.
    pub fn has_in_batch_negatives(&self) -> bool {
        matches!(self, Self::ContrastivePairs { .. })
    }

    /// The classes of single rows, and their number, where rows have classes.
    pub fn row_classes(&self) -> Option<(Cow<'_, [u32]>, usize)> {
        match self {
            Self::Classes { classes, class_count: count } => Some((Cow::Borrowed(classes), *count)),
            Self::Tags { tags, word_counts: read, tag_count: count } => {
                let read = tags.iter().zip(read).flat_map(|(tags, read)| tags[..*read].iter().copied());
                Some((Cow::Owned(read.collect()), *count))
            }
            _ => None,
        }
    }

    /// What each row teaches by itself.
    pub fn per_row(self) -> Self {
        match self.row_classes() {
            Some((classes, count)) => Self::Classes { classes: classes.into_owned(), class_count: count },
            None => self,
        }
    }

    /// Groups that a split keeps in proportion, and their number.
    pub fn strata(&self) -> (Vec<u32>, usize) {
        match self {
            Self::Classes { classes, class_count: count } => (classes.clone(), *count),
            _ => (vec![0; self.len()], 1),
        }
    }

    /// The sum of the examples' losses, and its gradient by the outputs divided by `denominator`: −log softmax (of words,
    /// or of what belongs together), the mean binary cross entropy over the labels, half the squared error of the scaled
    /// value, or the squared error of the cosine.
    pub fn loss(&self, tape: &Tape, kernels: &dyn Backend, outputs: Var, denominator: f64) -> Result<(f64, Buffer)> {
        let (loss, gradient) = self.loss_on_device(kernels, &tape.device_buffer(outputs)?)?;
        Ok((loss, kernels.scale(&gradient, 1.0 / denominator)?))
    }

    /// The same of outputs `(examples, outputs)` on a device, without a denominator.
    pub fn loss_on_device(&self, kernels: &dyn Backend, outputs: &Buffer) -> Result<(f64, Buffer)> {
        if let Some((classes, _)) = self.row_classes() {
            let cross_entropy = kernels.cross_entropy(outputs, &classes)?;
            return Ok((cross_entropy.losses.iter().sum(), cross_entropy.gradient));
        }
        let outputs = kernels.download(outputs)?;
        let (loss, gradient) = self.loss_on_host(&outputs.values);
        let gradient = gradient.into_iter().map(|value| value as f32).collect();
        Ok((loss, kernels.upload(&Tensor::new(outputs.shape, gradient))?))
    }

    /// The sum of the losses and its gradient, on the host; of classes only what is left of others is asked.
    pub fn loss_on_host(&self, rows: &[f32]) -> (f64, Vec<f64>) {
        let outputs = rows.iter().map(|output| f64::from(*output));
        match self {
            Self::Classes { .. } | Self::Tags { .. } | Self::LmTokens { .. } | Self::PreferencePairs { .. } => {
                unreachable!("the device computes the loss of classes, and that of a language model's words")
            }
            Self::SimilarityScores { scores, scale } => contrastive::cosine_squared_error(rows, scores, *scale),
            Self::ContrastivePairs { text_ids: texts, positives: belonging } => {
                contrastive::ContrastiveBatch::new(texts, belonging).loss(rows)
            }
            Self::LabelSets { sets, label_count: count } => {
                let is_positive =
                    sets.iter().flat_map(|set| (0..*count).map(|label| set.binary_search(&(label as u32)).is_ok()));
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(sets.len() * count));
                for (logit, meant) in outputs.zip(is_positive) {
                    loss += binary_cross_entropy(logit, meant) / *count as f64;
                    let probability = 1.0 / (1.0 + (-logit).exp());
                    gradient.push((probability - f64::from(u8::from(meant))) / *count as f64);
                }
                (loss, gradient)
            }
            Self::Values { values, scale } => {
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(values.len()));
                for (output, value) in outputs.zip(values) {
                    let difference = output - scale.normalize(*value);
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
    fn gradients_match_finite_differences() {
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0, 0.5];
        // With the numbers that each reads; cosines are sharpened, so they bend more.
        let cases = [
            (Targets::LabelSets { sets: vec![vec![0, 2], vec![], vec![1]], label_count: 3 }, 9, 5e-4),
            (Targets::Values { values: vec![3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 2.5, 7.0, 2.0], scale }, 9, 5e-4),
            (Targets::SimilarityScores { scores: vec![3.0, -1.0], scale }, 8, 1e-3),
            (Targets::contrastive(vec![vec![0, 1], vec![2, 3, 4]]), 10, 2e-2),
        ];
        for (targets, count, tolerance) in cases {
            let outputs = &outputs[..count];
            let (_, gradient) = targets.loss_on_host(outputs);
            assert_eq!(gradient.len(), count);
            for (index, found) in gradient.iter().enumerate() {
                let loss_at = |by: f32| {
                    let mut outputs = outputs.to_vec();
                    outputs[index] += by;
                    targets.loss_on_host(&outputs).0
                };
                let expected = (loss_at(2e-3) - loss_at(-2e-3)) / 4e-3;
                assert!((found - expected).abs() < tolerance, "{targets:?}, {index}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_denormalized_head_predicts_in_the_original_unit() {
        let values = vec![10.0, 20.0, 60.0];
        let targets = Targets::Values { values, scale: Scale::IDENTITY }.with_fitted_scale(&[0, 1]);
        let Targets::Values { scale, .. } = &targets else { panic!("values stay values") };
        assert_eq!((scale.mean, scale.deviation), (15.0, 5.0));
        let head = [(head::OUTPUT_WEIGHT, vec![2.0]), (head::OUTPUT_BIAS, vec![0.5])];
        let weights = head.map(|(name, values)| (name.to_string(), Tensor::new([values.len()], values)));
        let weights = targets.denormalize_head(weights.into());
        assert_eq!((weights[head::OUTPUT_WEIGHT].values[0], weights[head::OUTPUT_BIAS].values[0]), (10.0, 17.5));
        let back = targets.normalize_head(weights);
        assert_eq!((back[head::OUTPUT_WEIGHT].values[0], back[head::OUTPUT_BIAS].values[0]), (2.0, 0.5));
        assert_eq!(scale.denormalize(2.0 * 3.0 + 0.5), 10.0 * 3.0 + 17.5);
    }
}

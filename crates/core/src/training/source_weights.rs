//! Weights of the adapter that a run starts from, adapted to the run's labels.

use super::Spec;
use super::warm_start::HeadReuse;
use crate::adapter::ParameterBuilder;
use crate::task::head;
use crate::task::head_init::LinearProbe;
use crate::task::objective::Objective;
use crate::task::row_targets::RowTargets;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

/// Weights of a published adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceWeights {
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tensors of adapter and head, as published.
    pub weights: BTreeMap<String, Tensor>,
}

/// Prefix of the names of a head's tensors.
const HEAD_PREFIX: &str = "head.";

impl SourceWeights {
    /// Initial tensors of a run. Rows of the head that are initialised later are zero.
    pub fn initial_parameters(&self, spec: &Spec, objective: &dyn Objective, hidden: usize) -> ParameterBuilder {
        let mut weights = self.weights.clone();
        match spec.head_reuse() {
            HeadReuse::Kept => weights = objective.normalize_head(weights),
            HeadReuse::Extended | HeadReuse::Fresh => {
                let is_extended = spec.head_reuse() == HeadReuse::Extended;
                // A head that does not fit is dropped.
                weights.retain(|name, _| is_extended || !name.starts_with(HEAD_PREFIX));
                self.pad_head(spec, hidden, &mut weights);
            }
        }
        ParameterBuilder::from_weights(weights)
    }

    /// Pads the tensors of the head with zeros to their shapes in this job.
    fn pad_head(&self, spec: &Spec, hidden: usize, weights: &mut BTreeMap<String, Tensor>) {
        let Some(outputs) = spec.task.head_outputs(&spec.labels) else { return };
        let mut pad = |layer: &str, outputs: usize| {
            for (suffix, shape) in [("weight", vec![outputs, hidden]), ("bias", vec![outputs])] {
                let name = format!("{layer}.{suffix}");
                let mut values = weights.remove(&name).map_or_else(Vec::new, |existing| existing.values);
                values.resize(shape.iter().product(), 0.0);
                weights.insert(name, Tensor::new(shape, values));
            }
        };
        pad(head::OUTPUT_LAYER, outputs);
        if spec.task.head_activation().is_some() {
            pad(head::DENSE_LAYER, hidden);
        }
    }

    /// Head with the adapter's rows for its labels, and the rows of a probe of all labels for the others.
    ///
    /// Adding the same row to all classes does not change the softmax, so two heads of the same classes may differ by such a row.
    /// Therefore the probe's rows are shifted by the mean difference of the known classes. Rows of label sets and values are not
    /// shifted.
    pub fn extend_head(&self, probe: LinearProbe, targets: &RowTargets, hidden: usize) -> LinearProbe {
        let known_labels = self.labels.len();
        let source_rows = |name: &str| self.weights.get(name).map_or(&[][..], |tensor| tensor.values.as_slice());
        let is_shift_invariant = targets.is_shift_invariant();
        let extend_rows = |own: &[f32], mut fitted: Vec<f32>, width: usize| {
            for column in 0..width {
                let differences =
                    (0..known_labels).map(|class| class * width + column).map(|at| f64::from(own[at] - fitted[at]));
                let shift = if is_shift_invariant { differences.sum::<f64>() / known_labels as f64 } else { 0.0 };
                fitted.iter_mut().skip(column).step_by(width).for_each(|value| *value += shift as f32);
            }
            fitted[..own.len()].copy_from_slice(own);
            fitted
        };
        LinearProbe {
            weight: extend_rows(source_rows(head::OUTPUT_WEIGHT), probe.weight, hidden),
            bias: extend_rows(source_rows(head::OUTPUT_BIAS), probe.bias, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::label_weights::LabelWeights;

    #[test]
    fn new_label_rows_keep_their_margin_to_the_old_ones() {
        let weights = [(head::OUTPUT_WEIGHT, vec![3.0, 1.0, 5.0, -1.0], 2), (head::OUTPUT_BIAS, vec![1.0, 2.0], 1)];
        let tensor = |(name, values, width): (&str, Vec<f32>, usize)| {
            let shape = if width == 1 { vec![2] } else { vec![2, width] };
            (name.to_string(), Tensor::new(shape, values))
        };
        let source = SourceWeights { labels: vec!["a".into(), "b".into()], weights: weights.map(tensor).into() };
        let fit = || LinearProbe { weight: vec![1.0, 0.0, 3.0, 0.0, 7.0, 7.0], bias: vec![0.0, 0.0, 4.0] };
        let classes = RowTargets::Classes { classes: vec![0, 1, 2], class_count: 3, weights: LabelWeights::default() };
        let extended = source.extend_head(fit(), &classes, 2);
        assert_eq!((extended.weight, extended.bias), (vec![3.0, 1.0, 5.0, -1.0, 9.0, 7.0], vec![1.0, 2.0, 5.5]));
        let sets = RowTargets::LabelSets {
            sets: vec![vec![0], vec![1], vec![2]],
            label_count: 3,
            weights: LabelWeights::default(),
        };
        let extended = source.extend_head(fit(), &sets, 2);
        assert_eq!((extended.weight[4..].to_vec(), extended.bias[2]), (vec![7.0, 7.0], 4.0));
    }
}

//! A job that starts from an adapter: what of it is taken over, and what of its head fits.
//!
//! An adapter is trained further in the form in which it was published: a prompt that a network once made is rows from
//! now on. Its own tensors are taken as they are, to the bit. Knows nothing of how adapters are named or read.

use super::Spec;
use super::spec::Request;
use crate::adapter::{Config, ParameterBuilder};
use crate::error::{Error, FieldError, Result};
use crate::model::{BaseModel, Pooling};
use crate::task::head_init::LinearProbe;
use crate::task::targets::Targets;
use crate::task::{self, RowSchema, head};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// The adapter that a job starts from, fixed when the job is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FromAdapter {
    /// sha256 over its files, hexadecimal.
    pub version: String,
    pub head: HeadReuse,
    /// Where the head starts afresh: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What becomes of the adapter's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadReuse {
    /// The task and the labels are the adapter's: so is the head.
    Kept,
    /// There are more labels: those that the adapter knows keep their rows, the others get them from a linear probe.
    Extended,
    /// The head does not fit, and starts as that of any new job.
    Fresh,
}

/// What a request's defaults are read off.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceAdapter {
    pub version: String,
    pub task: task::Config,
    pub method: Config,
    /// In the order of its head's rows.
    pub labels: Vec<String>,
    pub max_length: usize,
}

/// The tensors that a run starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceWeights {
    /// In the order of its head's rows.
    pub labels: Vec<String>,
    /// Adapter and head, as they were published.
    pub weights: BTreeMap<String, Tensor>,
}

/// Settings that speak of training alone: a job may have its own.
const TRAINING_ONLY_SETTINGS: [&str; 2] = ["dropout", "learning_rate_ratio"];

/// What the names of a head's tensors begin with.
const HEAD_PREFIX: &str = "head.";

/// Labels that a note names.
const MAX_NAMED_LABELS: usize = 5;

impl SourceAdapter {
    /// The request with what it leaves to the adapter.
    pub fn with_defaults(&self, request: &Request) -> Request {
        let mut filled = request.clone();
        filled.task.get_or_insert_with(|| self.task.clone());
        filled.hyperparameters.max_length.get_or_insert(u32::try_from(self.max_length).unwrap_or(u32::MAX));
        filled
    }

    /// The pooling that its head reads.
    pub fn pooling(&self, base: &BaseModel) -> Pooling {
        self.task.pooling().unwrap_or(base.info().default_pooling)
    }

    /// The adapter's method with the training settings of `asked`, which is resolved; every other difference is a fault.
    pub fn merge_method(
        &self,
        requested: &Config,
        base: &BaseModel,
        pooling: Pooling,
        errors: &mut Vec<FieldError>,
    ) -> Result<Config> {
        let own = match self.method.resolve(base, pooling) {
            Ok(resolved) => resolved,
            // As it was imported, and asked for so.
            Err(Error::Invalid(_)) => self.method.clone(),
            Err(other) => return Err(other),
        };
        let [Value::Object(adapter_settings), Value::Object(requested_settings)] = [json!(own), json!(requested)]
        else {
            return Err(Error::internal("a method is an object"));
        };
        let mut merged = json!(self.method);
        for field in adapter_settings.keys().chain(requested_settings.keys()).collect::<BTreeSet<_>>() {
            let (adapter_value, requested_value) = (adapter_settings.get(field), requested_settings.get(field));
            match (adapter_value == requested_value, TRAINING_ONLY_SETTINGS.contains(&field.as_str())) {
                (true, _) => {}
                (false, true) => merged[field] = json!(requested_value),
                (false, false) => {
                    let adapter_text = adapter_value.map_or_else(|| "nothing".to_string(), Value::to_string);
                    let message = format!(
                        "the adapter that the job starts from has the {field} {adapter_text}: leave \"method\" out, or train \
                         without \"from_adapter\""
                    );
                    errors.push(FieldError::at_pointer(format!("/method/{field}"), message));
                    // The settings of another method say no more.
                    if field == "type" {
                        errors.retain(|fault| {
                            fault.location == crate::error::Location::Pointer("/method/type".to_string())
                        });
                        break;
                    }
                }
            }
        }
        Ok(serde_json::from_value(merged).unwrap_or_else(|_| self.method.clone()))
    }

    /// What of the head fits a job of this task, whose pooling is written out, and of these labels, sorted; and the order
    /// of the job's labels.
    pub fn head_reuse(
        &self,
        task: &task::Config,
        base: &BaseModel,
        labels: Vec<String>,
    ) -> (Option<FromAdapter>, Vec<String>) {
        let from_adapter = |head, note| Some(FromAdapter { version: self.version.clone(), head, note });
        let adapter_task = self.task.clone().with_pooling(self.pooling(base));
        if adapter_task.head_outputs(&[]).is_none() && task.head_outputs(&[]).is_none() {
            // Neither has a head.
            return (from_adapter(HeadReuse::Kept, None), labels);
        }
        if adapter_task != *task {
            let note = format!("the adapter's task is {}, the job's is {}", json!(adapter_task), json!(task));
            return (from_adapter(HeadReuse::Fresh, Some(note)), labels);
        }
        let missing: Vec<&String> = self.labels.iter().filter(|label| labels.binary_search(label).is_err()).collect();
        if !missing.is_empty() {
            let listed =
                missing.iter().take(MAX_NAMED_LABELS).map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
            let count = missing.len();
            let note = format!("the dataset has no example of {count} of the adapter's labels, such as {listed}");
            return (from_adapter(HeadReuse::Fresh, Some(note)), labels);
        }
        let adapter_labels: BTreeSet<&String> = self.labels.iter().collect();
        let new_labels: Vec<String> = labels.into_iter().filter(|label| !adapter_labels.contains(label)).collect();
        let reuse = if new_labels.is_empty() { HeadReuse::Kept } else { HeadReuse::Extended };
        (from_adapter(reuse, None), self.labels.iter().cloned().chain(new_labels).collect())
    }
}

impl SourceWeights {
    /// All tensors of a run that starts from it; what the head is to learn first is zero.
    pub fn initial_parameters(&self, spec: &Spec, targets: &Targets, hidden: usize) -> ParameterBuilder {
        let mut weights = self.weights.clone();
        match spec.head_reuse() {
            HeadReuse::Kept => weights = targets.normalize_head(weights),
            HeadReuse::Extended | HeadReuse::Fresh => {
                let is_extended = spec.head_reuse() == HeadReuse::Extended;
                // Of a head that does not fit nothing is left.
                weights.retain(|name, _| is_extended || !name.starts_with(HEAD_PREFIX));
                self.pad_head(spec, hidden, &mut weights);
            }
        }
        ParameterBuilder::from_weights(weights)
    }

    /// With zeros where the head has no numbers yet.
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

    /// The adapter's own rows before those of a probe of all labels.
    ///
    /// What all of a class's rivals share changes no probability, so two heads of the same classes may differ by a row that
    /// is added to every class. The probe's rows are moved by the mean difference on the classes that both know; labels
    /// of sets are judged each for itself, and theirs stay where they are.
    pub fn extend_head(&self, probe: LinearProbe, targets: &Targets, hidden: usize) -> LinearProbe {
        let known_labels = self.labels.len();
        let source_rows = |name: &str| self.weights.get(name).map_or(&[][..], |tensor| tensor.values.as_slice());
        let is_shift_invariant = matches!(targets, Targets::Classes { .. });
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

/// What a job's task is where only its data and the adapter say it.
pub fn resolve_task(source_adapter: &SourceAdapter, row_schema: RowSchema) -> task::Config {
    match source_adapter.task.row_schemas().contains(&row_schema) {
        true => source_adapter.task.clone(),
        false => row_schema.default_task(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_label_rows_keep_their_margin_to_the_old_ones() {
        let weights = [(head::OUTPUT_WEIGHT, vec![3.0, 1.0, 5.0, -1.0], 2), (head::OUTPUT_BIAS, vec![1.0, 2.0], 1)];
        let tensor = |(name, values, width): (&str, Vec<f32>, usize)| {
            let shape = if width == 1 { vec![2] } else { vec![2, width] };
            (name.to_string(), Tensor::new(shape, values))
        };
        let source = SourceWeights { labels: vec!["a".into(), "b".into()], weights: weights.map(tensor).into() };
        let fit = || LinearProbe { weight: vec![1.0, 0.0, 3.0, 0.0, 7.0, 7.0], bias: vec![0.0, 0.0, 4.0] };
        let classes = Targets::Classes { classes: vec![0, 1, 2], class_count: 3 };
        let extended = source.extend_head(fit(), &classes, 2);
        assert_eq!((extended.weight, extended.bias), (vec![3.0, 1.0, 5.0, -1.0, 9.0, 7.0], vec![1.0, 2.0, 5.5]));
        let sets = Targets::LabelSets { sets: vec![vec![0], vec![1], vec![2]], label_count: 3 };
        let extended = source.extend_head(fit(), &sets, 2);
        assert_eq!((extended.weight[4..].to_vec(), extended.bias[2]), (vec![7.0, 7.0], 4.0));
    }
}

//! A job that starts from an adapter: what of it is taken over, and what of its head fits.
//!
//! An adapter is trained further in the form in which it was published: a prompt that a network once made is rows from
//! now on. Its own tensors are taken as they are, to the bit. Knows nothing of how adapters are named or read.

use super::Spec;
use super::spec::Request;
use crate::adapter::{Config, Parameters};
use crate::error::{Error, Fault, Result};
use crate::model::{Base, Pooling};
use crate::task::start::Fit;
use crate::task::targets::Targets;
use crate::task::{self, Shape, head};
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
    pub head: HeadStart,
    /// Where the head starts afresh: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What becomes of the adapter's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadStart {
    /// The task and the labels are the adapter's: so is the head.
    Kept,
    /// There are more labels: those that the adapter knows keep their rows, the others get them from a linear probe.
    Extended,
    /// The head does not fit, and starts as that of any new job.
    Fresh,
}

/// What a request's defaults are read off.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub version: String,
    pub task: task::Config,
    pub method: Config,
    /// In the order of its head's rows.
    pub labels: Vec<String>,
    pub max_length: usize,
}

/// The tensors that a run starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// In the order of its head's rows.
    pub labels: Vec<String>,
    /// Adapter and head, as they were published.
    pub weights: BTreeMap<String, Tensor>,
}

/// Settings that speak of training alone: a job may have its own.
const FREE: [&str; 2] = ["dropout", "learning_rate_ratio"];

/// What the names of a head's tensors begin with.
const HEAD: &str = "head.";

/// Labels that a note names.
const NAMED: usize = 5;

impl Origin {
    /// The request with what it leaves to the adapter.
    pub fn fill(&self, request: &Request) -> Request {
        let mut filled = request.clone();
        filled.task.get_or_insert_with(|| self.task.clone());
        filled.hyperparameters.max_length.get_or_insert(u32::try_from(self.max_length).unwrap_or(u32::MAX));
        filled
    }

    /// The pooling that its head reads.
    pub fn pooling(&self, base: &Base) -> Pooling {
        self.task.pooling().unwrap_or(base.info().default_pooling)
    }

    /// The adapter's method with the training settings of `asked`, which is resolved; every other difference is a fault.
    pub fn method(&self, asked: &Config, base: &Base, pooling: Pooling, faults: &mut Vec<Fault>) -> Result<Config> {
        let own = match self.method.resolve(base, pooling) {
            Ok(resolved) => resolved,
            // As it was imported, and asked for so.
            Err(Error::Invalid(_)) => self.method.clone(),
            Err(other) => return Err(other),
        };
        let [Value::Object(own), Value::Object(asked)] = [json!(own), json!(asked)] else {
            return Err(Error::internal("a method is an object"));
        };
        let mut joined = json!(self.method);
        for field in own.keys().chain(asked.keys()).collect::<BTreeSet<_>>() {
            let (ours, theirs) = (own.get(field), asked.get(field));
            match (ours == theirs, FREE.contains(&field.as_str())) {
                (true, _) => {}
                (false, true) => joined[field] = json!(theirs),
                (false, false) => {
                    let said = ours.map_or_else(|| "nothing".to_string(), Value::to_string);
                    let message = format!(
                        "the adapter that the job starts from has the {field} {said}: leave \"method\" out, or train \
                         without \"from_adapter\""
                    );
                    faults.push(Fault::at_pointer(format!("/method/{field}"), message));
                    // The settings of another method say no more.
                    if field == "type" {
                        faults.retain(|fault| fault.place == crate::error::Place::Pointer("/method/type".to_string()));
                        break;
                    }
                }
            }
        }
        Ok(serde_json::from_value(joined).unwrap_or_else(|_| self.method.clone()))
    }

    /// What of the head fits a job of this task, whose pooling is written out, and of these labels, sorted; and the order
    /// of the job's labels.
    pub fn head(&self, task: &task::Config, base: &Base, labels: Vec<String>) -> (Option<FromAdapter>, Vec<String>) {
        let start = |head, note| Some(FromAdapter { version: self.version.clone(), head, note });
        let own = self.task.clone().with_pooling(self.pooling(base));
        if own.outputs(&[]).is_none() && task.outputs(&[]).is_none() {
            // Neither has a head.
            return (start(HeadStart::Kept, None), labels);
        }
        if own != *task {
            let note = format!("the adapter's task is {}, the job's is {}", json!(own), json!(task));
            return (start(HeadStart::Fresh, Some(note)), labels);
        }
        let missing: Vec<&String> = self.labels.iter().filter(|label| labels.binary_search(label).is_err()).collect();
        if !missing.is_empty() {
            let named = missing.iter().take(NAMED).map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
            let count = missing.len();
            let note = format!("the dataset has no example of {count} of the adapter's labels, such as {named}");
            return (start(HeadStart::Fresh, Some(note)), labels);
        }
        let known: BTreeSet<&String> = self.labels.iter().collect();
        let new: Vec<String> = labels.into_iter().filter(|label| !known.contains(label)).collect();
        let head = if new.is_empty() { HeadStart::Kept } else { HeadStart::Extended };
        (start(head, None), self.labels.iter().cloned().chain(new).collect())
    }
}

impl Source {
    /// All tensors of a run that starts from it; what the head is to learn first is zero.
    pub fn parameters(&self, spec: &Spec, targets: &Targets, hidden: usize) -> Parameters {
        let mut weights = self.weights.clone();
        match spec.head_start() {
            HeadStart::Kept => weights = targets.in_learned_units(weights),
            HeadStart::Extended | HeadStart::Fresh => {
                let extends = spec.head_start() == HeadStart::Extended;
                // Of a head that does not fit nothing is left.
                weights.retain(|name, _| extends || !name.starts_with(HEAD));
                self.fill_head(spec, hidden, &mut weights);
            }
        }
        Parameters::restore(weights)
    }

    /// With zeros where the head has no numbers yet.
    fn fill_head(&self, spec: &Spec, hidden: usize, weights: &mut BTreeMap<String, Tensor>) {
        let Some(outputs) = spec.task.outputs(&spec.labels) else { return };
        let mut fill = |layer: &str, outputs: usize| {
            for (end, shape) in [("weight", vec![outputs, hidden]), ("bias", vec![outputs])] {
                let name = format!("{layer}.{end}");
                let mut values = weights.remove(&name).map_or_else(Vec::new, |own| own.values);
                values.resize(shape.iter().product(), 0.0);
                weights.insert(name, Tensor::new(shape, values));
            }
        };
        fill(head::NAME, outputs);
        if spec.task.dense().is_some() {
            fill(head::DENSE, hidden);
        }
    }

    /// The adapter's own rows before those of a probe of all labels.
    ///
    /// What all of a class's rivals share changes no probability, so two heads of the same classes may differ by a row that
    /// is added to every class. The probe's rows are moved by the mean difference on the classes that both know; labels
    /// of sets are judged each for itself, and theirs stay where they are.
    pub fn extend(&self, fit: Fit, targets: &Targets, hidden: usize) -> Fit {
        let known = self.labels.len();
        let rows = |name: &str| self.weights.get(name).map_or(&[][..], |tensor| tensor.values.as_slice());
        let is_shared = matches!(targets, Targets::Classes { .. });
        let extended = |own: &[f32], mut fitted: Vec<f32>, width: usize| {
            for column in 0..width {
                let differences =
                    (0..known).map(|class| class * width + column).map(|at| f64::from(own[at] - fitted[at]));
                let shift = if is_shared { differences.sum::<f64>() / known as f64 } else { 0.0 };
                fitted.iter_mut().skip(column).step_by(width).for_each(|value| *value += shift as f32);
            }
            fitted[..own.len()].copy_from_slice(own);
            fitted
        };
        Fit { weight: extended(rows(head::WEIGHT), fit.weight, hidden), bias: extended(rows(head::BIAS), fit.bias, 1) }
    }
}

/// What a job's task is where only its data and the adapter say it.
pub fn task(origin: &Origin, data: Shape) -> task::Config {
    match origin.task.shapes().contains(&data) {
        true => origin.task.clone(),
        false => data.task(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_labels_are_judged_beside_the_old_ones_as_the_probe_judged_them() {
        let weights = [(head::WEIGHT, vec![3.0, 1.0, 5.0, -1.0], 2), (head::BIAS, vec![1.0, 2.0], 1)];
        let tensor = |(name, values, width): (&str, Vec<f32>, usize)| {
            let shape = if width == 1 { vec![2] } else { vec![2, width] };
            (name.to_string(), Tensor::new(shape, values))
        };
        let source = Source { labels: vec!["a".into(), "b".into()], weights: weights.map(tensor).into() };
        let fit = || Fit { weight: vec![1.0, 0.0, 3.0, 0.0, 7.0, 7.0], bias: vec![0.0, 0.0, 4.0] };
        let classes = Targets::Classes { classes: vec![0, 1, 2], count: 3 };
        let found = source.extend(fit(), &classes, 2);
        assert_eq!((found.weight, found.bias), (vec![3.0, 1.0, 5.0, -1.0, 9.0, 7.0], vec![1.0, 2.0, 5.5]));
        let sets = Targets::Sets { sets: vec![vec![0], vec![1], vec![2]], count: 3 };
        let found = source.extend(fit(), &sets, 2);
        assert_eq!((found.weight[4..].to_vec(), found.bias[2]), (vec![7.0, 7.0], 4.0));
    }
}

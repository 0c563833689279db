//! Targets of examples: names become numbers.

use super::{Scale, Targets};
use crate::error::{Error, Result};
use crate::task::{Config, Example, Target, embedding};
use std::collections::BTreeMap;

impl Targets {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose label the job does not have, or that is not one of the task.
    pub fn new(task: &Config, labels: &[String], examples: &[&Example]) -> Result<Self> {
        let labels = Labels::of(labels);
        let count = labels.known.len();
        let other = |example: &Example| {
            let detail = format!("the example in line {} is not one of the task {}", example.line, task.name());
            Error::invalid("unknown_label", detail)
        };
        Ok(match task {
            Config::SequenceClassification(config) if config.multi_label => {
                let set = |example: &&Example| match &example.target {
                    Target::Labels(names) => labels.set(names, example.line),
                    _ => Err(other(example)),
                };
                Self::Sets { sets: each(examples, set)?, count }
            }
            Config::SequenceClassification(_) => {
                let one = |example: &&Example| match &example.target {
                    Target::Label(label) => labels.number(label, example.line),
                    _ => Err(other(example)),
                };
                Self::Classes { classes: each(examples, one)?, count }
            }
            Config::Regression(_) => {
                let value = |example: &&Example| match example.target {
                    Target::Value(value) => Ok(value as f32),
                    _ => Err(other(example)),
                };
                Self::Values { values: each(examples, value)?, scale: Scale::PLAIN }
            }
            Config::TokenClassification(_) => {
                let tags = |example: &&Example| match &example.target {
                    Target::Tags { tags, .. } => tags.iter().map(|tag| labels.number(tag, example.line)).collect(),
                    _ => Err(other(example)),
                };
                let tags: Vec<Vec<u32>> = each(examples, tags)?;
                Self::Tags { read: tags.iter().map(Vec::len).collect(), tags, count }
            }
            Config::MaskedLanguageModel(_) | Config::CausalLanguageModel(_) => {
                Self::Words { counts: vec![0; examples.len()] }
            }
            Config::Preference(config) => Self::Preferred {
                lengths: vec![[0; 2]; examples.len()],
                reference: vec![[0.0; 2]; examples.len()],
                config: config.clone(),
            },
            Config::Embedding(config) if config.loss == Some(embedding::Loss::Cosine) => {
                let score = |example: &&Example| match example.target {
                    Target::Score(score) => Ok(score as f32),
                    _ => Err(other(example)),
                };
                Self::Scores { scores: each(examples, score)?, scale: Scale::PLAIN }
            }
            Config::Embedding(_) => Self::ranked(numbered(examples, other)?),
        })
    }
}

/// Every text of the examples by its number, equal ones by the same.
fn numbered(examples: &[&Example], other: impl Fn(&Example) -> Error) -> Result<Vec<Vec<u32>>> {
    let mut numbers = BTreeMap::new();
    let mut number = |text: &str| {
        let next = numbers.len() as u32;
        *numbers.entry(text.to_string()).or_insert(next)
    };
    let mut texts = Vec::with_capacity(examples.len());
    for example in examples {
        let Target::Positive { positive, negative } = &example.target else { return Err(other(example)) };
        let all = [example.text.as_str(), positive].into_iter().chain(negative.as_deref());
        texts.push(all.map(&mut number).collect());
    }
    Ok(texts)
}

fn each<T>(examples: &[&Example], of: impl FnMut(&&Example) -> Result<T>) -> Result<Vec<T>> {
    examples.iter().map(of).collect()
}

/// Their numbers by name.
struct Labels<'a> {
    known: BTreeMap<&'a str, u32>,
}

impl<'a> Labels<'a> {
    fn of(labels: &'a [String]) -> Self {
        Self { known: labels.iter().map(String::as_str).zip(0..).collect() }
    }

    fn number(&self, label: &str, line: u64) -> Result<u32> {
        self.known.get(label).copied().ok_or_else(|| {
            let detail = format!("the label \"{label}\" in line {line} is not among the job's labels");
            Error::invalid("unknown_label", detail)
        })
    }

    /// Sorted.
    fn set(&self, labels: &[String], line: u64) -> Result<Vec<u32>> {
        let mut set: Vec<u32> = labels.iter().map(|label| self.number(label, line)).collect::<Result<_>>()?;
        set.sort_unstable();
        set.dedup();
        Ok(set)
    }
}

//! Targets of examples: names become numbers.

use super::{Scale, Targets};
use crate::error::{Error, Result};
use crate::task::{Config, Example, Target, embedding};
use std::collections::BTreeMap;

impl Targets {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose label the job does not have, or that is not one of the task.
    pub fn new(task: &Config, labels: &[String], examples: &[&Example]) -> Result<Self> {
        let labels = LabelIds::new(labels);
        let count = labels.ids.len();
        let wrong_target = |example: &Example| {
            let detail = format!("the example in line {} is not one of the task {}", example.line, task.type_name());
            Error::invalid("unknown_label", detail)
        };
        Ok(match task {
            Config::SequenceClassification(config) if config.multi_label => {
                let label_set = |example: &&Example| match &example.target {
                    Target::MultiLabel(names) => labels.id_set(names, example.line),
                    _ => Err(wrong_target(example)),
                };
                Self::LabelSets { sets: try_map(examples, label_set)?, label_count: count }
            }
            Config::SequenceClassification(_) => {
                let class = |example: &&Example| match &example.target {
                    Target::Label(label) => labels.id(label, example.line),
                    _ => Err(wrong_target(example)),
                };
                Self::Classes { classes: try_map(examples, class)?, class_count: count }
            }
            Config::Regression(_) => {
                let value = |example: &&Example| match example.target {
                    Target::Value(value) => Ok(value as f32),
                    _ => Err(wrong_target(example)),
                };
                Self::Values { values: try_map(examples, value)?, scale: Scale::IDENTITY }
            }
            Config::TokenClassification(_) => {
                let tags = |example: &&Example| match &example.target {
                    Target::Tags { tags, .. } => tags.iter().map(|tag| labels.id(tag, example.line)).collect(),
                    _ => Err(wrong_target(example)),
                };
                let tags: Vec<Vec<u32>> = try_map(examples, tags)?;
                Self::Tags { word_counts: tags.iter().map(Vec::len).collect(), tags, tag_count: count }
            }
            Config::MaskedLanguageModel(_) | Config::CausalLanguageModel(_) => {
                Self::LmTokens { token_counts: vec![0; examples.len()] }
            }
            Config::Preference(config) => Self::PreferencePairs {
                answer_lengths: vec![[0; 2]; examples.len()],
                reference_logprobs: vec![[0.0; 2]; examples.len()],
                config: config.clone(),
            },
            Config::Embedding(config) if config.loss == Some(embedding::Loss::Cosine) => {
                let score = |example: &&Example| match example.target {
                    Target::Score(score) => Ok(score as f32),
                    _ => Err(wrong_target(example)),
                };
                Self::SimilarityScores { scores: try_map(examples, score)?, scale: Scale::IDENTITY }
            }
            Config::Embedding(_) => Self::contrastive(text_ids(examples, wrong_target)?),
        })
    }
}

/// Every text of the examples by its number, equal ones by the same.
fn text_ids(examples: &[&Example], wrong_target: impl Fn(&Example) -> Error) -> Result<Vec<Vec<u32>>> {
    let mut ids = BTreeMap::new();
    let mut id_of = |text: &str| {
        let next = ids.len() as u32;
        *ids.entry(text.to_string()).or_insert(next)
    };
    let mut texts = Vec::with_capacity(examples.len());
    for example in examples {
        let Target::Positive { positive, negative } = &example.target else { return Err(wrong_target(example)) };
        let texts_of_example = [example.text.as_str(), positive].into_iter().chain(negative.as_deref());
        texts.push(texts_of_example.map(&mut id_of).collect());
    }
    Ok(texts)
}

fn try_map<T>(examples: &[&Example], of: impl FnMut(&&Example) -> Result<T>) -> Result<Vec<T>> {
    examples.iter().map(of).collect()
}

/// Their numbers by name.
struct LabelIds<'a> {
    ids: BTreeMap<&'a str, u32>,
}

impl<'a> LabelIds<'a> {
    fn new(labels: &'a [String]) -> Self {
        Self { ids: labels.iter().map(String::as_str).zip(0..).collect() }
    }

    fn id(&self, label: &str, line: u64) -> Result<u32> {
        self.ids.get(label).copied().ok_or_else(|| {
            let detail = format!("the label \"{label}\" in line {line} is not among the job's labels");
            Error::invalid("unknown_label", detail)
        })
    }

    /// Sorted.
    fn id_set(&self, labels: &[String], line: u64) -> Result<Vec<u32>> {
        let mut set: Vec<u32> = labels.iter().map(|label| self.id(label, line)).collect::<Result<_>>()?;
        set.sort_unstable();
        set.dedup();
        Ok(set)
    }
}

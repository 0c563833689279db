//! A job's examples, tokenised once and cut into training and validation.

use super::run::Halt;
use super::speaker::Speaker;
use super::{Data, Spec, Validation, order};
use crate::error::{Error, Result};
use crate::model::{Base, Tokens};
use crate::task::{Example, Target};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Training examples first, then those of a validation dataset; everything else names them by index.
pub struct Prepared {
    pub tokens: Arc<Vec<Arc<Tokens>>>,
    pub lengths: Arc<Vec<usize>>,
    pub classes: Arc<Vec<u32>>,
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
    /// A few examples for the adapter's probe.
    pub probe: Vec<Example>,
}

/// Two texts, the shortest of so many: the probe is replayed whenever the adapter is loaded, and somebody waits for it.
const PROBES: usize = 2;
const PROBED: usize = 64;

/// Examples tokenised between two looks at whether to stop: some milliseconds.
const LISTEN_EVERY: usize = 64;

impl Prepared {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose label the specification does not have.
    pub fn new(base: &Base, spec: &Spec, data: &Data, speaker: &mut Speaker) -> Result<Self, Halt> {
        let known: BTreeMap<&str, u32> = spec.labels.iter().map(String::as_str).zip(0..).collect();
        let examples: Vec<&Example> = data.examples.iter().chain(data.validation.iter().flatten()).collect();
        let classes: Vec<u32> = examples.iter().map(|example| class(&known, example)).collect::<Result<_>>()?;
        let max_length = spec.hyperparameters.max_length as usize;
        let mut tokens: Vec<Arc<Tokens>> = Vec::with_capacity(examples.len());
        for (index, example) in examples.iter().enumerate() {
            if index.is_multiple_of(LISTEN_EVERY) {
                speaker.listen()?;
            }
            let encoded = base.tokenizer().encode(&example.text, example.text_pair.as_deref(), max_length)?;
            tokens.push(Arc::new(encoded));
        }
        let split = split(spec, data, &classes);
        let probed = if split.validation.is_empty() { &split.training } else { &split.validation };
        Ok(Self {
            probe: probe(probed, &tokens).into_iter().map(|index| examples[index].clone()).collect(),
            lengths: Arc::new(tokens.iter().map(|tokens| tokens.ids.len()).collect()),
            tokens: Arc::new(tokens),
            classes: Arc::new(classes),
            training: split.training,
            validation: split.validation,
        })
    }
}

fn probe(examples: &[usize], tokens: &[Arc<Tokens>]) -> Vec<usize> {
    let mut first: Vec<usize> = examples.iter().copied().take(PROBED).collect();
    first.sort_by_key(|index| tokens[*index].ids.len());
    first.truncate(PROBES);
    first
}

fn split(spec: &Spec, data: &Data, classes: &[u32]) -> order::Split {
    let own = data.examples.len();
    match (&data.validation, &spec.validation) {
        (None, Validation::Fraction(fraction)) => {
            order::split(classes, spec.labels.len(), *fraction, spec.hyperparameters.seed)
        }
        _ => order::Split { training: (0..own).collect(), validation: (own..classes.len()).collect() },
    }
}

fn class(known: &BTreeMap<&str, u32>, example: &Example) -> Result<u32> {
    let Target::Label(label) = &example.target;
    known.get(label.as_str()).copied().ok_or_else(|| {
        let detail = format!("the label \"{label}\" in line {} is not among the job's labels", example.line);
        Error::invalid("unknown_label", detail)
    })
}

//! A job's examples, tokenised once and cut into training and validation.

use super::hiding::Hiding;
use super::run::Halt;
use super::speaker::Speaker;
use super::{Data, Spec, Validation, order};
use crate::error::Result;
use crate::model::{Base, Tokens};
use crate::task::Example;
use crate::task::targets::Targets;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Training examples first, then those of a validation dataset; everything else names them by index.
#[derive(Clone)]
pub struct Prepared {
    /// The sequences of each.
    pub tokens: Arc<Vec<Vec<Arc<Tokens>>>>,
    /// In tokens, virtual ones included.
    pub lengths: Arc<Vec<usize>>,
    pub targets: Arc<Targets>,
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
    /// A few examples for the adapter's probe.
    pub probe: Vec<Example>,
    /// Where tokens are hidden.
    pub hiding: Option<Hiding>,
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
        let examples: Vec<&Example> = data.examples.iter().chain(data.validation.iter().flatten()).collect();
        let targets = Targets::new(&spec.task, &spec.labels, &examples)?;
        let max_length = spec.hyperparameters.max_length as usize;
        let mut tokens: Vec<Vec<Arc<Tokens>>> = Vec::with_capacity(examples.len());
        for (index, example) in examples.iter().enumerate() {
            if index.is_multiple_of(LISTEN_EVERY) {
                speaker.listen()?;
            }
            let sequences = spec.task.sequences(base.tokenizer(), example, max_length)?;
            tokens.push(sequences.into_iter().map(Arc::new).collect());
        }
        let hiding = Hiding::of(base, spec);
        let read = |one: &Arc<Tokens>| hiding.as_ref().map_or(one.picked.len(), |hiding| hiding.count(one));
        let targets = targets.cut(tokens.iter().map(|sequences| sequences.iter().map(read).sum()));
        let split = split(spec, data, &targets);
        let targets = targets.scaled_by(&split.training);
        let probed = if split.validation.is_empty() { &split.training } else { &split.validation };
        Ok(Self {
            probe: probe(probed, &tokens).into_iter().map(|index| examples[index].clone()).collect(),
            lengths: lengths(&tokens, spec),
            tokens: Arc::new(tokens),
            targets: Arc::new(targets),
            training: split.training,
            validation: split.validation,
            hiding,
        })
    }

    /// The same examples for another method, all else being equal.
    pub fn under(&self, spec: &Spec) -> Self {
        Self { lengths: lengths(&self.tokens, spec), ..self.clone() }
    }
}

fn lengths(tokens: &[Vec<Arc<Tokens>>], spec: &Spec) -> Arc<Vec<usize>> {
    Arc::new(tokens.iter().map(|sequences| length(sequences, spec.method.virtual_tokens())).collect())
}

/// Of all sequences of an example, each with its virtual tokens.
fn length(sequences: &[Arc<Tokens>], virtual_tokens: usize) -> usize {
    sequences.iter().map(|tokens| tokens.ids.len() + virtual_tokens).sum()
}

fn probe(examples: &[usize], tokens: &[Vec<Arc<Tokens>>]) -> Vec<usize> {
    let mut first: Vec<usize> = examples.iter().copied().take(PROBED).collect();
    first.sort_by_key(|index| length(&tokens[*index], 0));
    // Texts that a base reads alike prove nothing beside each other.
    let mut seen = BTreeSet::new();
    first.retain(|index| seen.insert(tokens[*index].iter().map(|one| one.ids.clone()).collect::<Vec<_>>()));
    first.truncate(PROBES);
    first
}

fn split(spec: &Spec, data: &Data, targets: &Targets) -> order::Split {
    let own = data.examples.len();
    match (&data.validation, &spec.validation) {
        (None, Validation::Fraction(fraction)) => {
            let (strata, count) = targets.strata();
            order::split(&strata, count, *fraction, spec.hyperparameters.seed)
        }
        _ => order::Split { training: (0..own).collect(), validation: (own..targets.len()).collect() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_of_short_texts_that_are_read_differently() {
        let text = |ids: &[u32]| vec![Arc::new(Tokens::whole(ids.to_vec()))];
        let tokens = [text(&[1, 2, 3]), text(&[1]), text(&[2]), text(&[1]), text(&[4, 5])];
        assert_eq!(probe(&[0, 1, 2, 3, 4], &tokens), [1, 2]);
        assert_eq!(probe(&[3, 1, 0], &tokens), [3, 0]);
        assert_eq!(probe(&[3, 1], &tokens), [3]);
    }
}

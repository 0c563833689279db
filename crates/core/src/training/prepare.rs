//! A job's examples, tokenised once and cut into training and validation.

use super::asked::Asked;
use super::packing;
use super::run::Halt;
use super::speaker::Speaker;
use super::{Data, Spec, Validation, order};
use crate::error::{Error, Result};
use crate::model::{Base, Tokens};
use crate::task::targets::Targets;
use crate::task::{Example, Target};
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
    /// What a language model is to find.
    pub asked: Option<Asked>,
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
        let asked = Asked::of(base, spec);
        let mut reading = Reading { base, spec, asked: asked.as_ref(), speaker };
        let mut items = reading.items(&data.examples)?;
        let own = items.len();
        items.extend(reading.items(data.validation.as_deref().unwrap_or_default())?);
        if own == 0 && !data.examples.is_empty() {
            let detail =
                "no row of the dataset teaches anything within `max_length` tokens: raise it, or shorten the prompts";
            return Err(Error::invalid("nothing_to_learn", detail).into());
        }
        let (examples, tokens): (Vec<&Example>, Vec<Vec<Arc<Tokens>>>) = items.into_iter().unzip();
        let targets = Targets::new(&spec.task, &spec.labels, &examples)?;
        let read = |one: &Arc<Tokens>| asked.as_ref().map_or(one.picked.len(), |asked| asked.count(one));
        let answers = tokens.iter().map(|sequences| {
            let spoken = |index: usize| sequences.get(index).map_or(0, |one| one.picked.len());
            [spoken(0), spoken(1)]
        });
        let targets = targets.spoken(answers);
        let targets = targets.cut(tokens.iter().map(|sequences| sequences.iter().map(read).sum()));
        let split = split(spec, data, own, &targets);
        let targets = targets.scaled_by(&split.training);
        let probed = if split.validation.is_empty() { &split.training } else { &split.validation };
        Ok(Self {
            probe: probe(probed, &tokens).into_iter().map(|index| examples[index].clone()).collect(),
            lengths: lengths(&tokens, spec),
            tokens: Arc::new(tokens),
            targets: Arc::new(targets),
            training: split.training,
            validation: split.validation,
            asked,
        })
    }

    /// The same examples for another method, all else being equal.
    pub fn under(&self, spec: &Spec) -> Self {
        Self { lengths: lengths(&self.tokens, spec), ..self.clone() }
    }
}

/// An example with its sequences.
type Item<'a> = (&'a Example, Vec<Arc<Tokens>>);

/// What it takes to read examples.
struct Reading<'a, 'b> {
    base: &'a Base,
    spec: &'a Spec,
    asked: Option<&'a Asked>,
    speaker: &'a mut Speaker<'b>,
}

impl Reading<'_, '_> {
    /// All that teach something: rows of which nothing can be learned were skipped with a warning when the data was checked.
    fn items<'e>(&mut self, examples: &'e [Example]) -> Result<Vec<Item<'e>>, Halt> {
        let max_length = self.spec.hyperparameters.max_length as usize;
        let mut items: Vec<Item> = Vec::with_capacity(examples.len());
        for (index, example) in examples.iter().enumerate() {
            if index.is_multiple_of(LISTEN_EVERY) {
                self.speaker.listen()?;
            }
            let sequences = self.spec.task.sequences(self.base.tokenizer(), example, max_length);
            let sequences = match (sequences, self.asked) {
                (Ok(sequences), Some(asked)) if asked.check(&example.target, &sequences).is_ok() => sequences,
                (Ok(_) | Err(Error::Invalid(_)), Some(_)) => continue,
                (sequences, _) => sequences?,
            };
            items.push((example, sequences.into_iter().map(Arc::new).collect()));
        }
        let is_plain = |(example, _): &Item| example.target == Target::Text;
        Ok(match matches!(self.asked, Some(Asked::Next)) && items.iter().all(is_plain) {
            true => packing::packed(items, max_length),
            false => items,
        })
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

fn split(spec: &Spec, data: &Data, own: usize, targets: &Targets) -> order::Split {
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

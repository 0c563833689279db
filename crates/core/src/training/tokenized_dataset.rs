//! A job's examples, tokenised once and cut into training and validation.

use super::lm_labels::LmLabels;
use super::packing;
use super::progress_reporter::ProgressReporter;
use super::trainer::Interrupted;
use super::{Spec, TrainingData, Validation, batching};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Tokens};
use crate::task::targets::Targets;
use crate::task::{Example, Target, UntrainableRows};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Training examples first, then those of a validation dataset; everything else names them by index.
#[derive(Clone)]
pub struct TokenizedDataset {
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
    pub lm_labels: Option<LmLabels>,
}

/// Two texts, the shortest of so many: the probe is replayed whenever the adapter is loaded, and somebody waits for it.
const PROBE_EXAMPLES: usize = 2;
const PROBE_CANDIDATES: usize = 64;

/// Examples tokenised between two looks at whether to stop: some milliseconds.
const STOP_CHECK_INTERVAL: usize = 64;

impl TokenizedDataset {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose label the specification does not have.
    pub fn new(
        base: &BaseModel,
        spec: &Spec,
        data: &TrainingData,
        reporter: &mut ProgressReporter,
    ) -> Result<Self, Interrupted> {
        let lm_labels = LmLabels::for_task(base, spec);
        let mut tokenizer = DatasetTokenizer { base, spec, reporter };
        let mut items = tokenizer.tokenize(&data.examples)?;
        let training_count = items.len();
        items.extend(tokenizer.tokenize(data.validation.as_deref().unwrap_or_default())?);
        if training_count == 0 && !data.examples.is_empty() {
            let detail =
                "no row of the dataset teaches anything within `max_length` tokens: raise it, or shorten the prompts";
            return Err(Error::invalid("nothing_to_learn", detail).into());
        }
        let (examples, tokens): (Vec<&Example>, Vec<Vec<Arc<Tokens>>>) = items.into_iter().unzip();
        let targets = Targets::new(&spec.task, &spec.labels, &examples)?;
        let target_count =
            |one: &Arc<Tokens>| lm_labels.as_ref().map_or(one.target_positions.len(), |asked| asked.target_count(one));
        let answer_lengths = tokens.iter().map(|sequences| {
            let answer_length = |index: usize| sequences.get(index).map_or(0, |one| one.target_positions.len());
            [answer_length(0), answer_length(1)]
        });
        let targets = targets.with_answer_lengths(answer_lengths);
        let targets = targets.truncate(tokens.iter().map(|sequences| sequences.iter().map(target_count).sum()));
        let split = train_validation_split(spec, data, training_count, &targets);
        let targets = targets.with_fitted_scale(&split.training);
        let probe_split = if split.validation.is_empty() { &split.training } else { &split.validation };
        Ok(Self {
            probe: select_probe(probe_split, &tokens).into_iter().map(|index| examples[index].clone()).collect(),
            lengths: example_lengths(&tokens, spec),
            tokens: Arc::new(tokens),
            targets: Arc::new(targets),
            training: split.training,
            validation: split.validation,
            lm_labels,
        })
    }

    /// The same examples for another method, all else being equal.
    pub fn for_method(&self, spec: &Spec) -> Self {
        Self { lengths: example_lengths(&self.tokens, spec), ..self.clone() }
    }
}

/// An example with its sequences.
type TokenizedExample<'a> = (&'a Example, Vec<Arc<Tokens>>);

/// What it takes to read examples.
struct DatasetTokenizer<'a, 'b> {
    base: &'a BaseModel,
    spec: &'a Spec,
    reporter: &'a mut ProgressReporter<'b>,
}

impl DatasetTokenizer<'_, '_> {
    /// All that teach something: rows of which nothing can be learned were skipped with a warning when the data was checked.
    fn tokenize<'e>(&mut self, examples: &'e [Example]) -> Result<Vec<TokenizedExample<'e>>, Interrupted> {
        let max_length = self.spec.hyperparameters.max_length as usize;
        let mut items: Vec<TokenizedExample> = Vec::with_capacity(examples.len());
        for (index, example) in examples.iter().enumerate() {
            if index.is_multiple_of(STOP_CHECK_INTERVAL) {
                self.reporter.check_stop()?;
            }
            let sequences = self.spec.task.tokenize_example(self.base.tokenizer(), example, max_length);
            let trainable = sequences.and_then(|sequences| {
                self.spec.task.check_trainable(&sequences)?;
                Ok(sequences)
            });
            let sequences = match (trainable, self.spec.task.untrainable_rows()) {
                (Err(Error::Invalid(_)), UntrainableRows::Skip) => continue,
                (sequences, _) => sequences?,
            };
            items.push((example, sequences.into_iter().map(Arc::new).collect()));
        }
        let is_raw_text = |(example, _): &TokenizedExample| example.target == Target::Text;
        Ok(match self.spec.task.packs_raw_text() && items.iter().all(is_raw_text) {
            true => packing::pack_sequences(items, max_length),
            false => items,
        })
    }
}

fn example_lengths(tokens: &[Vec<Arc<Tokens>>], spec: &Spec) -> Arc<Vec<usize>> {
    Arc::new(tokens.iter().map(|sequences| example_length(sequences, spec.method.num_virtual_tokens())).collect())
}

/// Of all sequences of an example, each with its virtual tokens.
fn example_length(sequences: &[Arc<Tokens>], virtual_tokens: usize) -> usize {
    sequences.iter().map(|tokens| tokens.ids.len() + virtual_tokens).sum()
}

fn select_probe(examples: &[usize], tokens: &[Vec<Arc<Tokens>>]) -> Vec<usize> {
    let mut candidates: Vec<usize> = examples.iter().copied().take(PROBE_CANDIDATES).collect();
    candidates.sort_by_key(|index| example_length(&tokens[*index], 0));
    // Texts that a base reads alike prove nothing beside each other.
    let mut seen = BTreeSet::new();
    candidates.retain(|index| seen.insert(tokens[*index].iter().map(|one| one.ids.clone()).collect::<Vec<_>>()));
    candidates.truncate(PROBE_EXAMPLES);
    candidates
}

fn train_validation_split(
    spec: &Spec,
    data: &TrainingData,
    training_count: usize,
    targets: &Targets,
) -> batching::Split {
    match (&data.validation, &spec.validation) {
        (None, Validation::Fraction(fraction)) => {
            let (strata, count) = targets.strata();
            batching::stratified_split(&strata, count, *fraction, spec.hyperparameters.seed)
        }
        _ => batching::Split {
            training: (0..training_count).collect(),
            validation: (training_count..targets.len()).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_has_the_shortest_distinct_texts() {
        let text = |ids: &[u32]| vec![Arc::new(Tokens::from_ids(ids.to_vec()))];
        let tokens = [text(&[1, 2, 3]), text(&[1]), text(&[2]), text(&[1]), text(&[4, 5])];
        assert_eq!(select_probe(&[0, 1, 2, 3, 4], &tokens), [1, 2]);
        assert_eq!(select_probe(&[3, 1, 0], &tokens), [3, 0]);
        assert_eq!(select_probe(&[3, 1], &tokens), [3]);
    }
}

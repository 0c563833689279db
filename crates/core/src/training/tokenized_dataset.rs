//! Examples of a job: tokenized once and split into training and validation.

use super::job::TrainingData;
use super::progress::{Interrupted, ProgressReporter};
use super::spec::{Spec, Validation};
use super::validation_split::{self, Split};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Tokens};
use crate::task::objective::{Objective, ObjectiveContext};
use crate::task::{Example, Target, UntrainableRows};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tokenized examples: those of the training dataset, then those of a validation dataset. All other code names them by index.
#[derive(Clone)]
pub struct TokenizedDataset {
    /// Sequences of each example.
    pub tokens: Arc<Vec<Vec<Arc<Tokens>>>>,
    /// Line of each example in its dataset.
    pub lines: Arc<Vec<u64>>,
    /// Tokens of each example, with its virtual tokens.
    pub lengths: Arc<Vec<usize>>,
    pub objective: Arc<dyn Objective>,
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
    /// Validation examples of another dataset whose input is also one of the training examples.
    pub shared_validation: usize,
    /// Examples for the adapter's probe.
    pub probe: Vec<Example>,
}

/// The probe is computed whenever the adapter is loaded, so it has the shortest of the first [`PROBE_CANDIDATES`] texts.
const PROBE_EXAMPLES: usize = 2;
const PROBE_CANDIDATES: usize = 64;

/// Examples tokenized between two checks of the stop signal: a few milliseconds.
const STOP_CHECK_INTERVAL: usize = 64;

impl TokenizedDataset {
    /// # Errors
    /// `Invalid`: `unknown_label` for an example whose label the specification does not have, `nothing_to_learn` where no example
    /// has anything to learn.
    pub fn new(
        base: &BaseModel,
        spec: &Spec,
        data: &TrainingData,
        reporter: &mut ProgressReporter,
    ) -> Result<Self, Interrupted> {
        let mut tokenizer = DatasetTokenizer { base, spec, reporter };
        let mut items = tokenizer.tokenize(&data.examples)?;
        let training_count = items.len();
        items.extend(tokenizer.tokenize(data.validation.as_deref().unwrap_or_default())?);
        if training_count == 0 && !data.examples.is_empty() {
            let detail = "no row of the dataset has tokens to learn within `max_length` tokens: raise it, or shorten the prompts";
            return Err(Error::invalid("nothing_to_learn", detail).into());
        }
        let (examples, tokens): (Vec<&Example>, Vec<Vec<Arc<Tokens>>>) = items.into_iter().unzip();
        let context = ObjectiveContext {
            base,
            labels: &spec.labels,
            examples: &examples,
            tokens: &tokens,
            seed: spec.hyperparameters.seed,
        };
        let mut objective = spec.task.objective(&context)?;
        let split = train_validation_split(spec, data, &examples, training_count, objective.as_ref());
        let (training_examples, validation_examples) = examples.split_at(training_count);
        objective.fit(&split.training);
        let probe_split = if split.validation.is_empty() { &split.training } else { &split.validation };
        Ok(Self {
            probe: select_probe(probe_split, &tokens).into_iter().map(|index| examples[index].clone()).collect(),
            lines: Arc::new(examples.iter().map(|example| example.line).collect()),
            lengths: example_lengths(&tokens, spec),
            tokens: Arc::new(tokens),
            objective: Arc::from(objective),
            training: split.training,
            validation: split.validation,
            shared_validation: validation_split::count_shared(training_examples, validation_examples),
        })
    }

    /// The same examples for a specification that differs in the method alone.
    pub fn for_method(&self, spec: &Spec) -> Self {
        Self { lengths: example_lengths(&self.tokens, spec), ..self.clone() }
    }
}

/// Example with its sequences.
type TokenizedExample<'a> = (&'a Example, Vec<Arc<Tokens>>);

/// Tokenizer of a job's examples.
struct DatasetTokenizer<'a, 'b> {
    base: &'a BaseModel,
    spec: &'a Spec,
    reporter: &'a mut ProgressReporter<'b>,
}

impl DatasetTokenizer<'_, '_> {
    /// Tokenizes the examples, and leaves out those without anything to learn where the task skips them.
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
            true => pack_sequences(items, max_length),
            false => items,
        })
    }
}

fn example_lengths(tokens: &[Vec<Arc<Tokens>>], spec: &Spec) -> Arc<Vec<usize>> {
    Arc::new(tokens.iter().map(|sequences| example_length(sequences, spec.method.num_virtual_tokens())).collect())
}

/// Tokens of all sequences of an example, each with its virtual tokens.
fn example_length(sequences: &[Arc<Tokens>], virtual_tokens: usize) -> usize {
    sequences.iter().map(|tokens| tokens.ids.len() + virtual_tokens).sum()
}

fn select_probe(examples: &[usize], tokens: &[Vec<Arc<Tokens>>]) -> Vec<usize> {
    let mut candidates: Vec<usize> = examples.iter().copied().take(PROBE_CANDIDATES).collect();
    candidates.sort_by_key(|index| example_length(&tokens[*index], 0));
    // Texts with equal tokens have equal outputs.
    let mut seen = BTreeSet::new();
    candidates.retain(|index| seen.insert(tokens[*index].iter().map(|one| one.ids.clone()).collect::<Vec<_>>()));
    candidates.truncate(PROBE_EXAMPLES);
    candidates
}

fn train_validation_split(
    spec: &Spec,
    data: &TrainingData,
    examples: &[&Example],
    training_count: usize,
    objective: &dyn Objective,
) -> Split {
    match (&data.validation, &spec.validation) {
        (None, Validation::Fraction(fraction)) => {
            let (strata, count) = objective.strata();
            let max_group = (examples.len() as f64 * fraction).round() as usize;
            let groups = validation_split::copy_groups(examples, max_group.max(1));
            validation_split::stratified_split(&strata, count, &groups, *fraction, spec.hyperparameters.seed)
        }
        _ => Split {
            training: (0..training_count).collect(),
            validation: (training_count..objective.example_count()).collect(),
        },
    }
}

/// Packs sequences, in order, into examples of at most `max_length` tokens. Texts stay separate sequences; a long text continues in
/// the next example. A packed example stands for the example of its first sequence.
fn pack_sequences(items: Vec<TokenizedExample>, max_length: usize) -> Vec<TokenizedExample> {
    let mut packs: Vec<TokenizedExample> = Vec::new();
    let mut token_count = 0;
    for (example, sequences) in items {
        for sequence in sequences {
            let length = sequence.ids.len();
            match packs.last_mut() {
                Some((_, pack)) if token_count + length <= max_length => pack.push(sequence),
                _ => {
                    packs.push((example, vec![sequence]));
                    token_count = 0;
                }
            }
            token_count += length;
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_packed_together_and_a_long_text_spans_several_examples() {
        let example = |line| Example { line, text: String::new(), text_pair: None, target: Target::Text };
        let sequence = |length| Arc::new(Tokens::from_ids(vec![1; length]));
        let examples = [example(1), example(2), example(3)];
        let sequences = [vec![sequence(3)], vec![sequence(2)], vec![sequence(10), sequence(4)]];
        let packed = pack_sequences(examples.iter().zip(sequences).collect(), 10);
        let shape: Vec<(u64, usize)> = packed.iter().map(|(example, pack)| (example.line, pack.len())).collect();
        assert_eq!(shape, [(1, 2), (3, 1), (3, 1)]);
    }

    #[test]
    fn a_probe_has_the_shortest_distinct_texts() {
        let text = |ids: &[u32]| vec![Arc::new(Tokens::from_ids(ids.to_vec()))];
        let tokens = [text(&[1, 2, 3]), text(&[1]), text(&[2]), text(&[1]), text(&[4, 5])];
        assert_eq!(select_probe(&[0, 1, 2, 3, 4], &tokens), [1, 2]);
        assert_eq!(select_probe(&[3, 1, 0], &tokens), [3, 0]);
        assert_eq!(select_probe(&[3, 1], &tokens), [3]);
    }
}

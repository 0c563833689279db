//! Token classification: one tag per word of a text, and the entities that the tags mark.
//! The objective is cross entropy over the tags of the words.

use super::{
    Example, HeadSpec, Input, PostprocessContext, RowSchema, Target, Task, TaskDefaults, UntrainableRows, calibration,
    word_spans,
};
use crate::error::Result;
use crate::model::{CharSpan, TextLimits, Tokenizer, Tokens};
use crate::task::label_weights::LabelWeights;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LabelIds, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use metrics::EntityMetrics;
use serde::{Deserialize, Serialize};
use tag_scheme::TagScheme;
use utoipa::ToSchema;

mod metrics;
pub mod tag_scheme;

/// A word is tagged by the last layer's row of its first token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenClassification)]
pub struct Config {}

/// Entities of a text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Entities)]
pub struct Prediction {
    /// In the order of the text.
    pub entities: Vec<Entity>,
    /// One tag per element of the input's `tokens`; truncated words have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Per word, in the order of the adapter's labels, before the temperature; only on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<Vec<f32>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Entity {
    pub label: String,
    pub text: String,
    /// In Unicode code points of the text, or of `tokens` joined by single spaces.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
    /// Mean of the calibrated probabilities of its words' tags.
    pub score: f32,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "token_classification"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::TEXT
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["f1", "loss", "precision", "recall", "macro_f1", "accuracy"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Tags, RowSchema::Entities]
    }

    fn head(&self, labels: &[String]) -> HeadSpec {
        HeadSpec::per_word(labels.len())
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        let (text, words) = input.text_and_word_spans();
        tokenizer.encode_words(&text, &words, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        let Target::Tags { words, .. } = &example.target else {
            return Err(example.wrong_target(self.type_name()));
        };
        Ok(vec![tokenizer.encode_words(&example.text, words, TextLimits::tokens(max_length))?])
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Refuse
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(TagObjective::new(context, self.type_name())?))
    }

    fn postprocess(&self, context: &PostprocessContext, outputs: Vec<f32>, input: &Input) -> Result<super::Prediction> {
        let mut prediction = postprocess(context.labels, context.temperature, &outputs, input);
        prediction.logits =
            context.include_logits.then(|| outputs.chunks_exact(context.labels.len()).map(<[f32]>::to_vec).collect());
        Ok(super::Prediction::TokenClassification(prediction))
    }

    fn head_labels(&self, dataset_labels: &[String]) -> Vec<String> {
        tag_scheme::with_missing_inside_tags(dataset_labels)
    }
}

/// Prediction from the logits of the words that were not truncated, `(words, labels)`.
pub fn postprocess(labels: &[String], temperature: f32, logits: &[f32], input: &Input) -> Prediction {
    let (text, spans) = input.text_and_word_spans();
    let best_tag = |row: &[f32]| {
        let probabilities = calibration::softmax(row, temperature);
        let tag = super::metrics::argmax(row);
        (labels[tag].as_str(), probabilities[tag])
    };
    let (tags, scores): (Vec<&str>, Vec<f64>) = logits.chunks_exact(labels.len()).map(best_tag).unzip();
    let to_entity = |tagged_span: tag_scheme::Entity| {
        let span: CharSpan = spans[tagged_span.words.start].start..spans[tagged_span.words.end - 1].end;
        let scores = &scores[tagged_span.words];
        Entity {
            label: tagged_span.kind.to_string(),
            text: word_spans::slice_chars(&text, &span).to_string(),
            start: span.start,
            end: span.end,
            score: (scores.iter().sum::<f64>() / scores.len() as f64) as f32,
        }
    };
    Prediction {
        entities: TagScheme::detect(labels).entities(&tags).into_iter().map(to_entity).collect(),
        tags: input.tokens.is_some().then(|| tags.iter().map(ToString::to_string).collect()),
        logits: None,
    }
}

/// One tag per word.
#[derive(Debug, Clone)]
pub struct TagObjective {
    tags: Vec<Vec<u32>>,
    /// Words of each example that are not truncated.
    word_counts: Vec<usize>,
    tag_count: usize,
}

impl TagObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example with a tag that the job does not have, or without tags.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let labels = LabelIds::new(context.labels);
        let tags = |example: &&Example| match &example.target {
            Target::Tags { tags, .. } => tags.iter().map(|tag| labels.id(tag, example.line)).collect(),
            _ => Err(example.wrong_target(task_type)),
        };
        let tags = context.examples.iter().map(tags).collect::<Result<_>>()?;
        Ok(Self { tags, word_counts: context.target_counts(), tag_count: labels.count() })
    }

    /// Tags of the words that are not truncated, concatenated.
    fn targets(&self, examples: &[usize]) -> RowTargets {
        let tags = |example: &usize| self.tags[*example][..self.word_counts[*example]].iter().copied();
        RowTargets::Classes {
            classes: examples.iter().flat_map(tags).collect(),
            class_count: self.tag_count,
            weights: LabelWeights::default(),
        }
    }
}

impl Objective for TagObjective {
    fn example_count(&self) -> usize {
        self.tags.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.word_counts[example]
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics> {
        let (tags, word_counts) = (gather(&self.tags, examples), gather(&self.word_counts, examples));
        Box::new(EntityMetrics::new(outputs, &tags, &word_counts, labels))
    }

    fn loss_denominator(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.word_counts[*example]).sum()
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_have_character_offsets() {
        let labels = ["B-city", "I-city", "O"].map(str::to_string);
        let row = |tag: usize| (0..3).map(|label| if label == tag { 3.0 } else { 0.0 }).collect::<Vec<f32>>();
        let logits: Vec<f32> = [2, 2, 0, 1, 2, 0].into_iter().flat_map(row).collect();
        let input = Input::from_text("Fly to São Paulo, Łódź");
        let found = postprocess(&labels, 1.0, &logits, &input);
        let entities: Vec<(&str, u32, u32)> =
            found.entities.iter().map(|one| (one.text.as_str(), one.start, one.end)).collect();
        assert_eq!(entities, [("São Paulo", 7, 16), ("Łódź", 18, 22)]);
        assert!((found.entities[0].score - 0.909_443).abs() < 1e-5, "{found:?}");
        assert_eq!(found.tags, None);
        let pretokenized =
            Input { tokens: Some(["to", "São Paulo"].map(str::to_string).to_vec()), ..Input::from_text("") };
        let found = postprocess(&labels, 1.0, &logits[3..9], &pretokenized);
        assert_eq!((found.entities[0].start, found.entities[0].end), (3, 12));
        assert_eq!(found.tags.unwrap(), ["O", "B-city"]);
        assert_eq!(
            postprocess(&labels, 1.0, &logits[..3], &pretokenized).tags.unwrap(),
            ["O"],
            "truncated words have none"
        );
    }
}

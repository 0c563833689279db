//! Token classification: a tag for every word of a text, and the entities that the tags mean.

use super::tag_scheme::TagScheme;
use super::{Input, calibration, word_spans};
use crate::model::CharSpan;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The words are tagged where they begin: by the last layer's row of their first token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenClassification)]
pub struct Config {}

/// What was found in a text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Entities)]
pub struct Prediction {
    /// In the order of the text.
    pub entities: Vec<Entity>,
    /// A tag for each of `tokens`, where the input was given so; words that were cut off have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whether the text was longer than the adapter reads: nothing was looked for in the rest.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// Of each word, in the order of the adapter's labels, before the temperature; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<Vec<f32>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Entity {
    pub label: String,
    pub text: String,
    /// In Unicode code points of the text; of `tokens` joined by single spaces.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
    /// The mean of the calibrated probabilities of its words' tags.
    pub score: f32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// `logits` are those of the words that were read, one row each.
pub fn postprocess(labels: &[String], temperature: f32, logits: &[f32], input: &Input) -> Prediction {
    let (text, spans) = input.text_and_word_spans();
    let best_tag = |row: &[f32]| {
        let probabilities = calibration::softmax(row, temperature);
        let tag = super::metrics::argmax(row);
        (labels[tag].as_str(), probabilities[tag])
    };
    let (tags, scores): (Vec<&str>, Vec<f64>) = logits.chunks_exact(labels.len()).map(best_tag).unzip();
    let to_entity = |tagged_span: super::tag_scheme::Entity| {
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
        truncated: tags.len() < spans.len(),
        logits: None,
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
        assert_eq!((found.tags, found.truncated), (None, false));
        let pretokenized =
            Input { tokens: Some(["to", "São Paulo"].map(str::to_string).to_vec()), ..Input::from_text("") };
        let found = postprocess(&labels, 1.0, &logits[3..9], &pretokenized);
        assert_eq!((found.entities[0].start, found.entities[0].end), (3, 12));
        assert_eq!(found.tags.unwrap(), ["O", "B-city"]);
        assert!(postprocess(&labels, 1.0, &logits[..3], &pretokenized).truncated);
    }
}

//! Entities as places in a text become a BIO tag for each word (Ramshaw & Marcus 1995).
//!
//! Knows nothing of the file's format.

use super::diagnostics::{self, Diagnostic, quote};
use crate::model::CharSpan;
use crate::task::{tag_scheme, word_spans};
use std::borrow::Cow;

/// A place in the text, in code points, the end exclusive, and what it is.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct EntitySpan {
    start: u32,
    end: u32,
    label: String,
}

/// Words and their tags, and what is worth a warning.
pub(super) struct BioTags {
    pub word_spans: Vec<CharSpan>,
    pub tags: Vec<Cow<'static, str>>,
    pub warning: Option<Diagnostic>,
}

/// # Errors
/// Where an entity lies outside the text, holds no word, has no label, or shares a word with another.
pub(super) fn to_bio_tags(text: &str, mut entities: Vec<EntitySpan>) -> Result<BioTags, Diagnostic> {
    let (word_spans, text_length) = (word_spans::split_words(text), text.chars().count() as u32);
    let mut tags: Vec<Option<Cow<'static, str>>> = vec![None; word_spans.len()];
    let mut warning = None;
    entities.sort_by_key(|entity| (entity.start, entity.end));
    for entity in &entities {
        let EntitySpan { start, end, label } = entity;
        let entity_description = format!("the entity {} at {start} to {end}", quote(label.trim()));
        if start >= end || *end > text_length {
            let message = format!("{entity_description} is not within the text, which has {text_length} characters");
            return Err(Diagnostic::new(diagnostics::ENTITY_OUTSIDE, message));
        }
        if label.trim().is_empty() {
            return Err(Diagnostic::new(
                diagnostics::EMPTY_LABEL,
                format!("{entity_description} has no label: fill it in, or leave it out"),
            ));
        }
        let first_index = word_spans.partition_point(|word| word.end <= *start);
        let end_index = word_spans.partition_point(|word| word.start < *end);
        let (Some(first_word), Some(last_covered_word)) =
            (word_spans.get(first_index), end_index.checked_sub(1).and_then(|last| word_spans.get(last)))
        else {
            return Err(covers_no_word(&entity_description));
        };
        if first_index >= end_index {
            return Err(covers_no_word(&entity_description));
        }
        if tags[first_index..end_index].iter().any(Option::is_some) {
            let message =
                format!("{entity_description} has a word in common with another: a word belongs to one entity at most");
            return Err(Diagnostic::new(diagnostics::OVERLAPPING_ENTITIES, message));
        }
        if first_word.start < *start || last_covered_word.end > *end {
            let covered_text = word_spans::slice_chars(text, &(first_word.start..last_covered_word.end));
            let message = format!("{entity_description} cuts a word: the whole of {} is taken", quote(covered_text));
            warning.get_or_insert(Diagnostic::new(diagnostics::CUT_WORD, message));
        }
        tags[first_index] = Some(tag_scheme::begin_tag(label.trim()).into());
        tags[first_index + 1..end_index].fill(Some(tag_scheme::inside_tag(label.trim()).into()));
    }
    let tags = tags.into_iter().map(|tag| tag.unwrap_or(Cow::Borrowed(tag_scheme::OUTSIDE))).collect();
    Ok(BioTags { word_spans, tags, warning })
}

fn covers_no_word(entity_description: &str) -> Diagnostic {
    Diagnostic::new(diagnostics::ENTITY_OUTSIDE, format!("{entity_description} holds no word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bio_tags(
        text: &str,
        entities: &[(u32, u32, &str)],
    ) -> Result<(Vec<String>, Option<&'static str>), &'static str> {
        let to_entity =
            |(start, end, label): &(u32, u32, &str)| EntitySpan { start: *start, end: *end, label: label.to_string() };
        let result = to_bio_tags(text, entities.iter().map(to_entity).collect()).map_err(|flaw| flaw.code)?;
        Ok((result.tags.iter().map(ToString::to_string).collect(), result.warning.map(|note| note.code)))
    }

    #[test]
    fn words_inside_entities_get_bio_tags() {
        let (tags_found, warning) = bio_tags("Łódź to New York.", &[(8, 16, "city"), (0, 4, "city")]).unwrap();
        assert_eq!(tags_found, ["B-city", "O", "B-city", "I-city", "O"]);
        assert_eq!(warning, None);
        assert_eq!(bio_tags("Parisian", &[(0, 5, "city")]).unwrap(), (vec!["B-city".to_string()], Some("cut_word")));
        assert_eq!(bio_tags("none", &[]).unwrap().0, ["O"]);
    }

    #[test]
    fn invalid_entities_are_rejected() {
        for (entities, code) in [
            (&[(0, 99, "x")][..], "entity_outside"),
            (&[(3, 3, "x")], "entity_outside"),
            (&[(2, 3, "x")], "entity_outside"),
            (&[(0, 2, " ")], "empty_label"),
            (&[(0, 4, "x"), (3, 5, "y")], "overlapping_entities"),
            (&[(3, 4, "x"), (4, 5, "y")], "overlapping_entities"),
        ] {
            assert_eq!(bio_tags("ab cd", entities).unwrap_err(), code, "{entities:?}");
        }
    }
}

//! Rows of a text with one tag per word: tokens with tags, or a text with entity spans.
//!
//! Entity spans are converted to BIO tags (Ramshaw & Marcus 1995).

use super::spans::{EntitySpan, read_spans};
use super::{FieldChecks, Fields, FileStats, RowFormat, label_error, trim_value};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic, quote};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::field_value::{label_item, string_value};
use crate::dataset::record::Record;
use crate::dataset::row::{UnusableRow, ValidRow};
use crate::model::CharSpan;
use crate::task::{Target, tag_scheme, word_spans};
use std::borrow::Cow;

pub(super) struct TaggedTokens;

impl RowFormat for TaggedTokens {
    /// Tokens and tags are separated by white space.
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let fields = Fields::of(record, mapping)?;
        let tokens = fields.text.as_words("tokens", string_value);
        let (tokens, tags) = UnusableRow::both(tokens, fields.target.as_words("tags", label_item))?;
        token_row(&tokens, mapping.labels.names(tags)?)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        tag_error(stats)
    }

    /// One text can have many words with the tag.
    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

/// Field of Prodigy, which is absent in a row without entities.
const PRODIGY_SPANS: &str = "spans";

pub(super) struct EntitySpans;

impl RowFormat for EntitySpans {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let (text, entities) = if mapping.target_column == PRODIGY_SPANS && !record.contains(PRODIGY_SPANS) {
            (record.required("text", &mapping.text_column)?.as_text("text")?, Vec::new())
        } else {
            let fields = Fields::of(record, mapping)?;
            UnusableRow::both(fields.text.as_text("text"), read_spans(fields.target))?
        };
        let TaggedWords { word_spans, tags, warning } = to_bio_tags(&text, entities)?;
        Ok(ValidRow { warning, ..tagged_row(text.into_owned(), word_spans, tags)? })
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        tag_error(stats)
    }

    /// One text can have many words with the tag.
    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

fn tag_error(stats: &FileStats<'_>) -> Option<Diagnostic> {
    label_error(stats, |tag| {
        Some(format!("every word has the tag {}: there is nothing to learn from them", quote(tag)))
    })
}

/// Row of tokens and their tags; the text is the tokens joined by spaces.
fn token_row(tokens: &[Cow<'_, str>], tags: Vec<Cow<'_, str>>) -> Result<ValidRow, UnusableRow> {
    if tokens.len() != tags.len() {
        let message = format!("there are {} tokens and {} tags: give each token its tag", tokens.len(), tags.len());
        return Err(Diagnostic::new(diagnostics::TAG_COUNT, message).into());
    }
    let tokens: Vec<&str> = tokens.iter().map(|token| token.trim()).collect();
    if tokens.iter().any(|token| token.is_empty()) {
        let message = "one of the tokens is empty: leave it out, with its tag";
        return Err(Diagnostic::new(diagnostics::EMPTY_TEXT, message).into());
    }
    let (text, word_spans) = word_spans::join_words(tokens);
    tagged_row(text, word_spans, tags)
}

/// The text is not trimmed, because spans count its characters.
fn tagged_row(text: String, words: Vec<CharSpan>, tags: Vec<Cow<'_, str>>) -> Result<ValidRow, UnusableRow> {
    let mut checks = FieldChecks::default();
    let tags: Vec<String> = tags.into_iter().map(|tag| trim_value(tag).into_owned()).collect();
    checks.require_text("text", &text);
    if words.is_empty() && !text.is_empty() {
        checks.push(Diagnostic::new(diagnostics::EMPTY_TEXT, "the text has no word: leave the row out"));
    }
    let trimmed_fields = checks.finish(&[Some(text.as_str())], &tags)?;
    Ok(ValidRow {
        duplicate_key: DuplicateKey::with_target(&[Some(text.as_str())], tags.join(" ")),
        text,
        text_pair: None,
        target: Target::Tags { words, tags },
        trimmed_fields,
        warning: None,
    })
}

/// Words of a text with their BIO tags (beginning, inside or outside of an entity).
struct TaggedWords {
    word_spans: Vec<CharSpan>,
    tags: Vec<Cow<'static, str>>,
    /// Warning about entities that cover a part of a word.
    warning: Option<Diagnostic>,
}

/// Converts entities to one BIO tag per word. A word that an entity covers in part is tagged as a whole.
///
/// # Errors
/// For an entity outside the text, without a word, without a label, or with a word that another entity has.
fn to_bio_tags(text: &str, mut entities: Vec<EntitySpan>) -> Result<TaggedWords, Diagnostic> {
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
        if (first_word.start < *start || last_covered_word.end > *end) && warning.is_none() {
            let covered_text = word_spans::slice_chars(text, &(first_word.start..last_covered_word.end));
            let message = format!("{entity_description} cuts a word: the whole of {} is taken", quote(covered_text));
            warning = Some(Diagnostic::new(diagnostics::CUT_WORD, message));
        }
        tags[first_index] = Some(tag_scheme::begin_tag(label.trim()).into());
        tags[first_index + 1..end_index].fill(Some(tag_scheme::inside_tag(label.trim()).into()));
    }
    let tags = tags.into_iter().map(|tag| tag.unwrap_or(Cow::Borrowed(tag_scheme::OUTSIDE))).collect();
    Ok(TaggedWords { word_spans, tags, warning })
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
        let result = to_bio_tags(text, entities.iter().map(to_entity).collect()).map_err(|error| error.code)?;
        Ok((result.tags.iter().map(ToString::to_string).collect(), result.warning.map(|warning| warning.code)))
    }

    #[test]
    fn words_inside_entities_get_bio_tags() {
        let (tags, warning) = bio_tags("Łódź to New York.", &[(8, 16, "city"), (0, 4, "city")]).unwrap();
        assert_eq!(tags, ["B-city", "O", "B-city", "I-city", "O"]);
        assert_eq!(warning, None);
        assert_eq!(bio_tags("Parisian", &[(0, 5, "city")]).unwrap(), (vec!["B-city".to_string()], Some("cut_word")));
        assert_eq!(bio_tags("none", &[]).unwrap().0, ["O"]);
        // The time of many entities that cut words is linear.
        let cut: Vec<(u32, u32, &str)> = (0..50_000).map(|index| (3 * index, 3 * index + 1, "x")).collect();
        assert_eq!(bio_tags(&"ab ".repeat(50_000), &cut).unwrap(), (vec!["B-x".to_string(); 50_000], Some("cut_word")));
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

//! Entities as places in a text become a BIO tag for each word (Ramshaw & Marcus 1995).
//!
//! Knows nothing of the file's format.

use super::findings::{self, Flaw, quoted};
use crate::model::Span;
use crate::task::{tagging, words};
use std::borrow::Cow;

/// A place in the text, in code points, the end exclusive, and what it is.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Entity {
    start: u32,
    end: u32,
    label: String,
}

/// Words and their tags, and what is worth a warning.
pub(super) struct Tagged {
    pub words: Vec<Span>,
    pub tags: Vec<Cow<'static, str>>,
    pub note: Option<Flaw>,
}

/// # Errors
/// Where an entity lies outside the text, holds no word, has no label, or shares a word with another.
pub(super) fn tagged(text: &str, mut entities: Vec<Entity>) -> Result<Tagged, Flaw> {
    let (words, length) = (words::split(text), text.chars().count() as u32);
    let mut tags: Vec<Option<Cow<'static, str>>> = vec![None; words.len()];
    let mut note = None;
    entities.sort_by_key(|entity| (entity.start, entity.end));
    for entity in &entities {
        let Entity { start, end, label } = entity;
        let place = format!("the entity {} at {start} to {end}", quoted(label.trim()));
        if start >= end || *end > length {
            let message = format!("{place} is not within the text, which has {length} characters");
            return Err(Flaw::new(findings::ENTITY_OUTSIDE, message));
        }
        if label.trim().is_empty() {
            return Err(Flaw::new(findings::EMPTY_LABEL, format!("{place} has no label: fill it in, or leave it out")));
        }
        let first = words.partition_point(|word| word.end <= *start);
        let last = words.partition_point(|word| word.start < *end);
        let (Some(first_word), Some(last_word)) =
            (words.get(first), last.checked_sub(1).and_then(|last| words.get(last)))
        else {
            return Err(without_word(&place));
        };
        if first >= last {
            return Err(without_word(&place));
        }
        if tags[first..last].iter().any(Option::is_some) {
            let message = format!("{place} has a word in common with another: a word belongs to one entity at most");
            return Err(Flaw::new(findings::OVERLAPPING_ENTITIES, message));
        }
        if first_word.start < *start || last_word.end > *end {
            let whole = words::cut(text, &(first_word.start..last_word.end));
            let message = format!("{place} cuts a word: the whole of {} is taken", quoted(whole));
            note.get_or_insert(Flaw::new(findings::CUT_WORD, message));
        }
        tags[first] = Some(tagging::begin(label.trim()).into());
        tags[first + 1..last].fill(Some(tagging::inside(label.trim()).into()));
    }
    let tags = tags.into_iter().map(|tag| tag.unwrap_or(Cow::Borrowed(tagging::OUTSIDE))).collect();
    Ok(Tagged { words, tags, note })
}

fn without_word(place: &str) -> Flaw {
    Flaw::new(findings::ENTITY_OUTSIDE, format!("{place} holds no word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str, entities: &[(u32, u32, &str)]) -> Result<(Vec<String>, Option<&'static str>), &'static str> {
        let entity =
            |(start, end, label): &(u32, u32, &str)| Entity { start: *start, end: *end, label: label.to_string() };
        let tagged = tagged(text, entities.iter().map(entity).collect()).map_err(|flaw| flaw.code)?;
        Ok((tagged.tags.iter().map(ToString::to_string).collect(), tagged.note.map(|note| note.code)))
    }

    #[test]
    fn words_within_an_entity_are_tagged() {
        let (found, note) = tags("Łódź to New York.", &[(8, 16, "city"), (0, 4, "city")]).unwrap();
        assert_eq!(found, ["B-city", "O", "B-city", "I-city", "O"]);
        assert_eq!(note, None);
        assert_eq!(tags("Parisian", &[(0, 5, "city")]).unwrap(), (vec!["B-city".to_string()], Some("cut_word")));
        assert_eq!(tags("none", &[]).unwrap().0, ["O"]);
    }

    #[test]
    fn entities_that_cannot_be_are_refused() {
        for (entities, code) in [
            (&[(0, 99, "x")][..], "entity_outside"),
            (&[(3, 3, "x")], "entity_outside"),
            (&[(2, 3, "x")], "entity_outside"),
            (&[(0, 2, " ")], "empty_label"),
            (&[(0, 4, "x"), (3, 5, "y")], "overlapping_entities"),
            (&[(3, 4, "x"), (4, 5, "y")], "overlapping_entities"),
        ] {
            assert_eq!(tags("ab cd", entities).unwrap_err(), code, "{entities:?}");
        }
    }
}

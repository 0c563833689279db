//! Tags of words and the entities that they mark: BIO, IOBES (BILOU) or plain tags.
//!
//! Entities are decoded as in seqeval's default mode (conlleval's rules): an inside tag without an open entity begins one.

use std::collections::BTreeSet;
use std::ops::Range;

/// Tag of a word outside of any entity.
pub const OUTSIDE: &str = "O";

/// Encoding of entities in tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScheme {
    /// A letter for the position in the entity, a dash, and the kind of the entity.
    Prefixed,
    /// Every word with a tag other than `O` is an entity.
    Plain,
}

/// Entity: its kind and its range of words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    pub kind: &'a str,
    pub words: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagPrefix {
    Begin,
    Inside,
    End,
    Single,
    Outside,
}

impl TagScheme {
    /// Scheme of a set of tags.
    pub fn detect(tags: &[String]) -> Self {
        let has_prefix = |tag: &String| split_prefix(tag).is_some_and(|(place, _)| place != TagPrefix::Outside);
        let is_prefixed = tags.iter().all(|tag| split_prefix(tag).is_some());
        if is_prefixed && tags.iter().any(has_prefix) { Self::Prefixed } else { Self::Plain }
    }

    fn parse(self, tag: &str) -> (TagPrefix, &str) {
        match self {
            Self::Prefixed => split_prefix(tag).unwrap_or((TagPrefix::Outside, tag)),
            Self::Plain if tag == OUTSIDE => (TagPrefix::Outside, tag),
            Self::Plain => (TagPrefix::Single, tag),
        }
    }

    /// Entities of a text with these tags, in order.
    pub fn entities<'a>(self, tags: &[&'a str]) -> Vec<Entity<'a>> {
        let mut entities: Vec<Entity<'a>> = Vec::new();
        let mut is_open = false;
        for (word, tag) in tags.iter().copied().enumerate() {
            let (prefix, kind) = self.parse(tag);
            if prefix == TagPrefix::Outside {
                is_open = false;
                continue;
            }
            match entities.last_mut() {
                Some(last)
                    if is_open && last.kind == kind && !matches!(prefix, TagPrefix::Begin | TagPrefix::Single) =>
                {
                    last.words.end = word + 1;
                }
                _ => entities.push(Entity { kind, words: word..word + 1 }),
            }
            is_open = !matches!(prefix, TagPrefix::End | TagPrefix::Single);
        }
        entities
    }
}

/// Tag of the first word of an entity of this kind.
pub fn begin_tag(kind: &str) -> String {
    format!("B-{kind}")
}

/// Tag of the other words of an entity of this kind.
pub fn inside_tag(kind: &str) -> String {
    format!("I-{kind}")
}

/// Tags with those of the BIO scheme that the data lacks: `O`, and an `I-` tag for each `B-` tag. Sorted.
pub fn with_missing_inside_tags(tags: &[String]) -> Vec<String> {
    let mut completed: BTreeSet<String> = tags.iter().cloned().collect();
    let is_bio = |tag: &String| {
        matches!(split_prefix(tag), Some((TagPrefix::Begin | TagPrefix::Inside | TagPrefix::Outside, _)))
    };
    if TagScheme::detect(tags) == TagScheme::Prefixed && tags.iter().all(is_bio) {
        let kinds = tags.iter().filter_map(|tag| tag.strip_prefix("B-"));
        completed.extend(kinds.map(inside_tag).chain([OUTSIDE.to_string()]));
    }
    completed.into_iter().collect()
}

fn split_prefix(tag: &str) -> Option<(TagPrefix, &str)> {
    if tag == OUTSIDE {
        return Some((TagPrefix::Outside, tag));
    }
    let (letter, kind) = tag.split_once('-').filter(|(_, kind)| !kind.is_empty())?;
    let prefix = match letter {
        "B" => TagPrefix::Begin,
        "I" => TagPrefix::Inside,
        "E" | "L" => TagPrefix::End,
        "S" | "U" => TagPrefix::Single,
        _ => return None,
    };
    Some((prefix, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(tags: &str) -> Vec<String> {
        let tags: Vec<String> = tags.split(' ').map(str::to_string).collect();
        let words: Vec<&str> = tags.iter().map(String::as_str).collect();
        let formatted = |entity: Entity| format!("{} {:?}", entity.kind, entity.words);
        TagScheme::detect(&tags).entities(&words).into_iter().map(formatted).collect()
    }

    #[test]
    fn entities_match_seqeval() {
        // seqeval.metrics.sequence_labeling.get_entities on the same tags.
        assert_eq!(entities("B-PER I-PER O B-LOC"), ["PER 0..2", "LOC 3..4"]);
        assert_eq!(entities("O I-PER I-PER B-PER I-LOC"), ["PER 1..3", "PER 3..4", "LOC 4..5"]);
        assert_eq!(entities("B-A I-A E-A S-A I-A E-A O E-A I-A"), ["A 0..3", "A 3..4", "A 4..6", "A 7..8", "A 8..9"]);
        assert_eq!(entities("B-x-y I-x-y"), ["x-y 0..2"]);
    }

    #[test]
    fn plain_tags_are_single_word_entities() {
        assert_eq!(entities("DET NOUN NOUN O"), ["DET 0..1", "NOUN 1..2", "NOUN 2..3"]);
        assert_eq!(entities("O O"), Vec::<String>::new());
        // One tag that does not fit makes the scheme plain.
        assert_eq!(entities("B-PER PUNCT"), ["B-PER 0..1", "PUNCT 1..2"]);
    }

    #[test]
    fn missing_bio_tags_are_added() {
        let completed =
            |tags: &[&str]| with_missing_inside_tags(&tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(completed(&["B-PER"]), ["B-PER", "I-PER", "O"]);
        assert_eq!(completed(&["B-PER", "E-PER"]), ["B-PER", "E-PER"]);
        assert_eq!(completed(&["NOUN", "VERB"]), ["NOUN", "VERB"]);
    }
}

//! Tags of words and the entities that they mean: BIO, IOBES (BILOU) or plain tags.
//!
//! Entities are read off as seqeval's default mode does (conlleval's rules): a tag that goes on with nothing begins an
//! entity. Knows nothing of texts.

use std::collections::BTreeSet;
use std::ops::Range;

/// The tag of a word that belongs to no entity.
pub const OUTSIDE: &str = "O";

/// How tags mean entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A letter for the place in the entity, a dash, and the entity's kind.
    Marked,
    /// Every word is an entity of its own, but for `O`.
    Plain,
}

/// An entity: its kind and its words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    pub kind: &'a str,
    pub words: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Begin,
    Inside,
    End,
    Single,
    Outside,
}

impl Scheme {
    /// What these tags are.
    pub fn of(tags: &[String]) -> Self {
        let is_marked = |tag: &String| marked(tag).is_some_and(|(place, _)| place != Place::Outside);
        let is_known = tags.iter().all(|tag| marked(tag).is_some());
        if is_known && tags.iter().any(is_marked) { Self::Marked } else { Self::Plain }
    }

    fn read(self, tag: &str) -> (Place, &str) {
        match self {
            Self::Marked => marked(tag).unwrap_or((Place::Outside, tag)),
            Self::Plain if tag == OUTSIDE => (Place::Outside, tag),
            Self::Plain => (Place::Single, tag),
        }
    }

    /// The entities of a text with these tags, in order.
    pub fn entities<'a>(self, tags: &[&'a str]) -> Vec<Entity<'a>> {
        let mut entities: Vec<Entity<'a>> = Vec::new();
        let mut open = false;
        for (word, tag) in tags.iter().copied().enumerate() {
            let (place, kind) = self.read(tag);
            if place == Place::Outside {
                open = false;
                continue;
            }
            match entities.last_mut() {
                Some(last) if open && last.kind == kind && !matches!(place, Place::Begin | Place::Single) => {
                    last.words.end = word + 1;
                }
                _ => entities.push(Entity { kind, words: word..word + 1 }),
            }
            open = !matches!(place, Place::End | Place::Single);
        }
        entities
    }
}

/// The tags of words that belong to an entity of this kind.
pub fn begin(kind: &str) -> String {
    format!("B-{kind}")
}

pub fn inside(kind: &str) -> String {
    format!("I-{kind}")
}

/// With the tags that such data will need though it may not have them: of BIO `O`, and `I-` of everything that begins.
pub fn completed(tags: &[String]) -> Vec<String> {
    let mut all: BTreeSet<String> = tags.iter().cloned().collect();
    let is_bio = |tag: &String| matches!(marked(tag), Some((Place::Begin | Place::Inside | Place::Outside, _)));
    if Scheme::of(tags) == Scheme::Marked && tags.iter().all(is_bio) {
        let kinds = tags.iter().filter_map(|tag| tag.strip_prefix("B-"));
        all.extend(kinds.map(inside).chain([OUTSIDE.to_string()]));
    }
    all.into_iter().collect()
}

fn marked(tag: &str) -> Option<(Place, &str)> {
    if tag == OUTSIDE {
        return Some((Place::Outside, tag));
    }
    let (place, kind) = tag.split_once('-').filter(|(_, kind)| !kind.is_empty())?;
    let place = match place {
        "B" => Place::Begin,
        "I" => Place::Inside,
        "E" | "L" => Place::End,
        "S" | "U" => Place::Single,
        _ => return None,
    };
    Some((place, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(tags: &str) -> Vec<String> {
        let tags: Vec<String> = tags.split(' ').map(str::to_string).collect();
        let words: Vec<&str> = tags.iter().map(String::as_str).collect();
        let told = |entity: Entity| format!("{} {:?}", entity.kind, entity.words);
        Scheme::of(&tags).entities(&words).into_iter().map(told).collect()
    }

    #[test]
    fn entities_are_those_of_seqeval() {
        // seqeval.metrics.sequence_labeling.get_entities on the same tags.
        assert_eq!(entities("B-PER I-PER O B-LOC"), ["PER 0..2", "LOC 3..4"]);
        assert_eq!(entities("O I-PER I-PER B-PER I-LOC"), ["PER 1..3", "PER 3..4", "LOC 4..5"]);
        assert_eq!(entities("B-A I-A E-A S-A I-A E-A O E-A I-A"), ["A 0..3", "A 3..4", "A 4..6", "A 7..8", "A 8..9"]);
        assert_eq!(entities("B-x-y I-x-y"), ["x-y 0..2"]);
    }

    #[test]
    fn plain_tags_are_entities_of_one_word() {
        assert_eq!(entities("DET NOUN NOUN O"), ["DET 0..1", "NOUN 1..2", "NOUN 2..3"]);
        assert_eq!(entities("O O"), Vec::<String>::new());
        // One tag that is none of the scheme, and it is not the scheme.
        assert_eq!(entities("B-PER PUNCT"), ["B-PER 0..1", "PUNCT 1..2"]);
    }

    #[test]
    fn tags_are_completed_where_the_scheme_says_how() {
        let completed = |tags: &[&str]| completed(&tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(completed(&["B-PER"]), ["B-PER", "I-PER", "O"]);
        assert_eq!(completed(&["B-PER", "E-PER"]), ["B-PER", "E-PER"]);
        assert_eq!(completed(&["NOUN", "VERB"]), ["NOUN", "VERB"]);
    }
}

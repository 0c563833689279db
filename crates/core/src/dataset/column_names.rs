//! Names of columns: comparison, and the names that are usual for a field of a row schema.

use crate::task::RowSchema;

/// A column name without what does not count in a comparison: case, white space around it, and invisible characters.
pub(super) fn normalized(name: &str) -> String {
    let is_visible =
        |character: &char| !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}');
    let visible: String = name.chars().filter(is_visible).collect();
    visible.trim().to_lowercase()
}

/// Whether a column has a usual name, apart from spaces, hyphens and underscores in it.
pub(super) fn is_usual_name(normalized_name: &str, usual_name: &str) -> bool {
    let is_letter = |character: &char| !matches!(character, ' ' | '-' | '_');
    normalized_name.chars().filter(is_letter).eq(usual_name.chars().filter(is_letter))
}

/// Advice on mapping a field, for errors about missing columns.
pub(super) fn mapping_hint(field: &str) -> String {
    format!("`\"columns\": {{\"{field}\": \"…\"}}` in the job says which one holds the {}", field.replace('_', " "))
}

/// Usual names of the two texts of a pair.
pub(super) const TEXT_PAIRS: [(&str, &str); 13] = [
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question1", "question2"),
    ("query", "passage"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("anchor", "positive"),
];

/// Column that is a part of the prompt beside an instruction.
pub(super) const PROMPT_INPUTS: [&str; 2] = ["input", "context"];

/// Usual names of the text.
const TEXT_NAMES: [&str; 25] = [
    "sentence",
    "review",
    "content",
    "sequence",
    "comment",
    "comment_text",
    "data",
    "tweet",
    "utterance",
    "message",
    "document",
    "description",
    "headline",
    "question",
    "query",
    "title",
    "body",
    "premise",
    "sentence1",
    "review_text",
    "clean_text",
    "post",
    "abstract",
    "plot",
    "essay",
];
/// Usual names of the prompt of a completion.
const PROMPT_NAMES: [&str; 11] = [
    "instruction",
    "question",
    "query",
    "input",
    "inputs",
    "problem",
    "article",
    "document",
    "dialogue",
    "conversations",
    "conversation",
];

/// Usual names of a column that holds a field of the schema, in lower case.
pub(super) fn well_known_names(schema: RowSchema, field: &str) -> &'static [&'static str] {
    match (schema, field) {
        (RowSchema::Positive, "text") => &["anchor", "query", "question", "premise", "sentence1", "sentence"],
        (RowSchema::Positive, "positive") => &["pos", "positives", "passage", "answer", "document", "sentence2"],
        (RowSchema::Positive, "negative") => &["neg", "negatives", "hard_negative"],
        (_, "text") => &TEXT_NAMES,
        (_, "label") => &[
            "target",
            "category",
            "class",
            "sentiment",
            "intent",
            "topic",
            "emotion",
            "gold_label",
            "is_duplicate",
            "relevance",
            "is_relevant",
            "labels",
            "accept",
            "cats",
            "result",
        ],
        (_, "labels") => &["categories", "classes", "topics", "genres", "label", "target", "accept", "cats", "result"],
        (_, "value") => &["target", "score"],
        (_, "score") => &["similarity", "similarity_score"],
        (_, "tokens") => &["words"],
        (_, "tags") => &["ner_tags", "labels", "label"],
        (_, "entities") => &["spans", "label", "labels", "annotations", "ner", "result"],
        (RowSchema::Chosen, "prompt") => {
            &["instruction", "question", "query", "input", "messages", "conversations", "conversation"]
        }
        (RowSchema::Completion, "prompt") => &PROMPT_NAMES,
        (_, "completion") => &["output", "response", "answer", "targets", "solution", "summary", "highlights"],
        (_, "messages") => &["conversations", "conversation", "dialog", "dialogue", "chat"],
        (_, "chosen") => &["preferred_output", "preferred", "response_j", "chosen_response"],
        (_, "rejected") => &["non_preferred_output", "non_preferred", "response_k", "rejected_response"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_space_and_invisible_characters_do_not_count() {
        for name in ["Text", " TEXT\t", "\u{a0}text\u{a0}", "te\u{200b}xt", "\u{feff}text"] {
            assert_eq!(normalized(name), "text");
        }
        assert_ne!(normalized("text 2"), normalized("text2"));
        assert!(is_usual_name("sentence 1", "sentence1") && is_usual_name("comment-text", "comment_text"));
        assert!(!is_usual_name("sentence 2", "sentence1"));
    }

    #[test]
    fn well_known_names_are_normalized() {
        for schema in RowSchema::ALL {
            for name in schema.fields().into_iter().flat_map(|field| well_known_names(schema, field)) {
                assert_eq!(*name, normalized(name));
            }
        }
    }
}

//! Positions at which a text can be cut so that the tokens of its start are the first tokens of the whole text.
//!
//! A cut point is before a space (U+0020) that follows a letter, digit or punctuation mark. Whether such cuts are safe follows
//! from the `tokenizer.json`:
//!
//! - No added token contains white space, so none is matched across a cut.
//! - Every normalizer maps characters, grapheme clusters or canonical sequences by themselves. None of these extends over a cut:
//!   a space is a starter that composes with nothing before it, and the character before the cut is one that no normalizer
//!   removes or joins with a space.
//! - The pre-tokenizer begins a new piece at a space after another character, and the model tokenizes each piece by itself. Or
//!   there is no pre-tokenizer, spaces become U+2581, and no entry of the BPE vocabulary has one after another character, so no
//!   merge reaches over the cut.
//!
//! A `tokenizer.json` with anything else has no cut points.

use serde_json::Value;
use std::ops::RangeInclusive;

/// SentencePiece's replacement of a space.
const METASPACE: char = '\u{2581}';

/// Regular expression by which Llama 3 splits words.
pub const LLAMA3_SPLIT_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Regular expression by which Qwen 2 splits words.
pub const QWEN2_SPLIT_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2_SPLIT_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Patterns whose matches have a space only as their first character, or among white space.
const SPLIT_PATTERNS: [&str; 3] = [GPT2_SPLIT_PATTERN, LLAMA3_SPLIT_PATTERN, QWEN2_SPLIT_PATTERN];

/// Characters outside ASCII that may precede a cut, where they are letters or ideographs: no combining marks, no format
/// characters, and none that begins a grapheme cluster with the space after it.
const SCRIPTS_BEFORE_CUT: [RangeInclusive<char>; 12] = [
    '\u{c0}'..='\u{24f}',
    '\u{370}'..='\u{482}',
    '\u{48a}'..='\u{588}',
    '\u{5d0}'..='\u{5ea}',
    '\u{620}'..='\u{64a}',
    '\u{904}'..='\u{939}',
    '\u{1e00}'..='\u{1fff}',
    '\u{3001}'..='\u{3002}',
    '\u{3041}'..='\u{3096}',
    '\u{30a1}'..='\u{30fa}',
    '\u{3400}'..='\u{9fff}',
    '\u{ac00}'..='\u{d7a3}',
];

/// Whether texts can be cut before spaces, for a tokenizer with this `tokenizer.json`.
pub fn can_cut_at_spaces(tokenizer: &Value) -> bool {
    let added_tokens = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    if !added_tokens.iter().all(is_matched_between_cuts) || !is_local_normalizer(&tokenizer["normalizer"]) {
        return false;
    }
    let (pre_tokenizer, model) = (&tokenizer["pre_tokenizer"], &tokenizer["model"]);
    match model["type"].as_str() {
        Some("WordPiece" | "WordLevel" | "Unigram") => split_of(pre_tokenizer) == Split::AtSpaces,
        Some("BPE") if model["dropout"].as_f64().unwrap_or(0.0) > 0.0 => false,
        Some("BPE") if pre_tokenizer.is_null() => {
            replaces_spaces(&tokenizer["normalizer"]) && has_no_merge_across_spaces(model)
        }
        Some("BPE") => split_of(pre_tokenizer) == Split::AtSpaces,
        _ => false,
    }
}

/// Returns the last cut point in `start + 1..=end`.
pub fn last_cut(text: &str, start: usize, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    (start + 1..=end.min(bytes.len().saturating_sub(1))).rev().find(|at| bytes[*at] == b' ' && is_cut(text, *at))
}

/// Returns the first cut point in `start + 1..=end`.
pub fn first_cut(text: &str, start: usize, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    (start + 1..=end.min(bytes.len().saturating_sub(1))).find(|at| bytes[*at] == b' ' && is_cut(text, *at))
}

/// Whether the character before a space at `at` makes it a cut point.
fn is_cut(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(|before| {
        before.is_ascii_graphic() || SCRIPTS_BEFORE_CUT.iter().any(|range| range.contains(&before)) && is_kept(before)
    })
}

/// Whether normalizers keep a character of [`SCRIPTS_BEFORE_CUT`].
fn is_kept(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '\u{3001}' | '\u{3002}')
}

/// Whether an added token cannot be matched across a cut.
fn is_matched_between_cuts(token: &Value) -> bool {
    let has_normalized_space = |content: &str| token["normalized"] != false && content.contains(METASPACE);
    token["content"]
        .as_str()
        .is_some_and(|content| !content.contains(char::is_whitespace) && !has_normalized_space(content))
}

fn is_local_normalizer(normalizer: &Value) -> bool {
    if normalizer.is_null() {
        return true;
    }
    match normalizer["type"].as_str() {
        Some(
            "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt" | "Precompiled" | "Prepend"
            | "Strip" | "StripAccents",
        ) => true,
        Some("Replace") => {
            let (pattern, content) = (&normalizer["pattern"], normalizer["content"].as_str());
            match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
                (Some(" "), _) => content == Some("\u{2581}"),
                (Some("``" | "''"), _) => content == Some("\""),
                (_, Some(" {2,}")) => matches!(content, Some(" " | "\u{2581}")),
                _ => false,
            }
        }
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local_normalizer))
        }
        _ => false,
    }
}

/// Whether a normalizer replaces every space by U+2581.
fn replaces_spaces(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Replace") => normalizer["pattern"]["String"] == " ",
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().any(replaces_spaces)),
        _ => false,
    }
}

/// What a pre-tokenizer does at a cut point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// A piece begins there.
    AtSpaces,
    /// A piece may extend over it, but what comes after it does not change the pieces before it.
    Elsewhere,
    Unknown,
}

fn split_of(pre_tokenizer: &Value) -> Split {
    match pre_tokenizer["type"].as_str() {
        Some("BertPreTokenizer" | "Whitespace" | "WhitespaceSplit") => Split::AtSpaces,
        Some("ByteLevel") if pre_tokenizer["use_regex"] != false => Split::AtSpaces,
        Some("Metaspace") if pre_tokenizer["split"] != false => Split::AtSpaces,
        Some("CharDelimiterSplit") if pre_tokenizer["delimiter"] == " " => Split::AtSpaces,
        Some("Split") if is_known_split(pre_tokenizer) => Split::AtSpaces,
        Some("Digits" | "Punctuation") => Split::Elsewhere,
        Some("Sequence") => {
            let steps = pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice);
            steps.iter().map(split_of).find(|split| *split != Split::Elsewhere).unwrap_or(Split::Elsewhere)
        }
        _ => Split::Unknown,
    }
}

fn is_known_split(split: &Value) -> bool {
    let (pattern, behavior) = (&split["pattern"], split["behavior"].as_str());
    let is_known_regex = pattern["Regex"].as_str().is_some_and(|regex| SPLIT_PATTERNS.contains(&regex));
    match behavior {
        Some("Isolated") => split["invert"] != true && (is_known_regex || pattern["String"] == " "),
        Some("Removed" | "MergedWithNext") => split["invert"] != true && pattern["String"] == " ",
        _ => false,
    }
}

/// Whether no entry of a BPE vocabulary has U+2581 after another character, and words are tokenized by merges alone.
fn has_no_merge_across_spaces(model: &Value) -> bool {
    let Some(vocabulary) = model["vocab"].as_object() else { return false };
    let is_word_start_only = |token: &String| !token.trim_start_matches(METASPACE).contains(METASPACE);
    model["ignore_merges"] != true
        && model["continuing_subword_prefix"].as_str().is_none_or(str::is_empty)
        && model["end_of_word_suffix"].as_str().is_none_or(str::is_empty)
        && vocabulary.contains_key("\u{2581}")
        && vocabulary.keys().all(is_word_start_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_before_a_space_after_a_kept_character() {
        let text = "ab  cd\u{301} \u{e9} \u{6771} x";
        let cuts: Vec<usize> =
            (0..text.len()).filter(|at| last_cut(text, at.saturating_sub(1), *at) == Some(*at)).collect();
        let spaces_after = |word: &str| text.find(word).unwrap() + word.len();
        assert_eq!(
            cuts,
            [2, spaces_after("\u{e9}"), spaces_after("\u{6771}")],
            "not after a space or a combining mark"
        );
        assert_eq!((last_cut(text, 0, text.len()), first_cut(text, 0, text.len())), (Some(cuts[2]), Some(2)));
        assert_eq!(first_cut(text, 2, 5), None);
        assert_eq!(last_cut("", 0, 100), None);
    }

    #[test]
    fn metaspace_entries_inside_words_forbid_cuts() {
        let model = |vocabulary: &[&str]| {
            let vocabulary: serde_json::Map<String, Value> =
                vocabulary.iter().zip(0..).map(|(token, id)| (token.to_string(), Value::from(id))).collect();
            serde_json::json!({"type": "BPE", "vocab": vocabulary})
        };
        assert!(has_no_merge_across_spaces(&model(&["\u{2581}", "\u{2581}\u{2581}", "\u{2581}a", "a"])));
        assert!(!has_no_merge_across_spaces(&model(&["\u{2581}", "a\u{2581}"])));
        assert!(!has_no_merge_across_spaces(&model(&["a"])));
    }
}

//! Spans of the words of a text, which are independent of the tokenizer.

use crate::model::CharSpan;

/// Words of a text in code points: runs of letters and digits, and every other character except white space. In scripts without
/// spaces each character is a word.
pub fn split_words(text: &str) -> Vec<CharSpan> {
    let mut words: Vec<CharSpan> = Vec::new();
    let mut in_word = false;
    for (position, character) in (0u32..).zip(text.chars()) {
        let is_word_char = character.is_alphanumeric() && !is_unspaced_script(character);
        match words.last_mut() {
            Some(word) if is_word_char && in_word => word.end = position + 1,
            _ if character.is_whitespace() => {}
            // A combining mark belongs to the letter before it.
            Some(word) if is_combining_mark(character) && word.end == position => word.end = position + 1,
            _ => words.push(position..position + 1),
        }
        in_word = is_word_char || (in_word && is_combining_mark(character));
    }
    words
}

/// Words joined by single spaces, and their spans.
pub fn join_words<'a>(words: impl IntoIterator<Item = &'a str>) -> (String, Vec<CharSpan>) {
    let (mut text, mut spans, mut position) = (String::new(), Vec::new(), 0u32);
    for word in words {
        if !spans.is_empty() {
            text.push(' ');
            position += 1;
        }
        let start = position;
        text.push_str(word);
        position += word.chars().count() as u32;
        spans.push(start..position);
    }
    (text, spans)
}

/// Substring with this span of code points.
pub fn slice_chars<'a>(text: &'a str, span: &CharSpan) -> &'a str {
    let mut byte_offsets = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    let start = byte_offsets.nth(span.start as usize).unwrap_or(text.len());
    match span.len() {
        0 => "",
        length => &text[start..byte_offsets.nth(length - 1).unwrap_or(text.len())],
    }
}

/// Whether a character is Thai, Lao, Burmese, Khmer, kana or an ideograph.
fn is_unspaced_script(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
        | 0xF900..=0xFAFF | 0x20000..=0x2FA1F)
}

/// Whether a character is a combining diacritic.
fn is_combining_mark(character: char) -> bool {
    matches!(u32::from(character), 0x0300..=0x036F | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_to_strings(text: &str) -> Vec<&str> {
        split_words(text).iter().map(|span| slice_chars(text, span)).collect()
    }

    #[test]
    fn a_word_is_a_run_of_letters_and_digits_or_one_symbol() {
        assert_eq!(split_to_strings("Where is\tmy 2nd card?"), ["Where", "is", "my", "2nd", "card", "?"]);
        assert_eq!(split_to_strings("don't (Köln–Łódź)"), ["don", "'", "t", "(", "Köln", "–", "Łódź", ")"]);
        assert_eq!(split_to_strings("cafe\u{301} 東京 タワー"), ["cafe\u{301}", "東", "京", "タ", "ワ", "ー"]);
        assert!(split_to_strings(" \n").is_empty());
    }

    #[test]
    fn pretokenized_words_are_joined_by_spaces() {
        let (text, spans) = join_words(["Łódź", "New York", "!"]);
        assert_eq!(text, "Łódź New York !");
        assert_eq!(spans, [0..4, 5..13, 14..15]);
        assert_eq!(spans.iter().map(|span| slice_chars(&text, span)).collect::<Vec<_>>(), ["Łódź", "New York", "!"]);
    }
}

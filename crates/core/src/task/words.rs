//! A text's words: what is tagged one by one. Whatever the tokenizer makes of them is its own business.

use crate::model::Span;

/// Runs of letters and digits, and every other character but white space by itself. Where a script has no spaces between
/// words, each of its characters is one. In code points, in the order of the text.
pub fn split(text: &str) -> Vec<Span> {
    let mut words: Vec<Span> = Vec::new();
    let mut is_running = false;
    for (place, character) in (0u32..).zip(text.chars()) {
        let runs = character.is_alphanumeric() && !is_unspaced(character);
        match words.last_mut() {
            Some(word) if runs && is_running => word.end = place + 1,
            _ if character.is_whitespace() => {}
            // A mark belongs to the letter that it stands on.
            Some(word) if is_mark(character) && word.end == place => word.end = place + 1,
            _ => words.push(place..place + 1),
        }
        is_running = runs || (is_running && is_mark(character));
    }
    words
}

/// Words that were given one by one, joined by single spaces.
pub fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> (String, Vec<Span>) {
    let (mut text, mut spans, mut end) = (String::new(), Vec::new(), 0u32);
    for word in words {
        if !spans.is_empty() {
            text.push(' ');
            end += 1;
        }
        let start = end;
        text.push_str(word);
        end += word.chars().count() as u32;
        spans.push(start..end);
    }
    (text, spans)
}

/// Some characters of a text.
pub fn cut<'a>(text: &'a str, span: &Span) -> &'a str {
    let mut places = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    let start = places.nth(span.start as usize).unwrap_or(text.len());
    match span.len() {
        0 => "",
        length => &text[start..places.nth(length - 1).unwrap_or(text.len())],
    }
}

/// Thai, Lao, Burmese, Khmer, kana and ideographs.
fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
        | 0xF900..=0xFAFF | 0x20000..=0x2FA1F)
}

/// Combining diacritics.
fn is_mark(character: char) -> bool {
    matches!(u32::from(character), 0x0300..=0x036F | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        split(text).iter().map(|span| cut(text, span)).collect()
    }

    #[test]
    fn a_word_is_a_run_of_letters_and_digits_or_a_sign() {
        assert_eq!(words("Where is\tmy 2nd card?"), ["Where", "is", "my", "2nd", "card", "?"]);
        assert_eq!(words("don't (Köln–Łódź)"), ["don", "'", "t", "(", "Köln", "–", "Łódź", ")"]);
        assert_eq!(words("cafe\u{301} 東京 タワー"), ["cafe\u{301}", "東", "京", "タ", "ワ", "ー"]);
        assert!(words(" \n").is_empty());
    }

    #[test]
    fn given_words_are_joined_by_spaces() {
        let (text, spans) = join(["Łódź", "New York", "!"]);
        assert_eq!(text, "Łódź New York !");
        assert_eq!(spans, [0..4, 5..13, 14..15]);
        assert_eq!(spans.iter().map(|span| cut(&text, span)).collect::<Vec<_>>(), ["Łódź", "New York", "!"]);
    }
}

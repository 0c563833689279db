//! Lists that are written as texts: in the notation of JSON, Python (`['a', 'b']`, and its sets and tuples) or NumPy (`['a' 'b']`).

/// Item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListItem {
    pub text: String,
    pub is_quoted: bool,
}

/// Items of a text in brackets; `None` for a text that is no list. Items are quoted, or separated words without quotes.
pub(super) fn parse_list(text: &str) -> Option<Vec<ListItem>> {
    if text.trim() == "set()" {
        return Some(Vec::new());
    }
    let (content, is_list) = bracketed(text.trim())?;
    let mut items = Vec::new();
    let mut rest = content.trim_start();
    let (mut follows_comma, mut comma_count) = (true, 0);
    while let Some(first) = rest.chars().next() {
        if first == ',' {
            if follows_comma {
                return None;
            }
            follows_comma = true;
            comma_count += 1;
            rest = rest[1..].trim_start();
            continue;
        }
        follows_comma = false;
        let (item, remainder) =
            if matches!(first, '\'' | '"') { quoted_item(rest, first)? } else { unquoted_item(rest)? };
        items.push(item);
        rest = remainder.trim_start();
    }
    // A set or tuple of Python is one if all items are quoted.
    if !is_list && (items.is_empty() || items.iter().any(|item| !item.is_quoted)) {
        return None;
    }
    // A text in brackets, such as [deleted], is no list.
    let has_words = items.iter().any(|item| !item.is_quoted && item.text.parse::<f64>().is_err());
    (!has_words || (comma_count > 0 && comma_count + 1 >= items.len())).then_some(items)
}

/// Text in brackets, and whether they are those of a list.
fn bracketed(text: &str) -> Option<(&str, bool)> {
    let between = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let list = between('[', ']').map(|content| (content, true));
    list.or_else(|| between('{', '}').or_else(|| between('(', ')')).map(|content| (content, false)))
}

/// Item in quotes, and the text after it.
fn quoted_item(text: &str, quote: char) -> Option<(ListItem, &str)> {
    let mut item = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((offset, character)) = characters.next() {
        match character {
            '\\' => item.push(unescaped(characters.next()?.1, &mut characters)?),
            _ if character == quote => return Some((ListItem { text: item, is_quoted: true }, &text[offset + 1..])),
            _ => item.push(character),
        }
    }
    None
}

/// Character of an escape sequence that begins with `kind`.
fn unescaped(kind: char, characters: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let mut hexadecimal = |digits: usize| {
        let code: String = characters.take(digits).map(|(_, digit)| digit).collect();
        u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
    };
    match kind {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'x' => hexadecimal(2),
        'u' => hexadecimal(4),
        'U' => hexadecimal(8),
        other => Some(other),
    }
}

/// Number or word without quotes, and the text after it; `None` for a nested list.
fn unquoted_item(text: &str) -> Option<(ListItem, &str)> {
    let end = text.find(|character: char| character == ',' || character.is_whitespace()).unwrap_or(text.len());
    let word = &text[..end];
    let is_plain = !word.contains(['[', ']', '{', '}', '(', ')', '\'', '"']);
    is_plain.then(|| (ListItem { text: word.to_string(), is_quoted: false }, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<String>> {
        parse_list(text).map(|items| items.into_iter().map(|item| item.text).collect())
    }

    #[test]
    fn lists_of_json_python_and_numpy_are_parsed() {
        let expected = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(items("['a', \"it's\"]"), expected(&["a", "it's"]));
        assert_eq!(items(" [\"a\",\"b\\n\\u00e9\"] "), expected(&["a", "b\né"]));
        assert_eq!(items("['a' 'b'\n 'c']"), expected(&["a", "b", "c"]));
        assert_eq!(items("[1, 0, 3.5]"), expected(&["1", "0", "3.5"]));
        assert_eq!(items("[a, b c]"), None);
        assert_eq!(items("[a, b]"), expected(&["a", "b"]));
        assert_eq!(items("['a',]"), expected(&["a"]));
        assert_eq!(items("[]"), expected(&[]));
        assert_eq!(items("{'a', 'b'}"), expected(&["a", "b"]));
        assert_eq!(items("('a',)"), expected(&["a"]));
        assert_eq!(items("set()"), expected(&[]));
    }

    #[test]
    fn other_texts_are_no_lists() {
        for text in [
            "a, b",
            "[a",
            "['a",
            "[, 'a']",
            "[[1, 2]]",
            "[1] see below",
            "['a'}",
            "{\"a\": \"b\"}",
            "{}",
            "(a)",
            "(1, 2)",
            "[\"a\\",
            "[deleted]",
            "[a b]",
        ] {
            assert_eq!(items(text), None, "{text}");
        }
    }
}

//! Keys by which copies and near-copies of a text are found: equal up to case, white space and Unicode form (NFKC).

use super::{Conversation, Example, Target};
use crate::model::chat::Message;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// First half of a SHA-256, which is enough to rule out accidental collisions.
pub type TextKey = [u8; 16];

impl Example {
    /// Key of what the model reads: the text with its pair, the anchor of similar texts, or the prompt of an answer.
    pub fn input_key(&self) -> TextKey {
        let text_fields = || [Some(self.text.as_str()), self.text_pair.as_deref()];
        match &self.target {
            Target::Label(_) | Target::MultiLabel(_) | Target::Value(_) | Target::Tags { .. } | Target::Text => {
                key(text_fields())
            }
            Target::Score(_) => {
                let mut texts = text_fields().map(|text| normalize(text.unwrap_or_default()));
                // A similarity has no direction.
                texts.sort_unstable();
                key(texts.each_ref().map(|text| Some(text.as_str())))
            }
            Target::Positive { .. } | Target::Completion(_) | Target::Preference { .. } => {
                key([Some(self.text.as_str())])
            }
            Target::Conversation(conversation) => prompt_key(conversation),
            Target::ConversationPreference { chosen, .. } => prompt_key(chosen),
        }
    }

    /// Key of the input with what is learned about it; for labels and values that of the input alone.
    pub fn row_key(&self) -> TextKey {
        match &self.target {
            Target::Label(_)
            | Target::MultiLabel(_)
            | Target::Value(_)
            | Target::Tags { .. }
            | Target::Text
            | Target::Score(_) => self.input_key(),
            Target::Positive { positive: answer, .. }
            | Target::Completion(answer)
            | Target::Preference { chosen: answer, .. } => key([Some(self.text.as_str()), Some(answer)]),
            Target::Conversation(conversation) | Target::ConversationPreference { chosen: conversation, .. } => {
                messages_key(&conversation.messages)
            }
        }
    }
}

/// Key of the messages before the last one, or of a single message.
fn prompt_key(conversation: &Conversation) -> TextKey {
    match conversation.messages.as_slice() {
        [prompt @ .., _] if !prompt.is_empty() => messages_key(prompt),
        messages => messages_key(messages),
    }
}

fn messages_key(messages: &[Message]) -> TextKey {
    let texts = messages.iter().map(|message| {
        let content = message.content().map(|content| match content.as_str() {
            Some(text) => text.to_string(),
            None => content.to_string(),
        });
        format!("{}: {}", message.role(), content.unwrap_or_default())
    });
    let texts: Vec<String> = texts.collect();
    key(texts.iter().map(|text| Some(text.as_str())))
}

fn key<'a>(fields: impl IntoIterator<Item = Option<&'a str>>) -> TextKey {
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update([u8::from(field.is_some())]);
        if let Some(text) = field {
            let text = normalize(text);
            // The length before the text keeps ("ab", "c") and ("a", "bc") apart.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
    }
    let mut key = TextKey::default();
    key.copy_from_slice(&hasher.finalize()[..16]);
    key
}

/// The text in NFKC and lower case, with single spaces between its words.
fn normalize(text: &str) -> String {
    let lower_case = match text.is_ascii() {
        true => text.to_ascii_lowercase(),
        false => text.nfkc().flat_map(char::to_lowercase).collect(),
    };
    let mut normalized = String::with_capacity(lower_case.len());
    for word in lower_case.split_whitespace() {
        if !normalized.is_empty() {
            normalized.push(' ');
        }
        normalized.push_str(word);
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(text: &str, pair: Option<&str>, target: Target) -> Example {
        Example { line: 1, text: text.to_string(), text_pair: pair.map(str::to_string), target }
    }

    #[test]
    fn case_white_space_and_unicode_form_do_not_count() {
        let key = |text: &str| example(text, None, Target::Label("a".to_string())).input_key();
        assert_eq!(key("Where is  my card?\n"), key("where is my CARD?"));
        assert_eq!(key("Re\u{301}sume\u{301} \u{fb01}x"), key("R\u{e9}SUM\u{e9}\u{a0}FIX"));
        assert_ne!(key("where is my card"), key("where is my card?"));
    }

    #[test]
    fn pairs_have_a_direction_unless_they_are_similarities() {
        let key = |text: &str, pair: &str, target: Target| example(text, Some(pair), target).input_key();
        let label = || Target::Label("a".to_string());
        assert_ne!(key("one", "two", label()), key("two", "one", label()));
        assert_ne!(key("ab", "c", label()), key("a", "bc", label()));
        assert_eq!(key("one", "two", Target::Score(1.0)), key("Two", "one", Target::Score(0.5)));
    }

    #[test]
    fn answers_to_one_prompt_share_their_input_key_alone() {
        let completion = |answer: &str| example("count", None, Target::Completion(answer.to_string()));
        let (one, other) = (completion("1"), completion("2"));
        assert_eq!(one.input_key(), other.input_key());
        assert_ne!(one.row_key(), other.row_key());
        let conversation = |answer: &str| {
            let messages = vec![Message::new("user", "count"), Message::new("assistant", answer)];
            example("", None, Target::Conversation(Conversation { messages, tools: None }))
        };
        assert_eq!(conversation("1").input_key(), conversation("2").input_key());
        assert_ne!(conversation("1").row_key(), conversation("2").row_key());
    }
}

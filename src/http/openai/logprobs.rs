//! Log probabilities of tokens in OpenAI's formats, and in vLLM's `prompt_logprobs`.

use super::choice_output::ChoicePrompt;
use crate::http::state::AppState;
use crate::serving::generation::TokenOutput;
use crate::serving::generation::sampling::Logprobs;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write;
use utoipa::ToSchema;

/// Log probabilities of a chat message.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<TokenLogprob>,
}

/// Log probability of a generated token.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatLogprobToken)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f32,
    /// UTF-8 bytes of the token, which may end inside a character.
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens at a position.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatTopLogprob)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// `None` if the request did not ask for log probabilities.
    pub fn from_tokens(state: &AppState, tokens: &[TokenOutput]) -> Option<Self> {
        let token_logprob = |token: &TokenOutput| {
            let logprobs = token.logprobs.as_ref()?;
            let top_logprob = |(id, logprob): &(u32, f32)| {
                let bytes = state.serving.token_bytes(*id);
                TopLogprob { token: lossy_text(&bytes), logprob: *logprob, bytes }
            };
            let bytes = state.serving.token_bytes(token.token_id);
            let top_logprobs = logprobs.top.iter().map(top_logprob).collect();
            Some(TokenLogprob { token: lossy_text(&bytes), logprob: logprobs.token, bytes, top_logprobs })
        };
        tokens.iter().map(token_logprob).collect::<Option<Vec<TokenLogprob>>>().map(|content| Self { content })
    }
}

/// Log probabilities of a text completion: lists with one value per token.
///
/// A token that is no whole character is written `bytes:\\xe2\\x82`. A second token with the same text at a position is written
/// `token_id:7`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    pub tokens: Vec<String>,
    /// `null` for the first token of an echoed prompt, which nothing precedes.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most likely tokens and the token itself, the most likely first.
    #[schema(value_type = Vec<Option<BTreeMap<String, f32>>>)]
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// Start of each token in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// Log probabilities by token; the order is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprobs(Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl CompletionLogprobs {
    /// Those of the echoed prompt, if there is one, and of the generated tokens. `None` if the request did not ask for log probabilities.
    pub fn new(
        token_bytes: impl Fn(u32) -> Vec<u8>,
        prompt: Option<&ChoicePrompt>,
        tokens: &[TokenOutput],
    ) -> Option<Self> {
        let mut result = Self::default();
        if let Some(prompt) = prompt.filter(|prompt| prompt.parts.echo) {
            let top_count = prompt.parts.echo_logprobs? as usize;
            let after_first = prompt.logprobs.as_ref()?.iter().map(Some);
            for (token, logprobs) in prompt.text.tokens.iter().zip(std::iter::once(None).chain(after_first)) {
                result.push(&token_bytes, token.id, token.text_offset, logprobs, top_count);
            }
        }
        for token in tokens {
            let logprobs = token.logprobs.as_ref()?;
            result.push(&token_bytes, token.token_id, token.text_offset, Some(logprobs), logprobs.top.len());
        }
        Some(result)
    }

    fn push(
        &mut self,
        token_bytes: impl Fn(u32) -> Vec<u8>,
        id: u32,
        text_offset: usize,
        logprobs: Option<&Logprobs>,
        top_count: usize,
    ) {
        let token = token_text(&token_bytes(id), id);
        self.top_logprobs.push(logprobs.map(|logprobs| {
            let mut top: Vec<(u32, f32)> = logprobs.top.iter().take(top_count).copied().collect();
            if !top.iter().any(|(other, _)| *other == id) {
                top.push((id, logprobs.token));
            }
            TopLogprobs::new(&token_bytes, (id, &token), &top)
        }));
        self.token_logprobs.push(logprobs.map(|logprobs| logprobs.token));
        self.tokens.push(token);
        self.text_offset.push(text_offset);
    }
}

impl TopLogprobs {
    /// Names each token by its text; those whose text another token has by their id. The token at this position keeps its text.
    fn new(token_bytes: impl Fn(u32) -> Vec<u8>, (id, text): (u32, &String), top: &[(u32, f32)]) -> Self {
        let mut named: Vec<(String, f32)> = Vec::with_capacity(top.len());
        for (other, logprob) in top {
            let mut name = token_text(&token_bytes(*other), *other);
            if *other != id && (name == *text || named.iter().any(|(taken, _)| *taken == name)) {
                name = id_text(*other);
            }
            named.push((name, *logprob));
        }
        Self(named)
    }
}

/// Log probabilities of one position in vLLM's `prompt_logprobs`, by token id.
pub type PromptPosition = BTreeMap<u32, PromptLogprob>;

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PromptLogprob {
    pub logprob: f32,
    /// Position among the most likely tokens, from 1.
    pub rank: u32,
    /// Text of the token.
    pub decoded_token: String,
}

/// vLLM's `prompt_logprobs`: `null` for the first token; the prompt's token and the most likely ones for the others.
pub fn prompt_positions(state: &AppState, prompt: &ChoicePrompt) -> Option<Vec<Option<PromptPosition>>> {
    let top_count = prompt.parts.prompt_logprobs? as usize;
    let logprobs = prompt.logprobs.as_ref()?;
    let entry = |id: u32, logprob, rank| {
        (id, PromptLogprob { logprob, rank, decoded_token: lossy_text(&state.serving.token_bytes(id)) })
    };
    let position = |(token, logprobs): (u32, &Logprobs)| {
        let top = logprobs.top.iter().take(top_count).zip(1..);
        let top = top.map(|((id, logprob), rank)| entry(*id, *logprob, rank));
        Some(top.chain([entry(token, logprobs.token, logprobs.rank)]).collect())
    };
    let after_first = prompt.text.tokens.iter().skip(1).map(|token| token.id).zip(logprobs.iter()).map(position);
    Some(std::iter::once(None).chain(after_first).collect())
}

/// Text of a token; `bytes:…` if its bytes are no text, and its id if it has none.
fn token_text(bytes: &[u8], id: u32) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => id_text(id),
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().fold("bytes:".to_string(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

fn id_text(id: u32) -> String {
    format!("token_id:{id}")
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "A", a byte token of "A", and halves of a character.
    fn bytes(id: u32) -> Vec<u8> {
        let tokens: [&[u8]; 5] = [b"A", b"A", b"\xe2\x82", b"\xe2\x83", b""];
        tokens[id as usize].to_vec()
    }

    fn token(id: u32, token: f32, top: &[(u32, f32)]) -> TokenOutput {
        let logprobs = Some(Logprobs { token, rank: 1, top: top.to_vec() });
        TokenOutput { token_id: id, text_delta: String::new(), text_offset: 3, logprobs, finish_reason: None }
    }

    #[test]
    fn tokens_with_the_same_text_stay_apart() {
        let top = [(0, -0.5), (1, -1.0), (2, -2.0), (3, -3.0), (4, -4.0)];
        let names = |id, top| {
            let logprobs = CompletionLogprobs::new(bytes, None, &[token(id, -9.0, top)]).unwrap();
            let json = serde_json::to_string(&logprobs.top_logprobs[0]).unwrap();
            (logprobs.tokens[0].clone(), json)
        };
        let expected =
            r#"{"A":-0.5,"token_id:1":-1.0,"bytes:\\xe2\\x82":-2.0,"bytes:\\xe2\\x83":-3.0,"token_id:4":-4.0}"#;
        assert_eq!(names(0, &top), ("A".to_string(), expected.to_string()));
        // The token itself keeps its text, and is there if it is not one of the most likely.
        assert_eq!(names(1, &top[..2]), ("A".to_string(), r#"{"token_id:0":-0.5,"A":-1.0}"#.to_string()));
        assert_eq!(names(1, &top[..1]), ("A".to_string(), r#"{"token_id:0":-0.5,"A":-9.0}"#.to_string()));
        assert_eq!(names(2, &[]).1, r#"{"bytes:\\xe2\\x82":-9.0}"#);
    }

    #[test]
    fn no_logprobs_without_a_request_for_them() {
        let plain = TokenOutput { logprobs: None, ..token(0, 0.0, &[]) };
        assert_eq!(CompletionLogprobs::new(bytes, None, &[plain]), None);
    }
}

//! Log probabilities of tokens in the formats of OpenAI's chat and text completions.

use crate::http::state::AppState;
use crate::serving::generation::TokenOutput;
use serde::Serialize;
use std::collections::BTreeMap;
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
            Some(TokenLogprob { token: lossy_text(&bytes), logprob: logprobs.sampled, bytes, top_logprobs })
        };
        tokens.iter().map(token_logprob).collect::<Option<Vec<TokenLogprob>>>().map(|content| Self { content })
    }
}

/// Log probabilities of a text completion.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Offset of each token in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// `None` if the request did not ask for log probabilities.
    pub fn from_tokens(state: &AppState, tokens: &[TokenOutput]) -> Option<Self> {
        let mut result = Self::default();
        for token in tokens {
            let logprobs = token.logprobs.as_ref()?;
            result.tokens.push(lossy_text(&state.serving.token_bytes(token.token_id)));
            result.token_logprobs.push(logprobs.sampled);
            let top = logprobs.top.iter().map(|(id, logprob)| (lossy_text(&state.serving.token_bytes(*id)), *logprob));
            result.top_logprobs.push(top.collect());
            result.text_offset.push(token.text_offset);
        }
        Some(result)
    }
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

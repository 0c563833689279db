//! How likely tokens were, in OpenAI's two forms.

use crate::http::state::State;
use crate::serving::generate::Chosen;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Of a chat's message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatLogprobs)]
pub struct Content {
    pub content: Vec<Token>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatLogprobToken)]
pub struct Token {
    pub token: String,
    pub logprob: f32,
    /// The token may be a part of a character.
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<Other>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatTopLogprob)]
pub struct Other {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

impl Content {
    /// `None` where they were not asked for.
    pub fn of(state: &State, chosen: &[Chosen]) -> Option<Self> {
        let one = |chosen: &Chosen| {
            let found = chosen.logprobs.as_ref()?;
            let other = |(id, logprob): &(u32, f32)| {
                let bytes = state.serving.spelled(*id);
                Other { token: text(&bytes), logprob: *logprob, bytes }
            };
            let bytes = state.serving.spelled(chosen.id);
            let top_logprobs = found.top.iter().map(other).collect();
            Some(Token { token: text(&bytes), logprob: found.chosen, bytes, top_logprobs })
        };
        chosen.iter().map(one).collect::<Option<Vec<Token>>>().map(|content| Self { content })
    }
}

/// Of a completion.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CompletionLogprobs)]
pub struct Lists {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// In characters of the completion.
    pub text_offset: Vec<usize>,
}

impl Lists {
    /// `None` where they were not asked for.
    pub fn of(state: &State, chosen: &[Chosen]) -> Option<Self> {
        let mut lists =
            Self { tokens: Vec::new(), token_logprobs: Vec::new(), top_logprobs: Vec::new(), text_offset: Vec::new() };
        for chosen in chosen {
            let found = chosen.logprobs.as_ref()?;
            lists.tokens.push(text(&state.serving.spelled(chosen.id)));
            lists.token_logprobs.push(found.chosen);
            let top = found.top.iter().map(|(id, logprob)| (text(&state.serving.spelled(*id)), *logprob));
            lists.top_logprobs.push(top.collect());
            lists.text_offset.push(chosen.offset);
        }
        Some(lists)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

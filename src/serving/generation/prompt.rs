//! Prompts: their tokens, and where the tokens start in the text.

use super::detokenizer::decode_with_offsets;
use espalier_core::error::{Error, Result};
use espalier_core::model::chat::{Message, RenderOptions};
use espalier_core::model::{BaseModel, TextLimits};

/// Prompt of a generation request.
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    /// A conversation, rendered with the chat template of the base model.
    Messages {
        messages: Vec<Message>,
        template_options: RenderOptions,
    },
}

/// Text of a prompt, and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptText {
    pub text: String,
    pub tokens: Vec<PromptToken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptToken {
    pub id: u32,
    /// Start of the token in characters of the text; for a token inside a character, the start of that character.
    pub text_offset: usize,
}

impl Prompt {
    /// Size in bytes.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
            Self::Messages { messages, .. } => messages.iter().map(Message::text_bytes).sum(),
        }
    }

    /// # Errors
    /// `Invalid`: `too_long` for a text with more tokens than the context, `invalid_generation` for ids beyond the vocabulary, and the
    /// errors of the chat template.
    pub fn tokenize(&self, base: &BaseModel, limits: TextLimits<'_>) -> Result<Vec<u32>> {
        let ids = match self {
            Self::Text(text) => base.tokenizer().encode_prompt_within(text, limits)?,
            Self::Tokens(ids) => match ids.iter().find(|id| **id as usize >= base.info().vocabulary_size) {
                None => Some(ids.clone()),
                Some(id) => {
                    let detail = format!("the prompt's token {id} is not in the vocabulary");
                    return Err(Error::invalid("invalid_generation", detail));
                }
            },
            Self::Messages { messages, template_options } => {
                base.tokenizer().encode_chat_within(messages, template_options, limits)?
            }
        };
        ids.ok_or_else(|| {
            let detail = format!(
                "this model's maximum context length is {} tokens with the answer, and the prompt has more: shorten it",
                limits.max_length
            );
            Error::invalid("too_long", detail)
        })
    }

    /// Text of the prompt, whose tokens are `ids`. Special tokens that the tokenizer puts before a text are no part of the text.
    pub fn to_text(&self, base: &BaseModel, ids: &[u32]) -> PromptText {
        let tokenizer = base.tokenizer();
        let added_tokens = match self {
            Self::Text(_) => tokenizer.prompt_prefix_length().min(ids.len()),
            Self::Tokens(_) | Self::Messages { .. } => 0,
        };
        let (added_ids, text_ids) = ids.split_at(added_tokens);
        let (offsets, decoded) = decode_with_offsets(|ids| tokenizer.decode_with_special_tokens(ids), text_ids);
        let token = |(id, text_offset): (&u32, usize)| PromptToken { id: *id, text_offset };
        let added = added_ids.iter().map(|id| PromptToken { id: *id, text_offset: 0 });
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Tokens(_) | Self::Messages { .. } => decoded,
        };
        PromptText { text, tokens: added.chain(text_ids.iter().zip(offsets).map(token)).collect() }
    }
}

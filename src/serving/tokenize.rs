//! Tokenizing and detokenizing as requests of their own.

use super::generation::Prompt;
use super::service::InferenceService;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::model::tokenizer::SpecialTokens;

/// A text or a conversation to tokenize.
pub struct TokenizeRequest {
    pub prompt: Prompt,
    pub special_tokens: SpecialTokens,
    pub output: TokenizeOutput,
}

/// What is returned beside the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizeOutput {
    Ids,
    /// The tokens as the vocabulary writes them.
    IdsAndTokens,
}

pub struct TokenizedText {
    pub ids: Vec<u32>,
    /// One per id, if they are requested.
    pub tokens: Option<Vec<String>>,
}

impl InferenceService {
    /// Tokenizes a text or a conversation.
    ///
    /// # Errors
    /// `Invalid`: `text_too_long`, and the errors of the chat template; `Busy` (`shutting_down`).
    pub async fn tokenize(&self, owner: &str, request: TokenizeRequest) -> Result<TokenizedText> {
        let text_bytes = request.prompt.text_bytes();
        self.run_tokenizing(owner, text_bytes, move |base, max_text_bytes| request.tokenize(base, max_text_bytes)).await
    }

    /// Text of token ids, special tokens included.
    ///
    /// # Errors
    /// `Invalid` for an id beyond the vocabulary; `Busy` (`shutting_down`).
    pub async fn detokenize(&self, owner: &str, ids: Vec<u32>) -> Result<String> {
        self.run_tokenizing(owner, size_of_val(ids.as_slice()), move |base, _| detokenize(base, &ids)).await
    }
}

impl TokenizeRequest {
    fn tokenize(&self, base: &BaseModel, max_text_bytes: usize) -> Result<TokenizedText> {
        let tokenizer = base.tokenizer();
        let encode = |text: &str| match text.len() > max_text_bytes {
            true => Err(text_too_long(max_text_bytes)),
            false => tokenizer.encode_text(text, self.special_tokens),
        };
        let ids = match &self.prompt {
            Prompt::Text(text) => encode(text)?,
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Messages { messages, template_options } => {
                encode(&tokenizer.render_chat(messages, template_options)?)?
            }
        };
        let token = |id: &u32| tokenizer.id_to_token(*id).unwrap_or_default();
        let tokens = match self.output {
            TokenizeOutput::Ids => None,
            TokenizeOutput::IdsAndTokens => Some(ids.iter().map(token).collect()),
        };
        Ok(TokenizedText { ids, tokens })
    }
}

fn detokenize(base: &BaseModel, ids: &[u32]) -> Result<String> {
    let tokenizer = base.tokenizer();
    match ids.iter().position(|id| *id as usize >= tokenizer.id_count()) {
        None => Ok(tokenizer.decode_with_special_tokens(ids)),
        Some(index) => {
            let message =
                format!("{} is not a token: the vocabulary's ids are below {}", ids[index], tokenizer.id_count());
            Err(Error::invalid_field(format!("/tokens/{index}"), message))
        }
    }
}

fn text_too_long(max_text_bytes: usize) -> Error {
    let detail = format!("the text has more than {max_text_bytes} bytes (--max-text of this server): send it in parts");
    Error::invalid("text_too_long", detail)
}

//! What a tokenizer does for a model that says what comes next: prompts, conversations, and where they end.

use super::{Tokenizer, unreadable_chat};
use crate::error::{Error, Result};
use crate::model::chat::{Asked, Json, Message, Template};

/// What a checkpoint says of conversations, and of where a text ends.
#[derive(Default)]
pub struct Speech {
    /// The chat template, or why it cannot be used.
    pub template: Option<std::result::Result<Template, String>>,
    /// What ends a text that is learned.
    pub end: Option<u32>,
    /// Tokens behind which nothing is generated.
    pub stops: Vec<u32>,
}

impl Tokenizer {
    pub fn with_speech(self, speech: Speech) -> Self {
        Self { speech, ..self }
    }

    /// What ends a text that is learned, where there is such a token.
    pub fn end(&self) -> Option<u32> {
        self.speech.end
    }

    /// Tokens behind which nothing is generated.
    pub fn stops(&self) -> &[u32] {
        &self.speech.stops
    }

    pub fn has_chat_template(&self) -> bool {
        matches!(self.speech.template, Some(Ok(_)))
    }

    /// A token's id, as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The same the other way.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of tokens, without special ones.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// A text to be continued: with the special tokens in front that the tokenizer puts there, and none behind.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let whole = self.inner.encode_fast(text, true).map_err(Error::internal)?;
        let mut ids = whole.get_ids().to_vec();
        let behind = whole.get_special_tokens_mask().iter().rev().take_while(|special| **special == 1).count();
        // A text of nothing but special tokens is left as it is.
        if behind < ids.len() {
            ids.truncate(ids.len() - behind);
        }
        Ok(ids)
    }

    /// A prompt, whose tokens are `asked`, and what follows it. Where a token would reach over the border, the two are kept
    /// apart, as they are when the prompt is asked.
    pub fn continued(&self, asked: &[u32], prompt: &str, completion: &str) -> Result<Vec<u32>> {
        let joint = self.prompt(&format!("{prompt}{completion}"))?;
        match joint.starts_with(asked) {
            true => Ok(joint),
            false => Ok([asked, &self.plain(completion)?].concat()),
        }
    }

    /// A conversation that the assistant is to go on with.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template`, or what the template says against it.
    pub fn chat(&self, messages: &[Message], asked: &Asked) -> Result<Vec<u32>> {
        self.plain(&self.template()?.prompt(messages, asked)?)
    }

    /// A whole conversation, and which of its tokens the assistant has to say; a message with the `weight` 0 is not to be
    /// learned.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn conversation(&self, messages: &[Message], tools: Option<&Json>) -> Result<(Vec<u32>, Vec<bool>)> {
        let asked = Asked { tools: tools.cloned(), ..Asked::steady() };
        let whole = self.template()?.conversation(messages, &asked, &self.control())?;
        let said = messages.iter().filter(|message| message.role() == ASSISTANT);
        let weight = |message: &Message| message.field("weight").and_then(|weight| f64::try_from(weight).ok());
        let is_learned = said.map(|message| weight(message) != Some(0.0));
        let turns: Vec<_> = whole.turns.iter().zip(is_learned).filter(|(_, is_learned)| *is_learned).collect();
        let encoded = self.inner.encode(whole.text.as_str(), false).map_err(Error::internal)?;
        let is_learned =
            |(start, end): &(usize, usize)| turns.iter().any(|(turn, _)| turn.start <= *start && *end <= turn.end);
        let learned = encoded.get_offsets().iter().map(is_learned).collect();
        Ok((encoded.get_ids().to_vec(), learned))
    }

    /// How the tokens are written that are no text.
    fn control(&self) -> Vec<String> {
        self.special().into_iter().filter_map(|id| self.token(id)).collect()
    }

    fn template(&self) -> Result<&Template> {
        match &self.speech.template {
            Some(Ok(template)) => Ok(template),
            Some(Err(reason)) => Err(unreadable_chat(reason)),
            None => {
                let advice = "send a prompt and its completion, or use an instruction-tuned base";
                Err(Error::invalid("no_chat_template", format!("the base model has no chat template: {advice}")))
            }
        }
    }
}

const ASSISTANT: &str = "assistant";

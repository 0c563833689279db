//! What a tokenizer does for a model that says what comes next: prompts, conversations, and where they end.

use super::Tokenizer;
use crate::error::{Error, Result};
use crate::model::chat::{ChatTemplate, Json, Message, RenderOptions};
use crate::model::generation_config::GenerationConfig;

impl Tokenizer {
    pub fn with_generation_config(self, generation_config: GenerationConfig) -> Self {
        Self { generation_config, ..self }
    }

    /// What ends a text that is learned, where there is such a token.
    pub fn eos(&self) -> Option<u32> {
        self.generation_config.eos
    }

    /// Tokens behind which nothing is generated.
    pub fn eos_ids(&self) -> &[u32] {
        &self.generation_config.eos_ids
    }

    pub fn has_chat_template(&self) -> bool {
        matches!(self.generation_config.chat_template, Some(Ok(_)))
    }

    /// A token's id, as the vocabulary writes it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The same the other way.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of tokens, without special ones.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// A text to be continued: with the special tokens in front that the tokenizer puts there, and none behind.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(Error::internal)?;
        let mut ids = encoding.get_ids().to_vec();
        let trailing_special_tokens =
            encoding.get_special_tokens_mask().iter().rev().take_while(|special| **special == 1).count();
        // A text of nothing but special tokens is left as it is.
        if trailing_special_tokens < ids.len() {
            ids.truncate(ids.len() - trailing_special_tokens);
        }
        Ok(ids)
    }

    /// A prompt, whose tokens are `asked`, and what follows it. Where a token would reach over the border, the two are kept
    /// apart, as they are when the prompt is asked.
    pub fn encode_completion(&self, prompt_ids: &[u32], prompt: &str, completion: &str) -> Result<Vec<u32>> {
        let joint_ids = self.encode_prompt(&format!("{prompt}{completion}"))?;
        match joint_ids.starts_with(prompt_ids) {
            true => Ok(joint_ids),
            false => Ok([prompt_ids, &self.encode_without_special_tokens(completion)?].concat()),
        }
    }

    /// A conversation that the assistant is to go on with.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template`, or what the template says against it.
    pub fn encode_chat(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<u32>> {
        self.encode_without_special_tokens(&self.chat_template()?.render_prompt(messages, options)?)
    }

    /// A whole conversation, and which of its tokens the assistant has to say; a message with the `weight` 0 is not to be
    /// learned.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn encode_conversation(&self, messages: &[Message], tools: Option<&Json>) -> Result<(Vec<u32>, Vec<bool>)> {
        let options = RenderOptions { tools: tools.cloned(), ..RenderOptions::with_fixed_time() };
        let rendered = self.chat_template()?.render_conversation(messages, &options, &self.special_tokens())?;
        let assistant_messages = messages.iter().filter(|message| message.role() == ASSISTANT_ROLE);
        let message_weight = |message: &Message| message.field("weight").and_then(|weight| f64::try_from(weight).ok());
        let has_loss = assistant_messages.map(|message| message_weight(message) != Some(0.0));
        let learned_spans: Vec<_> =
            rendered.assistant_spans.iter().zip(has_loss).filter(|(_, is_learned)| *is_learned).collect();
        let encoding = self.inner.encode(rendered.text.as_str(), false).map_err(Error::internal)?;
        let is_in_learned_span = |(start, end): &(usize, usize)| {
            learned_spans.iter().any(|(turn, _)| turn.start <= *start && *end <= turn.end)
        };
        let loss_mask = encoding.get_offsets().iter().map(is_in_learned_span).collect();
        Ok((encoding.get_ids().to_vec(), loss_mask))
    }

    /// How the tokens are written that are no text.
    fn special_tokens(&self) -> Vec<String> {
        self.special_ids().into_iter().filter_map(|id| self.id_to_token(id)).collect()
    }

    fn chat_template(&self) -> Result<&ChatTemplate> {
        match &self.generation_config.chat_template {
            Some(Ok(template)) => Ok(template),
            Some(Err(reason)) => Err(invalid_chat_template(reason)),
            None => {
                let advice = "send a prompt and its completion, or use an instruction-tuned base";
                Err(Error::invalid("no_chat_template", format!("the base model has no chat template: {advice}")))
            }
        }
    }
}

const ASSISTANT_ROLE: &str = "assistant";

fn invalid_chat_template(reason: &str) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be used: {reason}"))
}

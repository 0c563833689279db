//! Conversations: rendered with the chat template and encoded, for generation and for training.

use super::text_start::Offsets;
use super::{TextLimits, Tokenizer};
use crate::error::{Error, Result};
use crate::model::chat::{ASSISTANT_ROLE, ChatTemplate, Json, Message, RenderOptions};

impl Tokenizer {
    pub fn has_chat_template(&self) -> bool {
        self.valid_chat_template().is_some()
    }

    /// Text of a conversation with the generation prompt of the assistant.
    ///
    /// # Errors
    /// `Invalid`, as for [`Self::encode_chat`].
    pub fn render_chat(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        self.chat_template()?.render_prompt(messages, options)
    }

    /// [`Self::encode_chat`] within the limits of a request; `None` if the conversation has more than `max_length` tokens.
    ///
    /// # Errors
    /// `Invalid`, as for [`Self::encode_chat`], and `text_too_long`, as for [`Self::encode_within`].
    pub fn encode_chat_within(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        limits: TextLimits,
    ) -> Result<Option<Vec<u32>>> {
        let text = self.chat_template()?.render_prompt(messages, options)?;
        let start = self.text_encoder(Offsets::None, limits).encode(&text, limits.max_length)?;
        Ok((start.token_count() <= limits.max_length).then(|| start.encoding.get_ids().to_vec()))
    }

    /// Encodes a conversation with the generation prompt of the assistant.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template`, `bad_chat_template`, or `chat_template_refused` if the template raises an exception.
    pub fn encode_chat(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<u32>> {
        self.encode_without_special_tokens(&self.chat_template()?.render_prompt(messages, options)?)
    }

    /// Encodes a conversation for training. The second vector is the loss mask: true for tokens of assistant messages whose
    /// `weight` is not 0.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template`, `bad_chat_template`, or `chat_template_refused` if the template raises an exception or
    /// an assistant message cannot be located in the text.
    pub fn encode_conversation(&self, messages: &[Message], tools: Option<&Json>) -> Result<(Vec<u32>, Vec<bool>)> {
        let options = RenderOptions { tools: tools.cloned(), ..RenderOptions::with_fixed_time() };
        let template = self.chat_template()?.select(&options);
        if tools.is_some() && !template.renders_tools() {
            return Err(no_place_for("tools", "leave `tools` out of the row"));
        }
        let has_tool_calls = messages.iter().any(|message| message.field("tool_calls").is_some());
        if has_tool_calls && !template.renders_tool_calls() {
            return Err(no_place_for("calls of tools", "leave the conversation out, or write the calls as content"));
        }
        let rendered = template.render_conversation(messages, &options, &self.special_tokens())?;
        let assistant_messages = messages.iter().filter(|message| message.role() == ASSISTANT_ROLE);
        let message_weight = |message: &Message| message.field("weight").and_then(|weight| f64::try_from(weight).ok());
        let has_loss = assistant_messages.map(|message| message_weight(message) != Some(0.0));
        let learned_spans: Vec<_> =
            rendered.assistant_spans.iter().zip(has_loss).filter(|(_, is_learned)| *is_learned).collect();
        let encoding = self.inner.encode(rendered.text.as_str(), false).map_err(Error::internal)?;
        let is_in_learned_span = |(start, end): &(usize, usize)| {
            learned_spans.iter().any(|(span, _)| span.start <= *start && *end <= span.end)
        };
        let loss_mask = encoding.get_offsets().iter().map(is_in_learned_span).collect();
        Ok((encoding.get_ids().to_vec(), loss_mask))
    }

    /// Texts of the special tokens.
    fn special_tokens(&self) -> Vec<String> {
        self.special_ids().into_iter().filter_map(|id| self.id_to_token(id)).collect()
    }

    /// The chat template; `None` without one that parses.
    pub fn valid_chat_template(&self) -> Option<&ChatTemplate> {
        self.generation_config.chat_template.as_ref()?.as_ref().ok()
    }

    /// The chat template.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template`, or `bad_chat_template` if it does not parse.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
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

fn no_place_for(what: &str, advice: &str) -> Error {
    let detail =
        format!("the base model's chat template has no place for {what}: {advice}, or use a base with such a template");
    Error::invalid("chat_template_refused", detail)
}

fn invalid_chat_template(reason: &str) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be used: {reason}"))
}

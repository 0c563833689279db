//! Encodes prompts, completions and conversations for causal language models.

use super::Tokenizer;
use crate::error::{Error, Result};
use crate::model::chat::{ASSISTANT_ROLE, ChatTemplate, Json, Message, RenderOptions};
use crate::model::generation_config::GenerationConfig;

impl Tokenizer {
    pub fn with_generation_config(self, generation_config: GenerationConfig) -> Self {
        Self { generation_config, ..self }
    }

    /// End-of-text token that is appended to training examples.
    pub fn eos(&self) -> Option<u32> {
        self.generation_config.eos
    }

    /// Tokens that end generation.
    pub fn eos_ids(&self) -> &[u32] {
        &self.generation_config.eos_ids
    }

    pub fn has_chat_template(&self) -> bool {
        matches!(self.generation_config.chat_template, Some(Ok(_)))
    }

    /// Id of a token of the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token of the vocabulary with this id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Decodes token ids and skips special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// Encodes a prompt with the special tokens that the tokenizer adds at its start, without those at its end.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(Error::internal)?;
        let mut ids = encoding.get_ids().to_vec();
        let trailing_special_tokens =
            encoding.get_special_tokens_mask().iter().rev().take_while(|special| **special == 1).count();
        // A prompt of special tokens alone is kept.
        if trailing_special_tokens < ids.len() {
            ids.truncate(ids.len() - trailing_special_tokens);
        }
        Ok(ids)
    }

    /// Encodes a prompt, whose own encoding is `prompt_ids`, with its completion. If a token would span the boundary, the two are
    /// encoded separately, as in generation.
    pub fn encode_completion(&self, prompt_ids: &[u32], prompt: &str, completion: &str) -> Result<Vec<u32>> {
        let joint_ids = self.encode_prompt(&format!("{prompt}{completion}"))?;
        match joint_ids.starts_with(prompt_ids) {
            true => Ok(joint_ids),
            false => Ok([prompt_ids, &self.encode_without_special_tokens(completion)?].concat()),
        }
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
        let rendered = self.chat_template()?.render_conversation(messages, &options, &self.special_tokens())?;
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

fn invalid_chat_template(reason: &str) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be used: {reason}"))
}

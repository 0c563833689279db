//! Conversations as rows have them: lists of messages, perhaps with the tools that the assistant may call. Knows no template.

use super::column_mapping::ColumnMapping;
use super::diagnostics::{self, Diagnostic};
use super::row::{RawTarget, RowFields};
use crate::model::chat::{Json, Message};
use crate::task::Conversation;
use serde_json::value::RawValue;
use std::borrow::Cow;

const ASSISTANT_ROLE: &str = "assistant";

const MESSAGE_EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Messages of a conversation.
const MAX_MESSAGES: usize = 256;

/// # Errors
/// Where they are not messages.
pub(super) fn parse_conversation(messages: &RawValue, tools: Option<&RawValue>) -> Result<Conversation, Diagnostic> {
    let messages = parse_messages(messages, "messages")?;
    Ok(Conversation { messages, tools: parse_tools(tools)? })
}

fn parse_tools(tools: Option<&RawValue>) -> Result<Option<Json>, Diagnostic> {
    let tools = tools.map(|tools| match tools.get().starts_with('[') {
        true => {
            serde_json::from_str(tools.get()).map_err(|error| wrong_type(format!("`tools` cannot be read: {error}")))
        }
        false => Err(wrong_type("`tools` has to be a list of tools".to_string())),
    });
    tools.transpose()
}

fn parse_messages(messages: &RawValue, field: &str) -> Result<Vec<Message>, Diagnostic> {
    let raw_messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| wrong_type(format!("`{field}` has to be a list of objects like {MESSAGE_EXAMPLE}")))?;
    if raw_messages.len() > MAX_MESSAGES {
        return Err(wrong_type(format!(
            "there are {} messages, and {MAX_MESSAGES} are read at most: shorten it",
            raw_messages.len()
        )));
    }
    raw_messages.into_iter().zip(1..).map(|(message, number)| parse_message(message, number)).collect()
}

/// A preference between conversations, as TRL's datasets have it: a prompt of messages and two answers of text or messages; or two
/// whole conversations that begin alike, and perhaps their first message as the prompt again.
pub(super) struct PreferenceRow<'a> {
    prompt: Option<&'a RawValue>,
    chosen: &'a RawValue,
    rejected: &'a RawValue,
    tools: Option<&'a RawValue>,
}

impl<'a> PreferenceRow<'a> {
    /// `None` where the row has no messages, or not all fields: then it is read, or refused, as texts.
    pub fn from_row(field: impl Fn(&str) -> Option<&'a RawValue>, mapping: &ColumnMapping) -> Option<Self> {
        let non_null = |name: &str| field(name).filter(|value| value.get() != "null");
        let is_list = |value: &RawValue| value.get().starts_with('[');
        let (prompt, chosen) = (non_null(&mapping.text_column), non_null(&mapping.target_column)?);
        let rejected = non_null(&mapping.second_text.as_ref()?.column)?;
        let contains_messages = is_list(chosen) || is_list(rejected) || prompt.is_some_and(is_list);
        (contains_messages && (prompt.is_some() || is_list(chosen))).then(|| Self {
            prompt,
            chosen,
            rejected,
            tools: non_null("tools"),
        })
    }

    /// # Errors
    /// Where they are not messages, or not two conversations that end with different turns of the assistant's.
    pub fn into_fields(self) -> Result<RowFields<'a>, Diagnostic> {
        let prompt_messages =
            self.prompt.map(|prompt| messages_or_text(prompt, "prompt", "user")).transpose()?.unwrap_or_default();
        let [chosen, rejected] = [(self.chosen, "chosen"), (self.rejected, "rejected")].map(|(field, name)| {
            messages_or_text(field, name, ASSISTANT_ROLE)
                .and_then(|messages| with_prompt(&prompt_messages, messages, name))
        });
        let (mut chosen, mut rejected) = (chosen?, rejected?);
        let common_prefix = chosen.iter().zip(&rejected).take_while(|(one, other)| is_same_message(one, other)).count();
        if common_prefix == chosen.len() || common_prefix == rejected.len() {
            return Err(wrong_type(
                "`chosen` and `rejected` are the same, or one is the beginning of the other".to_string(),
            ));
        }
        for messages in [&mut chosen, &mut rejected] {
            messages[..common_prefix].iter_mut().for_each(|message| *message = message.with_field("weight", 0));
        }
        let tools = parse_tools(self.tools)?;
        let pair = [chosen, rejected].map(|messages| Conversation { messages, tools: tools.clone() });
        let dedup_text = format!("{} {}", self.prompt.map_or("", RawValue::get), self.chosen.get());
        let rejected = Cow::Borrowed(self.rejected.get());
        Ok(RowFields::new(dedup_text.into(), Some(rejected), RawTarget::ChosenConversation(Box::new(pair))))
    }
}

/// Whether two messages say the same, whatever their weights.
fn is_same_message(left: &Message, right: &Message) -> bool {
    left.with_field("weight", 0) == right.with_field("weight", 0)
}

/// Messages, or a text as one message.
fn messages_or_text(value: &RawValue, field: &str, role: &str) -> Result<Vec<Message>, Diagnostic> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Ok(vec![Message::new(role, text)]),
        Err(_) => parse_messages(value, field),
    }
}

/// A prompt with its answer; an answer that does not begin with the assistant is the whole conversation, the prompt in it.
fn with_prompt(prompt: &[Message], answer: Vec<Message>, field: &str) -> Result<Vec<Message>, Diagnostic> {
    if answer.last().is_none_or(|last| last.role() != ASSISTANT_ROLE) {
        return Err(wrong_type(format!("`{field}` has to end with a message of the assistant's")));
    }
    if answer[0].role() == ASSISTANT_ROLE {
        return Ok([prompt, &answer].concat());
    }
    let starts_with_prompt =
        answer.len() >= prompt.len() && prompt.iter().zip(&answer).all(|(one, other)| is_same_message(one, other));
    match starts_with_prompt {
        true => Ok(answer),
        false => {
            let advice = "begin it with the assistant's message, or with the whole prompt";
            Err(wrong_type(format!("`{field}` begins with neither: {advice}")))
        }
    }
}

fn parse_message(message: &RawValue, number: usize) -> Result<Message, Diagnostic> {
    let parsed: Message = serde_json::from_str(message.get()).map_err(|error| {
        wrong_type(format!("message {number} has to be an object like {MESSAGE_EXAMPLE} ({error})"))
    })?;
    let flattened = parsed
        .with_flattened_content()
        .map_err(|part| wrong_type(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_valid_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    match flattened.field("weight") {
        Some(weight) if !f64::try_from(weight.clone()).is_ok_and(is_valid_weight) => {
            Err(wrong_type(format!("the `weight` of message {number} has to be 0 or 1")))
        }
        _ => Ok(flattened),
    }
}

fn wrong_type(message: String) -> Diagnostic {
    Diagnostic::new(diagnostics::WRONG_TYPE, message)
}

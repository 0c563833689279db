//! Conversations as rows have them: lists of messages, perhaps with the tools that the assistant may call. Knows no template.

use super::findings::{self, Flaw};
use crate::model::chat::Message;
use crate::task::Conversation;
use serde_json::value::RawValue;

const EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Messages of a conversation.
const MOST: usize = 256;

/// # Errors
/// Where they are not messages.
pub(super) fn read(messages: &RawValue, tools: Option<&RawValue>) -> Result<Conversation, Flaw> {
    let all: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| wrong(format!("`messages` has to be a list of objects like {EXAMPLE}")))?;
    if all.len() > MOST {
        return Err(wrong(format!("there are {} messages, and {MOST} are read at most: shorten it", all.len())));
    }
    let messages = all.into_iter().zip(1..).map(|(message, number)| one(message, number)).collect::<Result<_, _>>()?;
    let tools = tools.map(|tools| match tools.get().starts_with('[') {
        true => serde_json::from_str(tools.get()).map_err(|error| wrong(format!("`tools` cannot be read: {error}"))),
        false => Err(wrong("`tools` has to be a list of tools".to_string())),
    });
    Ok(Conversation { messages, tools: tools.transpose()? })
}

fn one(message: &RawValue, number: usize) -> Result<Message, Flaw> {
    let read: Message = serde_json::from_str(message.get())
        .map_err(|error| wrong(format!("message {number} has to be an object like {EXAMPLE} ({error})")))?;
    let read = read
        .plain()
        .map_err(|part| wrong(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    match read.field("weight") {
        Some(weight) if !f64::try_from(weight.clone()).is_ok_and(is_weight) => {
            Err(wrong(format!("the `weight` of message {number} has to be 0 or 1")))
        }
        _ => Ok(read),
    }
}

fn wrong(message: String) -> Flaw {
    Flaw::new(findings::WRONG_TYPE, message)
}

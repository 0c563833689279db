//! A conversation as it is learned. Knows no template.

use crate::model::chat::{Json, Message};
use serde::{Deserialize, Serialize};

/// Turns, and the tools that the assistant may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Json>,
}

impl Conversation {
    /// The texts of its messages, a line each.
    pub fn text(&self) -> String {
        let texts = self.messages.iter().filter_map(|message| message.content()?.as_str().map(str::to_string));
        texts.collect::<Vec<_>>().join("\n")
    }
}

//! Messages of a conversation.

use minijinja::Value as Json;
use minijinja::value::ValueKind;
use serde::{Deserialize, Deserializer, Serialize, de};

/// A message: a JSON object with `role`, `content` (a text, or another form that the template supports) and further fields such
/// as `tool_calls`. The order of the fields is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Json);

/// `role` of the messages that the model generates.
pub const ASSISTANT_ROLE: &str = "assistant";

impl Message {
    pub fn new(role: &str, content: impl Into<Json>) -> Self {
        Self(Json::from_pairs([("role", Json::from(role)), ("content", content.into())]))
    }

    pub fn role(&self) -> String {
        self.field("role").as_ref().and_then(Json::as_str).unwrap_or_default().to_string()
    }

    /// `None` if it is missing or null.
    pub fn content(&self) -> Option<Json> {
        self.field("content")
    }

    /// Size of the content in bytes; for a list that of its JSON.
    pub fn text_bytes(&self) -> usize {
        self.content().map_or(0, |content| content.as_str().map_or_else(|| content.to_string().len(), str::len))
    }

    /// `None` if the field is missing or null.
    pub fn field(&self, name: &str) -> Option<Json> {
        self.0.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none())
    }

    /// Joins the text parts of a content that is a list.
    ///
    /// # Errors
    /// The type of a part that is not text.
    pub fn with_flattened_content(self) -> Result<Self, String> {
        let Some(content) = self.content().filter(|content| content.kind() == ValueKind::Seq) else { return Ok(self) };
        let mut text = String::new();
        for part in content.try_iter().into_iter().flatten() {
            let field = |name: &str| part.get_attr(name).unwrap_or_default();
            match (field("type").as_str(), field("text").as_str()) {
                (Some("text"), Some(text_part)) => text.push_str(text_part),
                (kind, _) => return Err(format!("\"{}\"", kind.unwrap_or("unknown"))),
            }
        }
        Ok(self.with_content(&text))
    }

    /// A copy with this field set.
    pub fn with_field(&self, name: &str, value: impl Into<Json>) -> Self {
        let other_fields = self.fields().filter(|(other, _)| other.as_str() != Some(name));
        Self(Json::from_pairs(other_fields.chain([(Json::from(name), value.into())])))
    }

    /// A copy with this content.
    pub(super) fn with_content(&self, content: &str) -> Self {
        self.with_field("content", content)
    }

    /// The value that transformers passes to a template: without null fields, and with the reasoning under each name that
    /// templates use.
    pub(super) fn to_template_value(&self) -> Json {
        let reasoning = ["reasoning_content", "thinking", "reasoning"].into_iter().find_map(|name| self.field(name));
        let fields = self.fields().filter(|(_, value)| !value.is_none());
        match reasoning {
            None => Json::from_pairs(fields),
            Some(reasoning) => {
                let thinking_field = (Json::from("thinking"), reasoning.clone());
                let reasoning_field = (Json::from("reasoning_content"), reasoning);
                Json::from_pairs(std::iter::once(thinking_field).chain(fields).chain([reasoning_field]))
            }
        }
    }

    fn fields(&self) -> impl Iterator<Item = (Json, Json)> + '_ {
        let names = self.0.try_iter().ok().into_iter().flatten();
        names.map(|name| {
            let value = self.0.get_item(&name).unwrap_or_default();
            (name, value)
        })
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Json::deserialize(deserializer)?;
        if fields.kind() != ValueKind::Map {
            return Err(de::Error::custom("a message is an object with \"role\" and \"content\""));
        }
        match fields.get_attr("role").ok().as_ref().and_then(Json::as_str) {
            Some(_) => Ok(Self(fields)),
            None => Err(de::Error::custom("a message needs a \"role\" that is a text")),
        }
    }
}

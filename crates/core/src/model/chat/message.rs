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
pub const SYSTEM_ROLE: &str = "system";
/// OpenAI's newer name of the system's role.
pub const DEVELOPER_ROLE: &str = "developer";
pub const USER_ROLE: &str = "user";
/// `role` of the result of a call.
pub const TOOL_ROLE: &str = "tool";

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
    /// The type of a part that has no text.
    pub fn with_flattened_content(self) -> Result<Self, String> {
        let Some(content) = self.content().filter(|content| content.kind() == ValueKind::Seq) else { return Ok(self) };
        let mut text = String::new();
        for part in content.try_iter().into_iter().flatten() {
            let field = |name: &str| part.get_attr(name).unwrap_or_default();
            match (field("type").as_str(), field("text").as_str(), field("refusal").as_str()) {
                (Some("text" | "input_text" | "output_text") | None, Some(text_part), _)
                | (Some("refusal"), _, Some(text_part)) => text.push_str(text_part),
                (Some(kind @ ("text" | "input_text" | "output_text" | "refusal")), ..) => {
                    return Err(format!("\"{kind}\" without a text"));
                }
                (kind, ..) => return Err(format!("\"{}\"", kind.unwrap_or("unknown"))),
            }
        }
        Ok(self.with_content(&text))
    }

    /// A copy with this field set, in its place if it is there.
    pub fn with_field(&self, name: &str, value: impl Into<Json>) -> Self {
        let mut fields: Vec<(Json, Json)> = self.fields().collect();
        match fields.iter_mut().find(|(other, _)| other.as_str() == Some(name)) {
            Some((_, old_value)) => *old_value = value.into(),
            None => fields.push((Json::from(name), value.into())),
        }
        Self(Json::from_pairs(fields))
    }

    /// A copy without this field.
    pub fn without_field(&self, name: &str) -> Self {
        Self(Json::from_pairs(self.fields().filter(|(other, _)| other.as_str() != Some(name))))
    }

    /// A copy whose calls of tools are `tool_calls` with arguments that are no JSON text: as vLLM passes them to a template. A
    /// `function_call`, which `tool_calls` has replaced, becomes one of them.
    ///
    /// # Errors
    /// A sentence about calls that cannot be read.
    pub fn with_tool_calls(&self) -> Result<Self, String> {
        let calls: Vec<Json> = match (self.field("tool_calls"), self.field("function_call")) {
            (None, None) => return Ok(self.clone()),
            (Some(calls), _) if calls.kind() == ValueKind::Seq => calls.try_iter().into_iter().flatten().collect(),
            (Some(_), _) => return Err("`tool_calls` has to be a list".to_string()),
            (None, Some(function)) => {
                vec![Json::from_pairs([
                    (Json::from("type"), Json::from("function")),
                    (Json::from("function"), function),
                ])]
            }
        };
        if calls.is_empty() {
            return Ok(self.clone());
        }
        let calls: Vec<Json> = calls.iter().map(|call| map_arguments(call, &parse_text)).collect::<Result<_, _>>()?;
        Ok(self.without_field("function_call").with_field("tool_calls", Json::from(calls)))
    }

    /// A copy whose calls of tools have arguments that are JSON texts, for templates that join texts.
    pub(super) fn with_argument_texts(&self) -> Self {
        let to_text = |arguments: Json| match arguments.as_str() {
            Some(_) => Ok(arguments),
            None => serde_json::to_string(&arguments).map(Json::from).map_err(|error| error.to_string()),
        };
        let calls = self.field("tool_calls").and_then(|calls| {
            let calls = calls.try_iter().ok()?.map(|call| map_arguments(&call, &to_text));
            calls.collect::<Result<Vec<Json>, String>>().ok()
        });
        calls.map_or_else(|| self.clone(), |calls| self.with_field("tool_calls", Json::from(calls)))
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

/// A tool call, or its `function`, with other arguments.
fn map_arguments(call: &Json, change: &dyn Fn(Json) -> Result<Json, String>) -> Result<Json, String> {
    let field = |name: &str| call.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none());
    let replaced = match (field("function"), field("arguments")) {
        (Some(function), _) => (Json::from("function"), map_arguments(&function, change)?),
        (None, Some(arguments)) => (Json::from("arguments"), change(arguments)?),
        (None, None) => return Err("a tool call needs a `function` with `name` and `arguments`".to_string()),
    };
    let names = call.try_iter().map_err(|_| "a tool call has to be an object".to_string())?;
    let fields = names.map(|name| match name == replaced.0 {
        true => replaced.clone(),
        false => {
            let value = call.get_item(&name).unwrap_or_default();
            (name, value)
        }
    });
    Ok(Json::from_pairs(fields))
}

/// Arguments of a tool call that are written as JSON text, or that are no text. No text is no arguments.
fn parse_text(arguments: Json) -> Result<Json, String> {
    match arguments.as_str().map(str::trim) {
        None => Ok(arguments),
        Some("") => Ok(Json::from_pairs(<[(Json, Json); 0]>::default())),
        Some(text) => {
            serde_json::from_str(text).map_err(|error| format!("the arguments of a tool call are no JSON ({error})"))
        }
    }
}

impl Message {
    /// Without `tool_calls` that hold none: clients send an empty list for no calls.
    fn without_empty_calls(self) -> Self {
        match self.field("tool_calls").is_some_and(|calls| calls.kind() == ValueKind::Seq && calls.len() == Some(0)) {
            true => self.without_field("tool_calls"),
            false => self,
        }
    }
}

impl TryFrom<Json> for Message {
    type Error = &'static str;

    fn try_from(fields: Json) -> Result<Self, Self::Error> {
        if fields.kind() != ValueKind::Map {
            return Err("must be an object with \"role\" and \"content\"");
        }
        match fields.get_attr("role").ok().as_ref().and_then(Json::as_str) {
            Some(_) => Ok(Self(fields).without_empty_calls()),
            None => Err("must have a \"role\" that is a string"),
        }
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Json::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> Message {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn arguments_of_tool_calls_are_parsed() {
        let parsed = message(
            r#"{"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": "{\"x\": 1}"}}"#,
        );
        let parsed = parsed.with_tool_calls().unwrap();
        let expected = r#"{"role":"assistant","content":"a","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]}"#;
        assert_eq!(serde_json::to_string(&parsed).unwrap(), expected);
        let texts = serde_json::to_string(&parsed.with_argument_texts()).unwrap();
        assert!(texts.contains(r#""arguments":"{\"x\":1}""#), "{texts}");
        let plain = message(r#"{"role": "user", "content": "a"}"#);
        assert_eq!(plain.with_tool_calls().unwrap(), plain);
        assert_eq!(message(r#"{"role": "user", "content": "a", "tool_calls": []}"#), plain);
        assert_eq!(plain.with_argument_texts(), plain);
    }

    #[test]
    fn unreadable_tool_calls_are_refused() {
        for calls in [r#""f""#, "[7]", r#"[{"name": "f"}]"#, r#"[{"function": {"name": "f", "arguments": "{"}}]"#] {
            let message = message(&format!(r#"{{"role": "assistant", "tool_calls": {calls}}}"#));
            assert!(message.with_tool_calls().is_err(), "{calls}");
        }
    }
}

//! Tools as text in the syntax of Hermes and Qwen, for templates that have no place for them: a system message describes the tools, and
//! the calls and results of earlier turns become contents.

use super::message::{ASSISTANT_ROLE, DEVELOPER_ROLE, Message, SYSTEM_ROLE, TOOL_ROLE, USER_ROLE};
use super::tool_calls::HERMES;
use minijinja::Value as Json;

/// Adds a description of the tools to the system message, or adds a system message.
pub fn with_tools_in_system_message(mut messages: Vec<Message>, tools: &[Json]) -> Vec<Message> {
    let tools: String = tools.iter().map(|tool| format!("\n{}", json_text(tool))).collect();
    let (start, end) = (HERMES.start, HERMES.end.unwrap_or_default());
    let description = format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
         signatures within <tools></tools> XML tags:\n<tools>{tools}\n</tools>\n\nFor each function call, return a json object \
         with function name and arguments within {start}{end} XML tags:\n{start}\n{{\"name\": <function-name>, \"arguments\": \
         <args-json-object>}}\n{end}"
    );
    match messages.first_mut().filter(|first| [SYSTEM_ROLE, DEVELOPER_ROLE].contains(&first.role().as_str())) {
        Some(first) => *first = first.with_content(&join(&[&content_text(first), &description], "\n\n")),
        None => messages.insert(0, Message::new(SYSTEM_ROLE, description)),
    }
    messages
}

/// Writes calls into the contents of the assistant's messages, and results into messages of the user.
pub fn with_calls_in_contents(messages: Vec<Message>) -> Vec<Message> {
    let mut written: Vec<Message> = Vec::with_capacity(messages.len());
    let mut follows_result = false;
    for message in messages {
        let role = message.role();
        let is_result = role == TOOL_ROLE;
        match written.last_mut().filter(|_| is_result && follows_result) {
            Some(previous) => {
                *previous = previous.with_content(&join(&[&content_text(previous), &result_text(&message)], "\n"));
            }
            None if is_result => written.push(Message::new(USER_ROLE, result_text(&message))),
            None if role == ASSISTANT_ROLE => written.push(with_calls_in_content(message)),
            None => written.push(message),
        }
        follows_result = is_result;
    }
    written
}

fn result_text(message: &Message) -> String {
    format!("<tool_response>\n{}\n</tool_response>", content_text(message))
}

fn with_calls_in_content(message: Message) -> Message {
    let Some(calls) = message.field("tool_calls") else { return message };
    let written_call = |call: Json| {
        let function = call.get_attr("function").ok().filter(|function| !function.is_undefined()).unwrap_or(call);
        let field = |name: &str| function.get_attr(name).unwrap_or_default();
        let (name, arguments) = (json_text(&field("name")), json_text(&field("arguments")));
        format!("{}\n{{\"name\": {name}, \"arguments\": {arguments}}}{}", HERMES.start, HERMES.close)
    };
    let calls: Vec<String> = calls.try_iter().into_iter().flatten().map(written_call).collect();
    message.without_field("tool_calls").with_content(&join(&[&content_text(&message), &calls.join("\n")], "\n"))
}

fn content_text(message: &Message) -> String {
    message
        .content()
        .map_or_else(String::new, |content| content.as_str().map_or_else(|| json_text(&content), Into::into))
}

/// The texts that are not empty.
fn join(texts: &[&str], separator: &str) -> String {
    let texts: Vec<&str> = texts.iter().copied().filter(|text| !text.is_empty()).collect();
    texts.join(separator)
}

fn json_text(value: &Json) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(json: &str) -> Vec<Message> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn calls_and_results_become_contents() {
        let written = with_calls_in_contents(messages(
            r#"[{"role": "user", "content": "a"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "function": {"name": "f", "arguments": {"x": 1}}},
                    {"id": "2", "function": {"name": "g", "arguments": {}}}]},
                {"role": "tool", "tool_call_id": "1", "content": "one"},
                {"role": "tool", "tool_call_id": "2", "content": "two"},
                {"role": "assistant", "content": "b"}]"#,
        ));
        let contents: Vec<(String, String)> =
            written.iter().map(|message| (message.role(), content_text(message))).collect();
        let expected = [
            ("user", "a"),
            (
                "assistant",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\":1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \
                 \"arguments\": {}}\n</tool_call>",
            ),
            ("user", "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"),
            ("assistant", "b"),
        ];
        assert_eq!(contents, expected.map(|(role, content)| (role.to_string(), content.to_string())));
        assert!(written.iter().all(|message| message.field("tool_calls").is_none()));
    }

    #[test]
    fn tools_are_described_in_the_system_message() {
        let tools = [Json::from_pairs([("name", "f")])];
        let added = with_tools_in_system_message(messages(r#"[{"role": "user", "content": "a"}]"#), &tools);
        assert_eq!((added.len(), added[0].role().as_str()), (2, "system"));
        assert!(content_text(&added[0]).contains("<tools>\n{\"name\":\"f\"}\n</tools>"));
        let kept = with_tools_in_system_message(messages(r#"[{"role": "developer", "content": "Be kind."}]"#), &tools);
        assert_eq!((kept.len(), kept[0].role().as_str()), (1, "developer"));
        assert!(content_text(&kept[0]).starts_with("Be kind.\n\n# Tools"));
    }
}

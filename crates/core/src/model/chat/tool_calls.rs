//! How models write calls of tools: the syntax that a chat template renders for the calls of earlier turns.

use serde_json::Value;

/// Syntax of the calls in an answer: `start`, `open`, the calls with `separator` between them, `close`. A call is a JSON object
/// with `name` and `arguments_field`.
#[derive(Debug, PartialEq, Eq)]
pub struct ToolCallSyntax {
    /// Marker before the calls, often a special token.
    pub start: &'static str,
    /// Whether an answer that begins with a call has no marker.
    pub start_is_optional: bool,
    pub open: &'static str,
    pub separator: &'static str,
    pub close: &'static str,
    /// Marker after a call, if there is one; a part of `separator` and `close`.
    pub end: Option<&'static str>,
    /// Whether the calls are the items of a JSON list.
    pub is_list: bool,
    pub arguments_field: &'static str,
    /// Length of the ids that templates of this syntax require; `None` if they take any.
    pub id_length: Option<usize>,
}

/// Hermes and Qwen: `<tool_call>` and `</tool_call>` around every call.
pub const HERMES: ToolCallSyntax = ToolCallSyntax {
    start: "<tool_call>",
    start_is_optional: false,
    open: "\n",
    separator: "\n</tool_call>\n<tool_call>\n",
    close: "\n</tool_call>",
    end: Some("</tool_call>"),
    is_list: false,
    arguments_field: "arguments",
    id_length: None,
};

/// Llama 3.1 and later: the answer is the call; `<|python_tag|>` may precede it.
pub const LLAMA3: ToolCallSyntax = ToolCallSyntax {
    start: "<|python_tag|>",
    start_is_optional: true,
    open: "",
    separator: "; ",
    close: "",
    end: None,
    is_list: false,
    arguments_field: "parameters",
    id_length: None,
};

/// Mistral, up to the tokenizer's version 7: a list of calls after `[TOOL_CALLS]`.
pub const MISTRAL: ToolCallSyntax = ToolCallSyntax {
    start: "[TOOL_CALLS]",
    start_is_optional: false,
    open: " [",
    separator: ", ",
    close: "]",
    end: None,
    is_list: true,
    arguments_field: "arguments",
    id_length: Some(9),
};

/// Granite 3: a list of calls after `<|tool_call|>`.
pub const GRANITE: ToolCallSyntax = ToolCallSyntax { start: "<|tool_call|>", open: "[", id_length: None, ..MISTRAL };

impl ToolCallSyntax {
    /// The syntax of a template. `None` if it has no place for calls, or writes them in another syntax.
    pub fn detect(template: &str) -> Option<&'static Self> {
        let contains = |text: &str| template.contains(text);
        if contains(MISTRAL.start) {
            // From version 11 on the tokenizer has `[ARGS]` between the name and the arguments.
            return (!contains("[ARGS]")).then_some(&MISTRAL);
        }
        if contains(HERMES.start) {
            Some(&HERMES)
        } else if contains(GRANITE.start) {
            Some(&GRANITE)
        } else if contains(LLAMA3.start) || (contains("\"parameters\"") && contains("ipython")) {
            Some(&LLAMA3)
        } else {
            None
        }
    }

    /// Text of a call before its arguments.
    pub fn call_head(&self, tool_name: &str) -> String {
        format!("{{\"name\": {}, \"{}\": ", Value::from(tool_name), self.arguments_field)
    }

    /// Markers, which have to be a part of the text where they are special tokens.
    pub fn markers(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.start).chain(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_syntax_is_that_of_the_template() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/chat/templates");
        for (template, expected) in [
            ("qwen2.5", Some(&HERMES)),
            ("qwen3", Some(&HERMES)),
            ("llama-3.2", Some(&LLAMA3)),
            ("mistral-v0.3", Some(&MISTRAL)),
            ("granite-3.3", Some(&GRANITE)),
            ("smollm2", None),
            ("deepseek-r1", None),
            ("lfm2.5", None),
        ] {
            let source = std::fs::read_to_string(folder.join(format!("{template}.jinja"))).unwrap();
            assert_eq!(ToolCallSyntax::detect(&source), expected, "{template}");
        }
        assert_eq!(ToolCallSyntax::detect("[TOOL_CALLS]{{ name }}[ARGS]"), None);
    }
}

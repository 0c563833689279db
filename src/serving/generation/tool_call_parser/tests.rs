//! Every syntax, whole and in pieces at every cut.

use super::*;
use espalier_core::model::chat::tool_calls::{GRANITE, HERMES, LLAMA3, MISTRAL};

const TOOLS: [&str; 2] = ["get_weather", "add"];

fn parser(syntax: &'static ToolCallSyntax, arguments: Arguments) -> ToolCallParser {
    ToolCallParser::new(syntax, TOOLS.map(str::to_string).to_vec(), arguments)
}

/// Contents and calls, with all pieces joined: `content`, and `name(arguments)`.
fn parse(mut parser: ToolCallParser, pieces: &[&str]) -> Vec<String> {
    let mut events: Vec<ToolCallEvent> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let mut parts: Vec<(String, bool)> = Vec::new();
    for event in events {
        match (event, parts.last_mut()) {
            (ToolCallEvent::Content(text), Some((last, false))) => last.push_str(&text),
            (ToolCallEvent::Content(text), _) => parts.push((text, false)),
            (ToolCallEvent::Call { name }, _) => parts.push((format!("{name}:"), true)),
            (ToolCallEvent::Arguments(text), Some((last, true))) => last.push_str(&text),
            (ToolCallEvent::Arguments(text), _) => panic!("arguments {text} without a call"),
        }
    }
    parts.into_iter().map(|(text, _)| text).collect()
}

/// Parses the text whole, character by character, and in two pieces at every cut.
fn assert_parsed(syntax: &'static ToolCallSyntax, arguments: Arguments, text: &str, expected: &[&str]) {
    let parse = |pieces: &[&str]| parse(parser(syntax, arguments), pieces);
    assert_eq!(parse(&[text]), expected, "{text}");
    let characters: Vec<String> = text.chars().map(String::from).collect();
    let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
    assert_eq!(parse(&characters), expected, "{text} by characters");
    for (cut, _) in text.char_indices() {
        assert_eq!(parse(&[&text[..cut], &text[cut..]]), expected, "{text} cut at {cut}");
    }
}

const CASES: [(&ToolCallSyntax, &str, &[&str]); 24] = [
    (&HERMES, "Just text, a < b.\n", &["Just text, a < b.\n"]),
    (&HERMES, "", &[]),
    (
        &HERMES,
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>",
        &["get_weather:{\"city\": \"Ulm\"}"],
    ),
    (
        &HERMES,
        "Let me see.\n\n<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"</tool_call>\"}]}}</tool_call>\n<tool_call>\n\
         {\"name\":\"get_weather\"}\n</tool_call>\nDone. ",
        &["Let me see.", "add:{\"a\": [1, {\"b\": \"}\\\"</tool_call>\"}]}", "get_weather:{}", "Done. "],
    ),
    (&HERMES, "<tool_call>\n{\"arguments\": \"{\\\"a\\\": 1}\", \"name\": \"add\"}\n</tool_call>", &["add:{\"a\": 1}"]),
    (
        &HERMES,
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": }}\n</tool_call> x",
        &["<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": }}\n</tool_call> x"],
    ),
    (
        &HERMES,
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1",
        &["<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1"],
    ),
    (&HERMES, "<tool_call>\n{\"name\": \"add\", </tool_call>", &["<tool_call>\n{\"name\": \"add\", </tool_call>"]),
    (
        &HERMES,
        "<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>",
        &["<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>"],
    ),
    (
        &HERMES,
        "<tool_call>{\"name\": \"add\", \"arguments\": 7}</tool_call>",
        &["<tool_call>{\"name\": \"add\", \"arguments\": 7}</tool_call>"],
    ),
    (&HERMES, "<tool_call> is a marker. <tool", &["<tool_call> is a marker. <tool"]),
    (&HERMES, "é <tool_call>\n{\"name\": \"add\", \"arguments\": {\"é\": \"ü\"}}", &["é", "add:{\"é\": \"ü\"}"]),
    (&LLAMA3, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}", &["add:{\"a\": 1}"]),
    (
        &LLAMA3,
        "\n<|python_tag|>{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"get_weather\", \"parameters\": {}}",
        &["add:{\"a\": 1}", "get_weather:{}"],
    ),
    (&LLAMA3, "{\"name\": \"Ada\", \"age\": 36}", &["{\"name\": \"Ada\", \"age\": 36}"]),
    (&LLAMA3, "So: {\"name\": \"add\", \"parameters\": {}}", &["So: {\"name\": \"add\", \"parameters\": {}}"]),
    (&LLAMA3, "<|python_tag|>print(1)", &["<|python_tag|>print(1)"]),
    (&LLAMA3, "{\"name\": \"add\", \"parameters\": {\"a\": 1}", &["{\"name\": \"add\", \"parameters\": {\"a\": 1}"]),
    (
        &MISTRAL,
        "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": [1]}}, {\"name\": \"get_weather\", \"arguments\": {}}]",
        &["add:{\"a\": [1]}", "get_weather:{}"],
    ),
    (&MISTRAL, "I will. [TOOL_CALLS][{\"name\": \"add\", \"arguments\": {}}]", &["I will.", "add:{}"]),
    (&MISTRAL, "[TOOL_CALLS] [add]", &["[TOOL_CALLS] [add]"]),
    (&MISTRAL, "[TOOL_CALLS]", &["[TOOL_CALLS]"]),
    (
        &MISTRAL,
        "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {}}, {\"name\": \"fly\"}]",
        &["add:{}", ", {\"name\": \"fly\"}]"],
    ),
    (&GRANITE, "<|tool_call|>[{\"name\": \"add\", \"arguments\": {\"a\": 1}}]", &["add:{\"a\": 1}"]),
];

#[test]
fn calls_are_found_wherever_the_text_is_cut() {
    for (syntax, text, expected) in CASES {
        assert_parsed(syntax, Arguments::Unconstrained, text, expected);
    }
}

#[test]
fn constrained_calls_are_the_same_and_their_arguments_come_at_once() {
    for syntax in [&HERMES, &LLAMA3, &MISTRAL, &GRANITE] {
        let call = |name: &str, arguments: &str| format!("{}{arguments}}}", syntax.call_head(name));
        let calls = [call("add", "{\"a\": {\"b\": \"}\"}}"), call("get_weather", "{}")].join(syntax.separator);
        let marker = if syntax.start_is_optional { "" } else { syntax.start };
        let text = format!("{marker}{}{calls}{}", syntax.open, syntax.close);
        let expected = ["add:{\"a\": {\"b\": \"}\"}}", "get_weather:{}"];
        assert_parsed(syntax, Arguments::Constrained, &text, &expected);
        assert_parsed(syntax, Arguments::Unconstrained, &text, &expected);
        let mut parser = parser(syntax, Arguments::Constrained);
        let cut = text.find("{\"b").unwrap();
        let call = ToolCallEvent::Call { name: "add".to_string() };
        assert_eq!(parser.push(&text[..cut]), [call, ToolCallEvent::Arguments("{\"a\": ".to_string())]);
        assert!(parser.is_inside_call());
        assert_eq!(parser.push("{\"b\""), [ToolCallEvent::Arguments("{\"b\"".to_string())]);
        assert_eq!((parser.finish(), parser.call_count(), parser.is_inside_call()), (vec![], 1, true));
    }
}

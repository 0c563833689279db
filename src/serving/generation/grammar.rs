//! Grammars of llguidance for constraints: JSON schemas, regular expressions, and calls of tools in the syntax of the base.

#[cfg(test)]
mod tests;

use super::closed_objects::close_objects;
use super::constraint_spec::{CallCount, ConstraintSpec, OtherText, ToolCallsSpec, ToolSpec};
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

/// White space between two JSON tokens: a space, or a line break with indentation. It is bounded, because an uncertain model
/// would generate white space without end.
const JSON_WHITESPACE: &str = r"\x20|\x0A[\x20\x09]{0,16}";

/// Name of the grammar of the text that may stand instead of calls.
const OTHER_TEXT: &str = "other_text";

/// Id of a special token by its text.
pub type SpecialTokenId<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// Builds the grammar of a constraint. Special tokens in the syntax of calls are matched by their ids, other texts by their bytes.
pub fn build(spec: &ConstraintSpec, special_token_id: SpecialTokenId<'_>) -> TopLevelGrammar {
    TopLevelGrammar { grammars: grammars(spec, special_token_id), max_tokens: None }
}

/// The grammar of the whole text, followed by those that it names.
fn grammars(spec: &ConstraintSpec, special_token_id: SpecialTokenId<'_>) -> Vec<GrammarWithLexer> {
    match spec {
        ConstraintSpec::JsonObject => vec![json_schema(json!({"type": "object"}))],
        ConstraintSpec::JsonSchema(schema) => vec![json_schema(schema.clone())],
        ConstraintSpec::Regex(pattern) => vec![GrammarWithLexer::from_regex(pattern)],
        ConstraintSpec::ToolCalls(calls) => tool_calls(calls, special_token_id),
    }
}

/// Closes objects, and adds the white space rule, unless the schema sets another one under `x-guidance`.
fn json_schema(mut schema: Value) -> GrammarWithLexer {
    close_objects(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": JSON_WHITESPACE}));
    }
    GrammarWithLexer::from_json_schema(schema)
}

fn tool_calls(calls: &ToolCallsSpec, special_token_id: SpecialTokenId<'_>) -> Vec<GrammarWithLexer> {
    let named = |name: String, grammar: GrammarWithLexer| GrammarWithLexer { name: Some(name), ..grammar };
    let mut all = vec![GrammarWithLexer::from_lark(text_rules(calls, special_token_id))];
    let schemas = calls.tools.iter().enumerate();
    all.extend(schemas.map(|(index, tool)| named(parameters_name(index), json_schema(tool.parameters.clone()))));
    if let OtherText::Format(format) = &calls.other_text {
        let mut others = grammars(format, special_token_id).into_iter();
        all.extend(others.next().map(|whole| named(OTHER_TEXT.to_string(), whole)));
        all.extend(others);
    }
    all
}

fn parameters_name(index: usize) -> String {
    format!("parameters_{index}")
}

/// Rules of the whole text in Lark.
fn text_rules(calls: &ToolCallsSpec, special_token_id: SpecialTokenId<'_>) -> String {
    let ToolCallSyntax { start, start_is_optional, open, separator, close, .. } = *calls.syntax;
    let literal = |text: &str| literal(calls.syntax, special_token_id, text);
    // The lexer cannot go back from the middle of a separator to the close that it begins with.
    let separator = match separator.strip_prefix(close) {
        Some(rest) => format!("{} {}", literal(close), literal(rest)),
        None => literal(separator),
    };
    let (open, close) = (literal(open), literal(close));
    let more_calls = match calls.count {
        // Free text goes on after a call, up to the marker of the next one.
        CallCount::Many if calls.other_text == OtherText::Free && !start_is_optional => String::new(),
        CallCount::AtMost(0 | 1) => String::new(),
        CallCount::AtMost(count) => format!("({separator} call) ~ 0..{}", count - 1),
        CallCount::Many => format!("({separator} call)*"),
    };
    let list = format!("{open} call {more_calls} {close}");
    let optional_start = special_token_id(start).map_or_else(String::new, |id| format!("(<[{id}]>)? "));
    let rules = match (&calls.other_text, start_is_optional) {
        (OtherText::Forbidden, false) => format!("start: {} calls", literal(start)),
        (OtherText::Forbidden, true) => "start: calls".to_string(),
        (OtherText::Format(_), false) => format!("start: {} calls | @{OTHER_TEXT}", literal(start)),
        (OtherText::Format(_), true) => format!("start: {optional_start}calls | @{OTHER_TEXT}"),
        // A text that begins like a call is one.
        (OtherText::Free, true) => format!("start: {optional_start}calls | TEXT\nTEXT: /[ \\n]*([^{{ \\n](.|\\n)*)?/"),
        (OtherText::Free, false) => free_text_rules(calls, &literal(start), special_token_id),
    };
    let tools: Vec<String> = (0..calls.tools.len()).map(|index| format!("tool_{index}")).collect();
    let mut text = format!("%llguidance {{}}\n{rules}\ncalls: {list}\ncall: {}\n", tools.join(" | "));
    for (index, tool) in calls.tools.iter().enumerate() {
        let head = Value::from(calls.syntax.call_head(&tool.name));
        text += &format!("tool_{index}: {head} @{} \"}}\"\n", parameters_name(index));
    }
    text
}

/// Text in which the marker begins calls.
fn free_text_rules(calls: &ToolCallsSpec, start: &str, special_token_id: SpecialTokenId<'_>) -> String {
    let marked = match special_token_id(calls.syntax.start) {
        Some(_) => format!("marked: TEXT {start} calls"),
        // The text ends where the marker does for the first time.
        None => format!("marked: text_to_marker calls\ntext_to_marker[lazy]: TEXT {start}"),
    };
    let start = match calls.count {
        CallCount::AtMost(_) => "start: marked | TEXT",
        CallCount::Many => "start: marked* TEXT",
    };
    format!("{start}\n{marked}\nTEXT: /(.|\\n)*/")
}

/// A text in Lark: markers that are special tokens by their ids, the rest as strings.
fn literal(syntax: &ToolCallSyntax, special_token_id: SpecialTokenId<'_>, text: &str) -> String {
    let special = syntax.markers().filter_map(|marker| Some((marker, special_token_id(marker)?)));
    let first = special.filter_map(|(marker, id)| Some((text.find(marker)?, marker, id))).min();
    let string = |text: &str| if text.is_empty() { String::new() } else { Value::from(text).to_string() };
    match first {
        None => string(text),
        Some((at, marker, id)) => {
            let rest = literal(syntax, special_token_id, &text[at + marker.len()..]);
            [string(&text[..at]), format!("<[{id}]>"), rest].join(" ").trim().to_string()
        }
    }
}

/// Grammar of the arguments of one tool.
pub fn parameters(tool: &ToolSpec) -> TopLevelGrammar {
    TopLevelGrammar::from_grammar(json_schema(tool.parameters.clone()))
}

//! Conversations, instructions and preferences of users' files.

use super::*;

#[test]
fn conversations() {
    let good = assert_read("21-sharegpt/good.jsonl", json!({}), RowSchema::Messages, 12, &[]);
    let sharegpt = assert_read(
        "21-sharegpt/train.jsonl",
        json!({}),
        RowSchema::Messages,
        12,
        &["read from \"conversations\"", "`from` and `value` in"],
    );
    assert_eq!(messages(&sharegpt.examples[0]), messages(&good.examples[0]));
    assert_eq!(check("21-sharegpt/train.json", &json!({})).examples, sharegpt.examples);
    assert_eq!(sharegpt.report.unread_columns, ["id"]);
    for file in ["conversation-roles.jsonl", "messages-as-string.jsonl", "messages-in.csv"] {
        let dataset = assert_read(&format!("21-sharegpt/{file}"), json!({}), RowSchema::Messages, 3, &[]);
        assert_eq!(messages(&dataset.examples[0])[1]["role"], "assistant", "{file}");
    }
    let tools = assert_read("21-sharegpt/tools.jsonl", json!({}), RowSchema::Messages, 3, &[]);
    let calls = messages(&tools.examples[0])[1]["tool_calls"].clone();
    assert_eq!(calls, json!([{"type": "function", "function": {"name": "look", "arguments": {}}}]));
    for file in [
        "developer-role",
        "function-call-legacy",
        "null-content",
        "only-call",
        "only-call-absent-content",
        "tools-as-string",
        "weights",
    ] {
        assert_read(&format!("23-tool-calls/{file}.jsonl"), json!({}), RowSchema::Messages, 3, &[]);
    }
    assert_read("23-tool-calls/text-parts.jsonl", json!({}), RowSchema::Messages, 2, &[]);
    let odd = assert_read("23-tool-calls/odd-role.jsonl", json!({}), RowSchema::Messages, 3, &[]);
    assert_eq!(messages(&odd.examples[0])[1]["role"], "assistant");
    assert_refused(
        "23-tool-calls/image-part.jsonl",
        json!({}),
        2,
        "a part of the type \"image_url\": only text is read",
    );
    assert_refused("23-tool-calls/plain-null.jsonl", json!({}), 1, "message 2 has no content");
    assert_refused("23-tool-calls/weight-half.jsonl", json!({}), 4, "the `weight` of message 2 has to be 0 or 1");
}

#[test]
fn instructions() {
    let sentences = [
        "`prompt` is read from \"instruction\"",
        "`completion` is read from \"output\"",
        "\"input\" follows the prompt of its row, after a blank line",
    ];
    let alpaca = assert_read("22-alpaca/spell.jsonl", json!({}), RowSchema::Completion, 8, &sentences);
    assert_eq!(alpaca.examples[0].text, "Spell the word backwards.\n\nlamp");
    let mapped = json!({"columns": {"prompt": "instruction", "completion": "output"}});
    assert_read("22-alpaca/spell.jsonl", mapped, RowSchema::Completion, 8, &sentences[2..]);
    let alpaca = assert_read("22-alpaca/train.jsonl", json!({}), RowSchema::Completion, 5, &sentences);
    assert_eq!(alpaca.examples[0].text, "What does the tide table show?");
    assert_read(
        "22-alpaca/question-answer.csv",
        json!({}),
        RowSchema::Completion,
        3,
        &["`prompt` is read from \"question\""],
    );
    assert_refused("22-alpaca/null-output.jsonl", json!({}), 1, "the field \"completion\" is null");
    assert_refused("22-alpaca/text-only.jsonl", json!({}), 1, "no object has a field \"label\"");
    let system = assert_read(
        "25-preference/system-column.jsonl",
        json!({}),
        RowSchema::Completion,
        3,
        &["\"system\" is the system message"],
    );
    let expected = json!([{"role": "system", "content": "Answer like a pirate.", "weight": 0},
        {"role": "user", "content": "What does the tide table show?", "weight": 0},
        {"role": "assistant", "content": "High and low water for each day."}]);
    assert_eq!(messages(&system.examples[0]), expected);
}

#[test]
fn preferences() {
    let openai = assert_read(
        "25-preference/openai.jsonl",
        json!({}),
        RowSchema::Chosen,
        3,
        &["`chosen` is read from \"preferred_output\""],
    );
    let expected = json!([{"role": "user", "content": "What does the tide table show?", "weight": 0},
        {"role": "assistant", "content": "High and low water for each day."}]);
    assert_eq!(messages(&openai.examples[0]), expected);
    let orca =
        assert_read("25-preference/orca.jsonl", json!({}), RowSchema::Chosen, 3, &["\"system\" is the system message"]);
    assert_eq!(messages(&orca.examples[0])[0]["content"], "Be brief.");
    let factory = assert_read(
        "25-preference/llama-factory.json",
        json!({}),
        RowSchema::Chosen,
        3,
        &["read from \"conversations\""],
    );
    assert_eq!(messages(&factory.examples[0]), expected);
    let scores = assert_read("25-preference/ultrafeedback.jsonl", json!({}), RowSchema::Chosen, 3, &[]);
    assert_eq!(scores.report.unread_columns, ["prompt_id", "score_chosen", "score_rejected"]);
}

#[test]
fn prompts_and_completions_of_messages() {
    let row =
        r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}"#;
    let dataset = check_text("jsonl", row, &json!({}));
    let expected = json!([{"role": "user", "content": "a", "weight": 0}, {"role": "assistant", "content": "b"}]);
    assert_eq!(messages(&dataset.examples[0]), expected);
    let tools = r#"{"prompt": "a", "completion": "b", "tools": [{"type": "function", "function": {"name": "f"}}]}"#;
    let dataset = check_text("jsonl", tools, &json!({}));
    let Target::Conversation(conversation) = &dataset.examples[0].target else { panic!() };
    assert!(conversation.tools.is_some());
    // JSON that is no message is a text.
    let dataset = check_text("jsonl", r#"{"prompt": "[1, 2]", "completion": "{\"a\": 1}"}"#, &json!({}));
    assert_eq!(dataset.examples[0].target, Target::Completion("{\"a\": 1}".to_string()));
    let both =
        r#"{"system": "s", "messages": [{"role": "system", "content": "t"}, {"role": "assistant", "content": "b"}]}"#;
    let (_, errors, _) = outcome("jsonl", both, json!({}));
    assert!(errors.iter().any(|error| error.contains("keep one of them")), "{errors:?}");
}

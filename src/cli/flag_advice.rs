//! Advice of the server with this program's flags in place of the fields of a request.

use serde_json::{Map, Value};

/// Fields of a request and the flags that set them.
const FLAGS: [(&str, &str); 13] = [
    ("on_bad_rows", "--on-bad-rows"),
    ("format", "--format"),
    ("separator", "--separator"),
    ("quoting", "--quoting"),
    ("encoding", "--encoding"),
    ("columns", "--column"),
    ("label_names", "--label-names"),
    ("label_separator", "--label-separator"),
    ("decimal", "--decimal"),
    ("class_weights", "--class-weights"),
    ("split", "--split"),
    ("task", "--task"),
    ("validation", "--validation-file"),
];

/// Fields that are also words of a file.
const AMBIGUOUS_FIELDS: [&str; 4] = ["split", "task", "validation", "format"];

/// Replaces `"encoding": "utf-16le"` by `--encoding utf-16le` where a message quotes it in backticks, and the like for other fields.
pub fn replace_fields_by_flags(message: &str) -> String {
    let mut parts = message.split('`');
    let mut text = parts.next().unwrap_or_default().to_string();
    let mut is_code = true;
    for part in parts {
        match flag(part).filter(|_| is_code) {
            Some(flag) => text.push_str(&format!("`{flag}")),
            None => text.push_str(&format!("`{part}")),
        }
        is_code = !is_code;
    }
    // Job and task are not written by the user of a flag.
    text.replace("=…` in the job ", "=…` ").replace("balanced` in the task ", "balanced` ")
}

/// Flag for a field, alone, quoted or with its value, or for columns as `{"label": "category"}`.
fn flag(code: &str) -> Option<String> {
    if let Ok(Value::Object(columns)) = serde_json::from_str(code) {
        return column_flags(&columns);
    }
    let is_field = |name: &str| FLAGS.iter().find(|(field, _)| *field == name);
    let Some((field, value)) = code.strip_prefix('"').and_then(|code| code.split_once('"')) else {
        return is_field(code).filter(|_| !AMBIGUOUS_FIELDS.contains(&code)).map(|(_, flag)| (*flag).to_string());
    };
    let value = serde_json::from_str(value.strip_prefix(':').unwrap_or_default()).unwrap_or_default();
    let (_, flag) = is_field(field)?;
    match value {
        Value::Object(columns) if field == "columns" => column_flags(&columns),
        Value::Object(task) if field == "task" => Some(format!("{flag} {}", task.get("type")?.as_str()?)),
        Value::Array(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            Some(format!("{flag} {}", shell_word(&names.join(","))))
        }
        Value::String(value) => Some(format!("{flag} {}", shell_word(&value))),
        _ => Some((*flag).to_string()),
    }
}

fn column_flags(columns: &Map<String, Value>) -> Option<String> {
    let flag = |(field, column): (&String, &Value)| {
        Some(format!("--column {}", shell_word(&format!("{field}={}", column.as_str()?))))
    };
    let flags: Option<Vec<String>> = columns.iter().map(flag).collect();
    flags.map(|flags| flags.join(" "))
}

/// The word in quotes, if a shell would split or expand it.
fn shell_word(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "=-_.,:/+…".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_flags() {
        for (message, expected) in [
            ("send `\"encoding\": \"windows-1252\"`, else", "send `--encoding windows-1252`, else"),
            ("`\"columns\": {\"label\": \"…\"}` in the job says which", "`--column label=…` says which"),
            ("or name its `\"format\"`, such as", "or name its `--format`, such as"),
            ("in `\"validation\": {\"dataset_id\": \"…\"}`", "in `--validation-file`"),
            ("`\"decimal\": \",\"` reads \"3,8\"", "`--decimal ,` reads \"3,8\""),
            ("with `\"label_names\": [\"a\", \"b\"]` (each", "with `--label-names a,b` (each"),
            ("as in `\"label_names\": [\"O\", …]`", "as in `--label-names`"),
            (
                "`\"columns\": {\"text\": \"a b\", \"value\": \"c\"}` (regression), `{\"score\": \"…\"}`",
                "`--column 'text=a b' --column value=c` (regression), `--column score=…`",
            ),
            ("`\"task\": {\"type\": \"regression\"}` reads", "`--task regression` reads"),
            ("give each its own column in `columns`", "give each its own column in `--column`"),
            ("or send `\"on_bad_rows\": \"skip\"` to", "or send `--on-bad-rows skip` to"),
            ("`label` is \"format\", and `\"other\"` too", "`label` is \"format\", and `\"other\"` too"),
        ] {
            assert_eq!(replace_fields_by_flags(message), expected);
        }
    }
}

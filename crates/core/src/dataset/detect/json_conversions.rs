//! Words for JSON documents that hold no rows, with the command that converts them.

use crate::dataset::diagnostics::{self, Diagnostic, quote, quote_list};

pub(super) fn no_rows(form: &str, conversion: &str) -> Diagnostic {
    let message = format!("the file is {form}, and rows are JSON objects: convert it with {conversion}");
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

pub(super) fn several_splits(splits: &[&str], first: &str) -> Diagnostic {
    let message = format!(
        "the file holds the splits {}: send each as its own file, such as that of `jq -c '.[{}][]' rows.json > {first}.jsonl`, and name \
         the validation split in `\"validation\": {{\"dataset_id\": \"…\"}}`",
        quote_list(splits.iter().copied()),
        quote(first)
    );
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

/// Error for an array that begins with this character.
pub(super) fn array_of_values(first: u8, has_several_lines: bool) -> Diagnostic {
    match (first, has_several_lines) {
        (b'"' | b'[', true) => {
            let message = "each line of the file is a JSON list, and rows are JSON objects: convert it with \
                 `jq -c '{text: .[0], positive: .[1]}' rows.jsonl > rows-with-names.jsonl` with the names of its fields";
            Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
        }
        (b'[', false) => no_rows(
            "a JSON array of lists",
            "`python -c \"import json, pandas; pandas.DataFrame(json.load(open('rows.json')), columns=['text', \
             'label']).to_json('rows.jsonl', orient='records', lines=True)\"` with the names of its columns",
        ),
        _ => no_rows("a JSON array of values without names", "`jq -c '.[] | {text: .}' rows.json > rows.jsonl`"),
    }
}

/// Error for lines that hold a list of messages each.
pub(super) fn lists_of_messages() -> Diagnostic {
    let message = "each line of the file is a list of messages, and rows are JSON objects: convert it with \
         `jq -c '{messages: .}' rows.jsonl > rows-with-messages.jsonl`";
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

/// Error for Python literals in place of JSON.
pub(super) fn python_literals() -> Diagnostic {
    let message = "the file holds Python literals with single quotes, which are not JSON: convert it with \
         `python -c \"import ast, json; print(*[json.dumps(ast.literal_eval(line)) for line in open('rows.jsonl') if line.strip()], \
         sep='\\n')\" > rows-as-json.jsonl`";
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

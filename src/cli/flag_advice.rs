//! Advice of the server with this program's flags in place of the fields of a request.

/// Fields of a request and the flags that set them.
const FLAGS: [(&str, &str); 10] = [
    ("on_bad_rows", "--on-bad-rows"),
    ("format", "--format"),
    ("separator", "--separator"),
    ("quoting", "--quoting"),
    ("encoding", "--encoding"),
    ("label_names", "--label-names"),
    ("label_separator", "--label-separator"),
    ("decimal", "--decimal"),
    ("split", "--split"),
    ("validation", "--validation-file"),
];

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
    // The job is not written by the user of a flag.
    text.replace("=…` in the job ", "=…` ")
}

/// Flag for a quoted field, alone or with its value.
fn flag(code: &str) -> Option<String> {
    let (field, value) = code.strip_prefix('"')?.split_once('"')?;
    let value = value.strip_prefix(':').map(str::trim).unwrap_or_default();
    if field == "columns" {
        let (name, column) = value.strip_prefix("{\"")?.strip_suffix("\"}")?.split_once("\": \"")?;
        return Some(format!("--column {name}={column}"));
    }
    let (_, flag) = FLAGS.iter().find(|(name, _)| *name == field)?;
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(value) => Some(format!("{flag} {value}")),
        None => Some((*flag).to_string()),
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
            ("with `\"label_names\": [\"a\", \"b\"]` (each", "with `--label-names` (each"),
            ("or send `\"on_bad_rows\": \"skip\"` to", "or send `--on-bad-rows skip` to"),
            ("`label` is \"format\", and `\"other\"` too", "`label` is \"format\", and `\"other\"` too"),
        ] {
            assert_eq!(replace_fields_by_flags(message), expected);
        }
    }
}

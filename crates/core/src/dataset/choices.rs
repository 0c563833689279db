//! Labels that annotation tools write as objects: Label Studio's choices, and spaCy's categories.

use super::diagnostics::Diagnostic;
use super::field_value::{FieldValue, wrong_type};
use serde_json::{Map, Value};

/// Labels of a value with choices: `{"choices": […]}`, a list of results with `{"value": {"choices": […]}}`, or an object of labels
/// with the number 0 or 1. `None` for other values.
///
/// # Errors
/// `wrong_type` for a category whose number is neither.
pub(super) fn read_choices(value: &FieldValue<'_>) -> Result<Option<Vec<String>>, Diagnostic> {
    let structure = value.as_structure().and_then(|structure| serde_json::from_str(structure.get()).ok());
    match structure {
        Some(Value::Object(fields)) => match fields.get("choices") {
            Some(choices) => Ok(texts(choices)),
            None if is_category_object(&fields) => categories(&fields).map(Some),
            None => Ok(None),
        },
        Some(Value::Array(results)) => {
            let choices = results.iter().filter_map(|result| result.get("value")?.get("choices")).map(texts);
            let choices: Option<Vec<Vec<String>>> = choices.collect();
            Ok(choices.map(|lists| lists.concat()).filter(|list| !list.is_empty()))
        }
        _ => Ok(None),
    }
}

fn texts(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(str::to_string)).collect()
}

fn is_category_object(fields: &Map<String, Value>) -> bool {
    !fields.is_empty() && fields.values().all(|value| value.is_number() || value.is_boolean())
}

fn categories(fields: &Map<String, Value>) -> Result<Vec<String>, Diagnostic> {
    let mut labels = Vec::new();
    for (label, value) in fields {
        match (value.as_bool(), value.as_f64()) {
            (Some(true), _) => labels.push(label.clone()),
            (_, Some(1.0)) => labels.push(label.clone()),
            (Some(false), _) => {}
            (_, Some(0.0)) => {}
            _ => return Err(wrong_type(format!("the category \"{label}\" has {value}, and has to have 0 or 1"))),
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(text: &str) -> Option<Vec<String>> {
        read_choices(&FieldValue::Cell(text.into())).unwrap()
    }

    #[test]
    fn choices_and_categories_are_read() {
        let labels = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(choices(r#"{"choices": ["a", "b"]}"#), labels(&["a", "b"]));
        assert_eq!(choices(r#"[{"value": {"choices": ["a"]}}]"#), labels(&["a"]));
        assert_eq!(choices(r#"{"POS": 1.0, "NEG": 0.0, "NEUTRAL": true}"#), labels(&["POS", "NEUTRAL"]));
        assert_eq!(choices("{}"), None);
        assert_eq!(choices(r#"{"a": "b"}"#), None);
        assert_eq!(choices("a"), None);
        assert_eq!(choices("[\"a\"]"), None);
        assert!(read_choices(&FieldValue::Cell(r#"{"POS": 0.7}"#.into())).is_err());
    }
}

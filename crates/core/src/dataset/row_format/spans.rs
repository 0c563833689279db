//! Entities of a text, in the forms of annotation tools: objects with offsets (also of doccano, Prodigy and Label Studio), or triples of
//! start, end and label (doccano, spaCy).

use crate::dataset::diagnostics::Diagnostic;
use crate::dataset::field_value::{FieldValue, wrong_type};
use crate::dataset::value_kind::is_relation;
use serde_json::value::RawValue;

/// Entity in a text: code points from `start` to `end` (exclusive), and their label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntitySpan {
    pub start: u32,
    pub end: u32,
    pub label: String,
}

/// Entity that is written as an object, or as the result of a Label Studio annotation.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum WrittenSpan {
    Object(Box<SpanObject>),
    Result { value: Box<SpanObject> },
}

#[derive(serde::Deserialize)]
struct SpanObject {
    #[serde(alias = "start_offset")]
    start: u32,
    #[serde(alias = "end_offset")]
    end: u32,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    labels: Option<Vec<String>>,
    /// Names that other tools have for the label.
    #[serde(default)]
    entity: Option<String>,
    #[serde(default)]
    entity_group: Option<String>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// # Errors
/// `wrong_type` for a value that is no list of entities, or an entity with several labels.
pub(super) fn read_spans(value: &FieldValue<'_>) -> Result<Vec<EntitySpan>, Diagnostic> {
    let structure = value.as_structure().filter(|structure| structure.get().starts_with('['));
    let items = structure.as_deref().and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok());
    let items = items
        .ok_or_else(|| wrong_type(format!("`entities` is {}, and has to be a list of {EXAMPLE}", value.type_name())))?;
    let spans = items.into_iter().zip(1..).filter(|(item, _)| !is_written_relation(item));
    spans.map(|(item, number)| read_span(item, number)).collect()
}

/// Whether a result of a Label Studio annotation relates two others.
fn is_written_relation(item: &RawValue) -> bool {
    item.get().contains("\"from_id\"") && serde_json::from_str(item.get()).is_ok_and(|item| is_relation(&item))
}

const EXAMPLE: &str = "objects like {\"start\": 0, \"end\": 5, \"label\": \"city\"}";

fn read_span(item: &RawValue, number: usize) -> Result<EntitySpan, Diagnostic> {
    let unreadable =
        |_| wrong_type(format!("entity {number} cannot be read: `entities` has to be a list of {EXAMPLE}"));
    if item.get().starts_with('[') {
        let (start, end, label) = serde_json::from_str(item.get()).map_err(unreadable)?;
        return Ok(EntitySpan { start, end, label });
    }
    let object = match serde_json::from_str(item.get()).map_err(unreadable)? {
        WrittenSpan::Object(object) | WrittenSpan::Result { value: object } => object,
    };
    let SpanObject { start, end, label, labels, entity, entity_group, tag, kind } = *object;
    let label = label.or_else(|| entity.or(entity_group).or(tag).or(kind).filter(|_| labels.is_none()));
    let label = match (label, labels.unwrap_or_default().as_slice()) {
        (Some(label), []) => label,
        (None, [label]) => label.clone(),
        (None, []) => String::new(),
        _ => return Err(wrong_type(format!("entity {number} has several labels: a word has one label at most"))),
    };
    Ok(EntitySpan { start, end, label })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_annotation_tools_are_read() {
        let city = EntitySpan { start: 0, end: 4, label: "city".to_string() };
        for written in [
            r#"{"start": 0, "end": 4, "label": "city", "token_start": 0}"#,
            r#"{"id": 3, "label": "city", "start_offset": 0, "end_offset": 4}"#,
            r#"[0, 4, "city"]"#,
            r#"{"start": 0, "end": 4, "text": "Riga", "labels": ["city"]}"#,
            r#"{"value": {"start": 0, "end": 4, "labels": ["city"]}, "type": "labels"}"#,
            r#"{"value": {"start": 0, "end": 4, "labels": ["city"]}}, {"from_id": "a", "to_id": "b", "type": "relation"}"#,
            r#"{"start": 0, "end": 4, "entity": "city", "value": "Riga"}"#,
            r#"{"start": 0, "end": 4, "type": "city"}"#,
        ] {
            let spans = read_spans(&FieldValue::Cell(format!("[{written}]").into()));
            assert_eq!(spans.unwrap(), std::slice::from_ref(&city), "{written}");
        }
        assert_eq!(read_spans(&FieldValue::Cell("[]".into())).unwrap(), []);
    }

    #[test]
    fn other_values_are_refused() {
        for value in ["city", "[7]", "{}", "[[0, 4]]", r#"[{"start": 0, "end": 4, "labels": ["a", "b"]}]"#] {
            assert_eq!(read_spans(&FieldValue::Cell(value.into())).unwrap_err().code, "wrong_type", "{value}");
        }
    }
}

//! `--threshold` of `espalier predict` as the field `threshold` of the request.

use crate::cli::error::CliError;
use serde_json::{Map, Value, json};

/// A probability, probabilities by label, or `suggested`; `None` without a value.
///
/// # Errors
/// `invalid_input` for another value, or several of them that are not all `LABEL=PROBABILITY`.
pub fn to_json(values: &[String]) -> Result<Option<Value>, CliError> {
    let invalid = |value: &str| {
        let advice = "give a number between 0 and 1, LABEL=NUMBER, or suggested";
        CliError::invalid_input(format!("--threshold {value}: {advice}"))
    };
    match values {
        [] => Ok(None),
        [value] if value == "suggested" => Ok(Some(json!(value))),
        [value] if probability(value).is_some() => Ok(probability(value)),
        values => {
            let entry = |value: &String| {
                let (label, number) = value.rsplit_once('=').ok_or_else(|| invalid(value))?;
                Ok((label.to_string(), probability(number).ok_or_else(|| invalid(value))?))
            };
            values.iter().map(entry).collect::<Result<Map<String, Value>, CliError>>().map(|map| Some(map.into()))
        }
    }
}

fn probability(text: &str) -> Option<Value> {
    text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number)).map(|number| json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_number_numbers_by_label_or_a_word() {
        let read = |values: &[&str]| to_json(&values.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["0.25"]).unwrap(), Some(json!(0.25)));
        assert_eq!(read(&["suggested"]).unwrap(), Some(json!("suggested")));
        assert_eq!(read(&["fraud=0.1", "a=b=1"]).unwrap(), Some(json!({"fraud": 0.1, "a=b": 1.0})));
        for wrong in [&["often"][..], &["2"], &["fraud=2"], &["0.1", "0.2"], &["suggested", "fraud=0.1"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}

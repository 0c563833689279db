//! `espalier.json`: writing it always in the same bytes, reading it strictly.
//!
//! Knows nothing of tensors beyond the number of the head's rows.

use super::{Card, Outline};
use crate::error::{Context, Error, Result};
use crate::model::Pooling;
use crate::model::tokenizer::SHORTEST;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The format that this code writes.
pub const FORMAT: u32 = 1;

#[derive(Deserialize)]
struct Stamp {
    format: u32,
}

/// The fields in the order of the struct, the metrics with sorted keys: equal cards give equal bytes.
pub fn write(card: &Card) -> Result<Vec<u8>> {
    let mut card = card.clone();
    if let Some(metrics) = &mut card.metrics {
        metrics.sort_all_objects();
    }
    let mut bytes = serde_json::to_vec(&card).context("writing espalier.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// # Errors
/// `Invalid` (`unreadable_adapter`) where it is no such file, or one of a later format.
pub fn read(bytes: &[u8]) -> Result<Card> {
    let damaged = |error| unreadable(format!("it cannot be read ({error}); export the adapter again"));
    let stamp: Stamp = serde_json::from_slice(bytes).map_err(damaged)?;
    if stamp.format != FORMAT {
        return Err(unreadable(format!(
            "its format is {}, this server reads {FORMAT}: use the version of espalier that wrote it",
            stamp.format
        )));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Whether what the card says holds together and can be done on this base. `rows` are the head's.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`).
pub fn check(card: &Card, rows: usize, outline: &Outline) -> Result<()> {
    match (card.task.outputs(&[]), card.task.outputs(&card.labels)) {
        // As many as there are labels.
        (Some(0), _) => check_labels(&card.labels, rows).map_err(unreadable)?,
        (_, outputs) if outputs.unwrap_or(0) != rows || !card.labels.is_empty() => {
            let (name, outputs) = (card.task.name(), outputs.map_or("no".to_string(), |outputs| outputs.to_string()));
            return Err(unreadable(format!(
                "an adapter for {name} has {outputs} output and no labels, not {rows} and {}",
                card.labels.len()
            )));
        }
        _ => {}
    }
    let pooling = outline.pooling(&card.task);
    let longest = outline.info.max_tokens.saturating_sub(card.method.virtual_tokens());
    if !outline.info.poolings.contains(&pooling) {
        return Err(unreadable(format!("its pooling is {}, which this base does not offer", name(pooling))));
    }
    if !(card.temperature.is_finite() && card.temperature > 0.0) {
        return Err(unreadable(format!("its temperature is {}, expected a number above 0", card.temperature)));
    }
    if !(SHORTEST..=longest).contains(&card.max_length) {
        return Err(unreadable(format!("its max_length is {}, expected {SHORTEST} to {longest}", card.max_length)));
    }
    let probe = &card.probe;
    let complete = !probe.inputs.is_empty() && probe.inputs.len() == probe.outputs.len();
    let whole = card.task.outputs(&card.labels).unwrap_or(outline.info.hidden_size);
    if !complete || probe.outputs.iter().any(|row| row.is_empty() || !row.len().is_multiple_of(whole)) {
        return Err(unreadable("its probe needs at least one input, and each its outputs".to_string()));
    }
    Ok(())
}

/// One label per row of the head, none empty, none twice; the error says which.
pub fn check_labels(labels: &[String], rows: usize) -> Result<(), String> {
    if labels.len() != rows {
        return Err(format!("there are {} labels, but the head has {rows} rows", labels.len()));
    }
    let mut seen = BTreeSet::new();
    for label in labels {
        if label.trim().is_empty() {
            return Err("a label is empty".to_string());
        }
        if !seen.insert(label) {
            return Err(format!("the label {label:?} is there twice"));
        }
    }
    Ok(())
}

fn name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::First => "first",
        Pooling::Last => "last",
    }
}

fn unreadable(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("espalier.json: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;
    use proptest::prelude::*;

    #[test]
    fn equal_cards_give_equal_bytes_whatever_the_order_of_the_metrics() {
        let mut one = testing::lora(Pooling::Mean).card;
        let mut other = one.clone();
        one.metrics = serde_json::from_str(r#"{"b": {"d": 1, "c": 2}, "a": 3}"#).unwrap();
        other.metrics = serde_json::from_str(r#"{"a": 3, "b": {"c": 2, "d": 1}}"#).unwrap();
        assert_eq!(write(&one).unwrap(), write(&other).unwrap());
    }

    #[test]
    fn a_card_of_a_later_format_says_so() {
        let error = read(br#"{"format": 2, "news": true}"#).unwrap_err();
        assert!(error.to_string().contains("its format is 2, this server reads 1"), "{error}");
        assert_eq!(read(b"{}").unwrap_err().code(), "unreadable_adapter");
    }

    #[test]
    fn a_card_that_does_not_hold_together_is_refused() {
        type Change = fn(&mut Card);
        let cases: [(Change, &str); 7] = [
            (|card| card.labels[0] = "refund".to_string(), "\"refund\" is there twice"),
            (|card| card.labels[0] = " ".to_string(), "a label is empty"),
            (|card| card.labels.truncate(2), "there are 2 labels, but the head has 3 rows"),
            (|card| card.temperature = 0.0, "its temperature is 0"),
            (|card| card.max_length = 129, "its max_length is 129, expected 4 to 128"),
            (|card| card.probe.outputs[0].truncate(2), "its probe needs"),
            (|card| card.probe.inputs.clear(), "its probe needs"),
        ];
        let outline = testing::outline();
        check(&testing::lora(Pooling::Cls).card, 3, &outline).unwrap();
        for (change, words) in cases {
            let mut card = testing::lora(Pooling::Cls).card;
            change(&mut card);
            let error = check(&card, 3, &outline).unwrap_err();
            assert!(error.to_string().contains(words), "{error} should say {words}");
        }
    }

    proptest! {
        #[test]
        fn every_number_comes_back_exactly(outputs in proptest::collection::vec(any::<f32>(), 3), alpha in any::<f64>()) {
            prop_assume!(outputs.iter().all(|value| value.is_finite()) && alpha.is_finite());
            let mut card = testing::lora(Pooling::Cls).card;
            card.probe.outputs = vec![outputs];
            if let crate::adapter::Config::Lora(lora) = &mut card.method {
                lora.alpha = Some(alpha);
            }
            let back = read(&write(&card).unwrap()).unwrap();
            prop_assert_eq!(&back, &card);
            prop_assert_eq!(write(&back).unwrap(), write(&card).unwrap());
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}

//! Formats metrics of a job as lines and tables. Metrics depend on the task: numbers are shown by name, per-class metrics as a
//! table.

use serde_json::{Map, Value};

/// Number of classes shown.
const MAX_CLASSES: usize = 10;

/// Formats a metrics event as one line; `None` for training metrics, which the progress display shows.
pub fn format_row(data: &Value) -> Option<String> {
    match data.get("split")?.as_str()? {
        "validation" => format_validation(data),
        "samples" => format_samples(data),
        "start" => format_warm_start(data),
        "race" => format_rung(data),
        _ => None,
    }
}

/// Formats the initial adapter of a job and whether its head is reused.
fn format_warm_start(data: &Value) -> Option<String> {
    let from = data.pointer("/metrics/from_adapter")?;
    let version: String = from.get("version")?.as_str()?.chars().take(8).collect();
    let head = match (from.get("head")?.as_str()?, from.get("note").and_then(Value::as_str)) {
        ("kept", _) => "with its head".to_string(),
        ("extended", _) => "with its head, extended by new labels".to_string(),
        (_, note) => format!("but with a new head: {}", note.unwrap_or("it does not fit")),
    };
    Some(format!("starts from the adapter of version {version}, {head}"))
}

/// Formats the result of a rung of successive halving.
fn format_rung(data: &Value) -> Option<String> {
    let metrics = data.get("metrics")?;
    let metric = metrics.get("metric")?.as_str()?;
    let format_candidates = |dropped: bool| {
        let all = metrics.get("candidates").and_then(Value::as_array).into_iter().flatten();
        let selected = all.filter(|row| row.get("dropped").and_then(Value::as_bool) == Some(dropped));
        let format_candidate = |row: &Value| {
            let method = row.get("method").and_then(Value::as_str).unwrap_or_default();
            let score =
                row.get(metric).filter(|figure| figure.is_number()).map_or("diverged".to_string(), format_number);
            format!("{}: {method} {score}", row.get("candidate").map_or_else(String::new, Value::to_string))
        };
        selected.map(format_candidate).collect::<Vec<_>>().join(", ")
    };
    let rung = metrics.get("rung")?.as_u64()?;
    let dropped = Some(format_candidates(true)).filter(|dropped| !dropped.is_empty());
    let dropped = dropped.map_or_else(String::new, |dropped| format!("; dropped {dropped}"));
    Some(format!("rung {rung} by {}: left {}{dropped}", humanize(metric), format_candidates(false)))
}

/// Formats sampled texts, one per line.
fn format_samples(data: &Value) -> Option<String> {
    let texts = data.pointer("/metrics/texts")?.as_array()?.iter().filter_map(Value::as_str);
    let step = data.get("step").and_then(Value::as_u64).unwrap_or(0);
    Some(texts.map(|text| format!("step {step}: {text:?}")).collect::<Vec<_>>().join("\n"))
}

fn format_validation(data: &Value) -> Option<String> {
    let formatted: Vec<String> = data
        .get("metrics")?
        .as_object()?
        .iter()
        .filter(|(_, value)| value.is_number())
        .map(|(name, value)| format!("{} {}", humanize(name), format_number(value)))
        .collect();
    let step = data.get("step").and_then(Value::as_u64).unwrap_or(0);
    Some(format!("step {step}: validation {}", formatted.join(", ")))
}

/// Returns the final metrics as a table with a heading; metrics of nested groups have the group as a prefix.
pub fn metrics_table(metrics: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["metric".to_string(), "value".to_string()]];
    if let Some(metrics) = metrics.as_object() {
        collect_rows(metrics, "", &mut rows);
    }
    rows
}

/// Returns the classes with the lowest F1 as a table with a heading; empty if the task has no classes.
pub fn worst_classes(metrics: &Value) -> Vec<Vec<String>> {
    let Some(classes) = metrics.pointer("/validation/per_class").and_then(Value::as_array) else { return Vec::new() };
    let metric_of = |class: &Value, name: &str| class.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let mut classes: Vec<&Value> = classes.iter().filter(|class| metric_of(class, "support") > 0.0).collect();
    classes.sort_by(|one, other| metric_of(one, "f1").total_cmp(&metric_of(other, "f1")));
    let mut rows = vec![["label", "precision", "recall", "f1", "examples"].map(String::from).to_vec()];
    for class in classes.into_iter().take(MAX_CLASSES) {
        let label = class.get("label").and_then(Value::as_str).unwrap_or_default();
        let mut row = vec![label.to_string()];
        row.extend(["precision", "recall", "f1"].map(|name| format!("{:.3}", metric_of(class, name))));
        row.push(format!("{:.0}", metric_of(class, "support")));
        rows.push(row);
    }
    if rows.len() > 1 { rows } else { Vec::new() }
}

fn collect_rows(metrics: &Map<String, Value>, group: &str, rows: &mut Vec<Vec<String>>) {
    for (name, value) in metrics {
        match value {
            Value::Number(_) => rows.push(vec![format!("{group}{}", humanize(name)), format_number(value)]),
            Value::Object(inner) if is_redundant_group(name, inner) => collect_rows(inner, group, rows),
            Value::Object(inner) => collect_rows(inner, &format!("{group}{} ", humanize(name)), rows),
            _ => {}
        }
    }
}

/// Returns whether a metric in the group repeats the group's name, such as `calibration_error` in `calibration`.
fn is_redundant_group(group: &str, inner: &Map<String, Value>) -> bool {
    inner.keys().any(|name| name.contains(group))
}

fn humanize(name: &str) -> String {
    name.replace('_', " ")
}

/// Formats integers as they are, and other numbers with four decimals.
fn format_number(value: &Value) -> String {
    match (value.as_u64(), value.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(number)) => format!("{number:.4}"),
        (None, None) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn validation_rows_are_shown_and_training_rows_are_not() {
        let row_of =
            |split: &str| format_row(&json!({"step": 32, "split": split, "metrics": {"accuracy": 0.91, "epoch": 1}}));
        assert_eq!(row_of("validation").as_deref(), Some("step 32: validation accuracy 0.9100, epoch 1"));
        assert_eq!(row_of("train"), None);
        let candidate = |candidate: u32, method: &str, figure: Value, dropped: bool| json!({"candidate": candidate, "method": method, "accuracy": figure, "dropped": dropped});
        let rung = json!({"rung": 1, "metric": "accuracy", "candidates": [
            candidate(0, "head", json!(0.5), true), candidate(1, "lora", json!(0.75), false),
            candidate(2, "ia3", Value::Null, true)]});
        let line = format_row(&json!({"step": 8, "split": "samples", "metrics": {"texts": ["a", "b\n"]}}));
        assert_eq!(line.as_deref(), Some("step 8: \"a\"\nstep 8: \"b\\n\""));
        let line = format_row(&json!({"step": 96, "split": "race", "metrics": rung}));
        let expected = "rung 1 by accuracy: left 1: lora 0.7500; dropped 0: head 0.5000, 2: ia3 diverged";
        assert_eq!(line.as_deref(), Some(expected));
        let from = json!({"version": "0123456789", "head": "fresh", "note": "no example of \"a\""});
        let line = format_row(&json!({"step": 0, "split": "start", "metrics": {"from_adapter": from}}));
        let expected = "starts from the adapter of version 01234567, but with a new head: no example of \"a\"";
        assert_eq!(line.as_deref(), Some(expected));
    }

    #[test]
    fn every_metric_has_a_row_and_worst_classes_come_first() {
        let class = |label: &str, f1: f64, support: u32| json!({"label": label, "precision": 1.0, "recall": f1, "f1": f1, "support": support});
        let metrics = json!({"validation": {"accuracy": 0.5, "calibration": {"temperature": 1.25, "calibration_error": 0.5},
            "per_class": [class("good", 0.9, 4), class("bad", 0.1, 4), class("absent", 0.0, 0)]}, "best_epoch": 3});
        let mut rows = metrics_table(&metrics);
        rows.sort();
        assert_eq!(
            rows,
            [
                ["best epoch", "3"],
                ["metric", "value"],
                ["validation accuracy", "0.5000"],
                ["validation calibration error", "0.5000"],
                ["validation temperature", "1.2500"]
            ]
        );
        let labels: Vec<String> = worst_classes(&metrics).into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(labels, ["label", "bad", "good"]);
        assert!(worst_classes(&json!({"validation": {"loss": 1.0}})).is_empty());
    }
}

//! Checks of the labels of a whole file: numbers or ids instead of labels, lists instead of labels, and labels that differ in their
//! notation alone.

use super::diagnostics::{self, Diagnostic, quote};
use super::labels::LabelStats;
use std::collections::{BTreeSet, HashMap};
use unicode_normalization::UnicodeNormalization;

/// Number of examples from which labels that never repeat are an error.
const MIN_UNIQUE_EXAMPLES: usize = 20;
/// The same for labels that are numbers, in a column that the request does not name.
const MIN_UNIQUE_NUMBERS: usize = 8;

/// Number of warnings about labels that differ in their notation.
const MAX_SIMILAR: usize = 20;

/// Error for single labels that are numbers or ids, or lists of labels. `is_mapped` says that the request names their column.
pub(super) fn single_label_error(labels: &[LabelStats], example_count: usize, is_mapped: bool) -> Option<Diagnostic> {
    let number = |label: &LabelStats| label.label.parse::<f64>().ok().filter(|number| number.is_finite());
    let are_numbers = labels.iter().all(|label| number(label).is_some());
    let fraction = labels.iter().find(|label| number(label).is_some_and(|number| number.fract() != 0.0));
    let example = fraction.or(labels.first()).map(|label| quote(&label.label)).unwrap_or_default();
    // Nine of ten examples have a label of their own.
    let min_examples = if are_numbers && !is_mapped { MIN_UNIQUE_NUMBERS } else { MIN_UNIQUE_EXAMPLES };
    if example_count >= min_examples && labels.len() * 10 >= example_count * 9 {
        let question = match are_numbers {
            true => "are they values? `\"columns\": {\"value\": \"…\"}` reads them for a regression",
            false => "are they ids? `\"columns\": {\"label\": \"…\"}` names the column of the labels",
        };
        let message = format!(
            "there are {} labels, such as {example}, in {example_count} examples, so they hardly repeat, and a classifier cannot \
             learn them: {question}",
            labels.len()
        );
        return Some(Diagnostic::new(diagnostics::UNIQUE_LABELS, message));
    }
    if are_numbers && fraction.is_some() && !is_mapped {
        let message = format!(
            "the labels are numbers such as {example}: `\"columns\": {{\"value\": \"…\"}}` reads them for a regression, \
             `{{\"score\": \"…\"}}` as similarities of two texts, and `{{\"label\": \"…\"}}` as the names of classes"
        );
        return Some(Diagnostic::new(diagnostics::LABELS_LIKE_NUMBERS, message));
    }
    if is_mapped { None } else { list_error(labels, "label") }
}

/// Error for sets of labels whose names are lists.
pub(super) fn label_set_error(labels: &[LabelStats]) -> Option<Diagnostic> {
    list_error(labels, "labels")
}

/// Error for labels that are joined by a separator: their parts are fewer than they.
fn list_error(labels: &[LabelStats], field: &str) -> Option<Diagnostic> {
    let separator = [';', '|', ','].into_iter().find(|separator| has_joined_labels(labels, *separator))?;
    let example = labels.iter().find(|label| label.label.contains(separator)).map(|label| quote(&label.label))?;
    let advice = match field {
        "label" => "`\"columns\": {\"labels\": \"…\"}` reads several labels of a row, and `\"columns\": {\"label\": \"…\"}` takes each \
             for one label's name"
            .to_string(),
        _ => format!("`\"label_separator\": \"{separator}\"` splits them where they are texts; in a list, write each as an item of its own"),
    };
    let message = format!("labels such as {example} seem to be several labels, separated by '{separator}': {advice}");
    Some(Diagnostic::new(diagnostics::LABELS_LIKE_LISTS, message))
}

fn has_joined_labels(labels: &[LabelStats], separator: char) -> bool {
    let parts: BTreeSet<&str> = labels.iter().flat_map(|label| label.label.split(separator)).map(str::trim).collect();
    let joined = labels.iter().filter(|label| label.label.contains(separator)).count();
    joined > 0 && !parts.contains("") && parts.len() < labels.len()
}

/// Warnings about labels that differ from an earlier one in case, Unicode form, white space, or the notation of a number or boolean alone.
pub(super) fn similar_labels(labels: &[LabelStats]) -> Vec<(u64, Diagnostic)> {
    let mut first_by_key: HashMap<String, &LabelStats> = HashMap::new();
    let mut warnings = Vec::new();
    for label in labels {
        let first = *first_by_key.entry(comparison_key(&label.label)).or_insert(label);
        if first.label != label.label && warnings.len() < MAX_SIMILAR {
            let message = format!(
                "the label {} and the label {} of line {} differ in notation alone, and are two labels: {} and {} examples; write \
                 them alike if they are one",
                quote(&label.label),
                quote(&first.label),
                first.first_line,
                label.count,
                first.count
            );
            warnings.push((label.first_line, Diagnostic::new(diagnostics::SIMILAR_LABELS, message)));
        }
    }
    warnings
}

/// Label without what does not distinguish names.
fn comparison_key(label: &str) -> String {
    let folded: String = label.nfkc().collect::<String>().to_lowercase();
    let words = folded.split_whitespace().collect::<Vec<_>>().join(" ");
    match (words.as_str(), words.parse::<f64>()) {
        ("true", _) => "1".to_string(),
        ("false", _) => "0".to_string(),
        (_, Ok(number)) if number.is_finite() => number.to_string(),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(labels: &[&str], count: u64) -> Vec<LabelStats> {
        let to_stats = |(label, line): (&&str, u64)| LabelStats { label: label.to_string(), count, first_line: line };
        labels.iter().zip(1..).map(to_stats).collect()
    }

    fn single_code(labels: &[&str], count: u64) -> Option<&'static str> {
        let examples = labels.len() * count as usize;
        single_label_error(&stats(labels, count), examples, false).map(|error| error.code)
    }

    #[test]
    fn numbers_and_ids_are_no_labels() {
        let numbers: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        assert_eq!(single_code(&numbers, 1), Some("unique_labels"));
        assert!(single_label_error(&stats(&numbers, 1), 30, true).unwrap().message.contains("are they values?"));
        assert_eq!(single_code(&numbers, 2), None);
        assert_eq!(single_code(&numbers[..8], 1), Some("unique_labels"));
        assert_eq!(single_code(&numbers[..7], 1), None);
        assert!(single_label_error(&stats(&numbers[..19], 1), 19, true).is_none());
        assert_eq!(single_code(&["3.8", "4"], 9), Some("labels_like_numbers"));
        assert_eq!(single_code(&["1.0", "0.0"], 9), None);
        assert!(single_label_error(&stats(&["3.8", "4"], 9), 18, true).is_none());
    }

    #[test]
    fn joined_labels_are_asked_about() {
        assert_eq!(single_code(&["a", "a, b", "b"], 9), Some("labels_like_lists"));
        assert_eq!(single_code(&["a|b", "a", "b"], 9), Some("labels_like_lists"));
        assert_eq!(single_code(&["Paris, France", "Lyon, France"], 9), None);
        assert_eq!(single_code(&["a", "b"], 9), None);
    }

    #[test]
    fn labels_of_one_key_are_similar() {
        let similar = |labels: &[&str]| similar_labels(&stats(labels, 2)).len();
        assert_eq!(similar(&["Yes", "yes", "no"]), 1);
        assert_eq!(similar(&["1", "1.0", "0"]), 1);
        assert_eq!(similar(&["café", "cafe\u{301}"]), 1);
        assert_eq!(similar(&["true", "1", "False", "0.0"]), 2);
        assert_eq!(similar(&["a b", "a  b"]), 1);
        assert_eq!(similar(&["a", "b", "1.5", "1"]), 0);
    }
}

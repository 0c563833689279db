//! How a file writes its labels: as names or numbers, and several of them as a list, a text with separators, or zeros and ones.

use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::field_columns::{Source, has_one_label};
use super::options::Options;
use super::preview::ColumnSample;
use super::value_kind::Kind;
use crate::task::RowSchema;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// Notation of the labels of a file.
#[derive(Debug)]
pub(super) struct LabelNotation {
    /// Names of the labels that the file gives as numbers.
    names: Vec<String>,
    /// Index of each name.
    indices: HashMap<String, usize>,
    /// Character between the labels of a text.
    pub separator: char,
    /// Whether a list holds a zero or one for each name.
    has_indicators: bool,
    /// Columns of zeros and ones, whose names are labels.
    pub indicator_columns: Vec<String>,
}

impl Default for LabelNotation {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            indices: HashMap::new(),
            separator: ';',
            has_indicators: false,
            indicator_columns: Vec::new(),
        }
    }
}

impl LabelNotation {
    /// Notation of the values in the target's column. Adds to `notes` what was not obvious.
    ///
    /// # Errors
    /// `label_names` for numbers where names are needed, and for names that do not belong to the task.
    pub fn detect(
        schema: RowSchema,
        options: &Options,
        target: &Source<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Self, Diagnostic> {
        let has_labels = matches!(schema, RowSchema::Label | RowSchema::Labels | RowSchema::Tags);
        if !has_labels {
            return match options.label_names.is_empty() {
                true => Ok(Self::default()),
                false => {
                    Err(label_names_error("`label_names` is for labels and tags, and the rows of this task have none"))
                }
            };
        }
        let names = options.label_names.clone();
        let indices: HashMap<String, usize> = names.iter().cloned().zip(0..).collect();
        if let Some((_, repeated)) = (0..).zip(&names).find(|(index, name)| indices[*name] != *index) {
            return Err(label_names_error(format!("`label_names` has {} twice", quote(repeated))));
        }
        if *target == Source::Indicators {
            notes.push(format!(
                "the labels of a row are those of the columns {} that have a 1",
                quote_list(names.iter().map(String::as_str))
            ));
            return Ok(Self { indicator_columns: names, ..Self::default() });
        }
        let Some(column) = target.column() else { return Ok(Self { names, indices, ..Self::default() }) };
        let lists = if column.kind == Kind::NumberList { column.lists() } else { Vec::new() };
        let has_indicators = schema != RowSchema::Tags && are_indicators(&lists);
        if names.is_empty() && (has_indicators || (schema == RowSchema::Tags && column.kind == Kind::NumberList)) {
            return Err(names_needed(schema.target_field(), column, has_indicators, &lists));
        }
        let is_fraction = |item: &&String| item.parse::<f64>().is_ok_and(|number| number.fract() != 0.0);
        if let Some(fraction) = lists.iter().flatten().find(is_fraction) {
            return Err(label_names_error(format!(
                "`{}` holds lists of numbers such as {} in {}, which are no names: write the names of the labels that a row has",
                schema.target_field(),
                quote(fraction),
                column.quoted()
            )));
        }
        let mut notation = Self { names, indices, has_indicators, ..Self::default() };
        if schema == RowSchema::Labels {
            match options.label_separator {
                Some(separator) => notation.separator = char::from(separator.byte()),
                None => notation.detect_separator(column, notes)?,
            }
            let is_single = matches!(target, Source::OwnName(_) | Source::WellKnown(_)) && has_one_label(column);
            if is_single && column.values().len() > 1 {
                notes.push(format!(
                    "every row has exactly one label: `\"columns\": {{\"label\": {}}}` makes it a classification with one label",
                    column.quoted()
                ));
            }
        }
        Ok(notation)
    }

    /// Name of a label: where the request has names, that of an index, else the label itself.
    ///
    /// # Errors
    /// `unnamed_label` for an index or a label without a name.
    pub fn name<'a>(&self, label: Cow<'a, str>) -> Result<Cow<'a, str>, Diagnostic> {
        let text = label.trim();
        if self.names.is_empty() || self.indices.contains_key(text) || text.is_empty() {
            return Ok(label);
        }
        let index = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && *number >= 0.0);
        match index.and_then(|index| self.names.get(index as usize)) {
            Some(name) => Ok(Cow::Owned(name.clone())),
            None => {
                let message = format!(
                    "the label is {}, and `label_names` has {} names, for the numbers from 0 to {}: correct it, or leave the row out",
                    quote(text),
                    self.names.len(),
                    self.names.len() - 1
                );
                Err(Diagnostic::new(diagnostics::UNNAMED_LABEL, message))
            }
        }
    }

    /// Names of the labels of a list.
    ///
    /// # Errors
    /// `unnamed_label`, also for zeros and ones that are not as many as the names.
    pub fn names<'a>(&self, items: Vec<Cow<'a, str>>) -> Result<Vec<Cow<'a, str>>, Diagnostic> {
        if !self.has_indicators || items.is_empty() {
            return items.into_iter().map(|item| self.name(item)).collect();
        }
        let flags: Option<Vec<bool>> = items.iter().map(|item| indicator(item)).collect();
        match flags.filter(|flags| flags.len() == self.names.len()) {
            Some(flags) => {
                let names = self.names.iter().zip(flags).filter(|(_, is_set)| *is_set);
                Ok(names.map(|(name, _)| Cow::Owned(name.clone())).collect())
            }
            None => {
                let message = format!(
                    "the list has {} items, and has to have a 0 or 1 for each of the {} names of `label_names`",
                    items.len(),
                    self.names.len()
                );
                Err(Diagnostic::new(diagnostics::UNNAMED_LABEL, message))
            }
        }
    }

    /// Chooses the separator of a column of texts: semicolons, else another one whose parts repeat.
    ///
    /// # Errors
    /// `label_separator` for another one whose parts do not.
    fn detect_separator(&mut self, column: &ColumnSample, notes: &mut Vec<String>) -> Result<(), Diagnostic> {
        if !matches!(column.kind, Kind::Text | Kind::Various) {
            return Ok(());
        }
        let texts = column.labels();
        if texts.iter().any(|text| text.contains(';')) {
            return Ok(());
        }
        if let Some(separator) = ['|', ','].into_iter().find(|separator| parts_repeat(&texts, *separator)) {
            self.separator = separator;
            notes.push(format!("the labels in {} are separated by '{separator}'", column.quoted()));
            return Ok(());
        }
        let joined = |separator| texts.iter().find(|text| has_parts(text, separator)).map(|text| (separator, text));
        match ['|', ','].into_iter().find_map(joined) {
            Some((separator, text)) => Err(separator_needed(column, separator, text)),
            None => Ok(()),
        }
    }
}

/// Whether texts are joined with the separator, and a part of one occurs in another one.
fn parts_repeat(texts: &[String], separator: char) -> bool {
    let distinct: BTreeSet<&String> = texts.iter().collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for part in distinct.iter().flat_map(|text| text.split(separator)) {
        *counts.entry(part.trim()).or_default() += 1;
    }
    let mut joined = distinct.iter().filter(|text| text.contains(separator));
    joined.any(|text| text.split(separator).any(|part| counts.get(part.trim()).is_some_and(|count| *count > 1)))
}

/// Whether a text is joined of more than one part.
fn has_parts(text: &str, separator: char) -> bool {
    text.split(separator).filter(|part| !part.trim().is_empty()).count() > 1
}

fn separator_needed(column: &ColumnSample, separator: char, text: &str) -> Diagnostic {
    let message = format!(
        "the labels in {} hold '{separator}', which may separate labels or be part of a name: `\"label_separator\": \"{separator}\"` reads \
         {} as {} labels, `\"label_separator\": \";\"` as one",
        column.quoted(),
        quote(text),
        text.split(separator).filter(|part| !part.trim().is_empty()).count()
    );
    Diagnostic::new(diagnostics::LABEL_SEPARATOR, message)
}

fn indicator(item: &str) -> Option<bool> {
    match item.trim() {
        "0" | "0.0" | "false" => Some(false),
        "1" | "1.0" | "true" => Some(true),
        _ => None,
    }
}

/// Whether lists of numbers are zeros and ones of one length, or have one of these numbers twice.
fn are_indicators(lists: &[Vec<String>]) -> bool {
    let has_only_indicators = lists.iter().flatten().all(|item| indicator(item).is_some());
    let first_length = lists.first().map_or(0, Vec::len);
    let has_repetition = lists.iter().any(|list| list.iter().collect::<BTreeSet<_>>().len() < list.len());
    has_only_indicators && ((first_length > 1 && lists.iter().all(|list| list.len() == first_length)) || has_repetition)
}

fn names_needed(field: &str, column: &ColumnSample, has_indicators: bool, lists: &[Vec<String>]) -> Diagnostic {
    let (content, count) = if has_indicators {
        let length = lists.iter().map(Vec::len).max().unwrap_or_default();
        (format!("lists of {length} zeros and ones"), length)
    } else {
        let numbers = lists.iter().flatten().filter_map(|item| item.parse::<f64>().ok());
        let largest = numbers.fold(0.0, f64::max);
        (format!("numbers up to {largest}"), (largest as usize).saturating_add(1))
    };
    label_names_error(format!(
        "`{field}` holds {content} in {}, and needs names: give the {count} names in their order, as in `\"label_names\": [{}]`",
        column.quoted(),
        if field == "tags" { "\"O\", \"B-…\", …" } else { "\"…\", …" }
    ))
}

fn label_names_error(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(diagnostics::LABEL_NAMES, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notation(names: &[&str], has_indicators: bool) -> LabelNotation {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let indices = names.iter().cloned().zip(0..).collect();
        LabelNotation { names, indices, has_indicators, ..LabelNotation::default() }
    }

    #[test]
    fn indices_become_names() {
        let named = notation(&["neg", "pos"], false);
        let name = |label: &'static str| named.name(label.into()).map(Cow::into_owned).map_err(|error| error.code);
        assert_eq!(name("1"), Ok("pos".to_string()));
        assert_eq!(name(" 0.0 "), Ok("neg".to_string()));
        assert_eq!(name("pos"), Ok("pos".to_string()));
        for label in ["2", "-1", "1.5", "other"] {
            assert_eq!(name(label), Err("unnamed_label"), "{label}");
        }
    }

    #[test]
    fn indicators_select_names() {
        let named = notation(&["a", "b", "c"], true);
        let names = |items: &[&'static str]| named.names(items.iter().map(|item| Cow::Borrowed(*item)).collect());
        assert_eq!(names(&["1", "0", "1.0"]).unwrap(), ["a", "c"]);
        assert!(names(&["1", "0"]).is_err());
        assert!(names(&["1", "0", "2"]).is_err());
    }

    #[test]
    fn zeros_and_ones_differ_from_indices() {
        let lists = |lists: &[&[&str]]| -> Vec<Vec<String>> {
            lists.iter().map(|list| list.iter().map(ToString::to_string).collect()).collect()
        };
        assert!(are_indicators(&lists(&[&["1", "0"], &["0", "1"]])));
        assert!(are_indicators(&lists(&[&["1", "0", "0"], &["0"]])));
        assert!(!are_indicators(&lists(&[&["1"], &["0"]])));
        assert!(!are_indicators(&lists(&[&["1", "0"], &["2"]])));
    }

    #[test]
    fn separators_need_parts_that_repeat() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(parts_repeat(&texts(&["a, b", "b"]), ','));
        assert!(parts_repeat(&texts(&["a|b", "b|c"]), '|'));
        assert!(!parts_repeat(&texts(&["a, b", "c, d", "a, b"]), ','));
        assert!(!parts_repeat(&texts(&["a", "a"]), ','));
    }
}

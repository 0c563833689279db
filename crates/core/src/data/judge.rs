//! The rules: which rows become examples, what is wrong with the others, and what is worth a warning.
//!
//! Does not know the file's format.

use super::findings::{self, Findings, Flaw, quoted};
use super::histogram::Lengths;
use super::repeats::{Repeat, Repeats};
use super::row::{Fields, Row};
use super::trimmed::trimmed;
use super::{Checked, LabelCount, Measure, OnBadRows, Report, Settings};
use crate::error::{Error, Result};
use crate::task::{Example, Shape};
use std::collections::HashMap;
use std::ops::ControlFlow;

pub(super) struct Judge<'a> {
    on_bad_rows: OnBadRows,
    measure: &'a dyn Measure,
    settings: &'a Settings,
    findings: Findings,
    rows: u64,
    examples: Vec<Example>,
    shape: Shape,
    labels: Labels,
    /// What rows teach, where that is not one label.
    others: Labels,
    repeats: Repeats,
    lengths: Lengths,
}

/// Every label by name, with its number in the order of appearance.
#[derive(Default)]
struct Labels {
    numbers: HashMap<String, usize>,
    tallies: Vec<Tally>,
}

struct Tally {
    label: String,
    count: u64,
    first_line: u64,
}

impl<'a> Judge<'a> {
    pub fn new(shape: Shape, on_bad_rows: OnBadRows, measure: &'a dyn Measure, settings: &'a Settings) -> Self {
        Self {
            on_bad_rows,
            measure,
            settings,
            findings: Findings::default(),
            rows: 0,
            examples: Vec::new(),
            shape,
            labels: Labels::default(),
            others: Labels::default(),
            repeats: Repeats::default(),
            lengths: Lengths::default(),
        }
    }

    /// Refuses the whole file for one reason.
    pub fn refuse(mut self, line: Option<u64>, flaw: Flaw) -> Checked {
        self.findings.error(line, flaw);
        self.checked()
    }

    /// Judges the next row; breaks when there is no point in reading on.
    pub fn take(&mut self, row: Row<'_>) -> Result<ControlFlow<()>> {
        if self.rows == self.settings.max_rows {
            let message = format!(
                "the file has more than the {} rows that this server takes: send fewer",
                self.settings.max_rows
            );
            self.findings.error(None, Flaw::new(findings::TOO_MANY_ROWS, message));
            return Ok(ControlFlow::Break(()));
        }
        self.rows += 1;
        let line = row.line;
        match row.content.and_then(trimmed) {
            Ok((fields, spaced)) => self.accept(line, &fields, &spaced)?,
            Err(flaws) => {
                flaws.into_iter().for_each(|flaw| self.findings.bad_row(line, flaw, self.on_bad_rows));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn accept(&mut self, line: u64, fields: &Fields<'_>, spaced: &[&str]) -> Result<()> {
        if !spaced.is_empty() {
            let message = format!("white space around {} was taken off", spaced.join(" and "));
            self.findings.warning(line, Flaw::new(findings::WHITE_SPACE, message));
        }
        if let Some(note) = &fields.note {
            self.findings.warning(line, note.clone());
        }
        let (text, second) = (fields.text.as_ref(), fields.second.as_deref());
        let most = self.settings.max_labels;
        let key = fields.target.key();
        let is_text = self.shape.task().generates();
        let number = match self.shape {
            // Long texts are told apart as what they are, and not kept.
            _ if is_text => Some(0),
            Shape::Label => self.labels.count(line, &key, most),
            _ => {
                for label in fields.target.once() {
                    self.labels.count(line, label, most);
                }
                self.others.count(line, &key, usize::MAX)
            }
        };
        let whole = is_text.then(|| format!("{key}\0{}", second.unwrap_or_default()));
        let keys = if self.shape == Shape::Label { &self.labels } else { &self.others };
        if let Some(number) = number
            && let Some(repeat) = self.repeats.add(line, text, whole.as_deref().or(second), number)
            // A text may belong to several others.
            && (self.shape != Shape::Positive || matches!(repeat, Repeat::Same { .. }))
        {
            self.findings.warning(line, keys.repeated(repeat, &key, self.shape));
        }
        let example = fields.example(line);
        let lengths = match self.measure.measure(&example) {
            Ok(lengths) => lengths,
            Err(Error::Invalid(problem)) => {
                self.findings.bad_row(line, Flaw::new(problem.code, problem.detail), self.on_bad_rows);
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        self.examples.push(example);
        for length in lengths {
            self.lengths.add(length.tokens);
            if length.truncated {
                let message = format!("the text is cut to {} tokens; a larger `max_length` keeps more", length.tokens);
                self.findings.warning(line, Flaw::new(findings::TRUNCATED, message));
            }
        }
        Ok(())
    }

    /// The verdict on the file as a whole.
    pub fn finish(mut self) -> Checked {
        if let Some(flaw) = self.file_flaw() {
            self.findings.error(None, flaw);
        }
        // A text of words gives more than one example of each tag.
        let is_of_words = self.is_of_words();
        let once = self.labels.tallies.iter().filter(|tally| tally.count == 1 && !is_of_words);
        let once = once.map(|tally| (tally.first_line, seen_once(&tally.label)));
        self.findings.late_warnings(once);
        self.checked()
    }

    fn is_of_words(&self) -> bool {
        matches!(self.shape, Shape::Tags | Shape::Entities)
    }

    fn is_of_numbers(&self) -> bool {
        matches!(self.shape, Shape::Value | Shape::Score)
    }

    fn file_flaw(&self) -> Option<Flaw> {
        let (code, message) = match self.labels.tallies.as_slice() {
            _ if self.rows == 0 => (findings::NO_USABLE_ROW, "the file has no rows: give it one per example".into()),
            _ if self.examples.is_empty() => {
                (findings::NO_USABLE_ROW, format!("none of the {} rows can be used", self.rows))
            }
            _ if self.is_of_numbers() && self.others.tallies.len() < 2 => (
                findings::TOO_FEW_VALUES,
                format!("every usable row has the same {}: there is nothing to learn from them", self.shape.field()),
            ),
            _ if self.is_of_numbers() => return None,
            _ if self.shape == Shape::Positive && self.examples.len() < 2 => (
                findings::TOO_FEW_EXAMPLES,
                "there is one usable row: texts learn to find their own among those of other rows".to_string(),
            ),
            _ if self.shape.task().outputs(&[]).is_none() => return None,
            [] => (findings::TOO_FEW_LABELS, "no usable row has a label".to_string()),
            [_] if self.shape == Shape::Labels => return None,
            [only] => (
                findings::TOO_FEW_LABELS,
                match self.is_of_words() {
                    true => {
                        format!("every word has the tag {}: there is nothing to learn from them", quoted(&only.label))
                    }
                    false => format!(
                        "every usable row has the label {}: a classifier needs at least two labels",
                        quoted(&only.label)
                    ),
                },
            ),
            labels if labels.len() > self.settings.max_labels => (
                findings::TOO_MANY_LABELS,
                format!(
                    "there are more than the {} labels that this server takes: is `label` read from the right column?",
                    self.settings.max_labels
                ),
            ),
            _ => return None,
        };
        Some(Flaw::new(code, message))
    }

    fn checked(self) -> Checked {
        let mut report = Report {
            rows: self.rows,
            examples: self.examples.len() as u64,
            target: self.shape,
            labels: self.labels.counts(),
            lengths: self.lengths.histogram(),
            ..Report::default()
        };
        self.findings.write_to(&mut report);
        Checked { examples: self.examples, report }
    }
}

impl Labels {
    /// Counts a label and answers its number. Beyond the limit nothing more is remembered: the file is refused anyway.
    fn count(&mut self, line: u64, label: &str, limit: usize) -> Option<u32> {
        if self.tallies.len() > limit {
            return None;
        }
        let number = match self.numbers.get(label) {
            Some(number) => *number,
            None => {
                let number = self.tallies.len();
                self.numbers.insert(label.to_string(), number);
                self.tallies.push(Tally { label: label.to_string(), count: 0, first_line: line });
                number
            }
        };
        self.tallies[number].count += 1;
        u32::try_from(number).ok()
    }

    fn repeated(&self, repeat: Repeat, label: &str, shape: Shape) -> Flaw {
        let field = shape.field();
        match repeat {
            Repeat::Same { line } => {
                let text = shape.text();
                let and = if field == text { String::new() } else { format!(" and {field}") };
                Flaw::new(findings::DUPLICATE, format!("the same {text}{and} as on line {line}; both are kept"))
            }
            Repeat::OtherLabel { line, label: other } => {
                let other = self.tallies.get(other as usize).map_or("", |tally| tally.label.as_str());
                let message = format!(
                    "the same text has the {field} {} on line {line} and {} here; both are kept",
                    quoted(other),
                    quoted(label)
                );
                Flaw::new(findings::CONFLICTING_LABELS, message)
            }
        }
    }

    /// Most frequent first, then by name.
    fn counts(self) -> Vec<LabelCount> {
        let mut counts: Vec<LabelCount> =
            self.tallies.into_iter().map(|tally| LabelCount { label: tally.label, count: tally.count }).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)));
        counts
    }
}

fn seen_once(label: &str) -> Flaw {
    let message = format!(
        "the label {} has this one example: it is trained on, and never validated; more examples would help",
        quoted(label)
    );
    Flaw::new(findings::LABEL_SEEN_ONCE, message)
}

//! Lines of validation examples by true and predicted class: what is behind a cell of the confusion matrix.

use super::calibration;
use super::metrics::argmax;
use serde::Serialize;
use std::collections::BTreeMap;

/// Maximum number of cells in a report, misclassified ones first, and of lines per cell.
const MAX_CELLS: usize = 400;
const MAX_LINES: usize = 10;

/// Rows with their true classes and the outputs of the head.
pub struct ClassifiedRows<'a> {
    /// `(rows, classes)`
    pub logits: &'a [f32],
    /// True class of each row.
    pub classes: &'a [u32],
    pub class_count: usize,
    /// Line of the dataset of each row.
    pub lines: &'a [u64],
}

/// Examples of one true class and one predicted class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellLines {
    pub label: String,
    pub predicted: String,
    /// Confident mistakes first; uncertain correct predictions first.
    pub lines: Vec<u64>,
}

impl ClassifiedRows<'_> {
    pub fn example_lines(&self, labels: &[String]) -> Vec<CellLines> {
        // Lines with the confidence of their prediction, by true and predicted class.
        let mut cells: BTreeMap<(u32, u32), Vec<(f64, u64)>> = BTreeMap::new();
        let rows = self.logits.chunks_exact(self.class_count).zip(self.classes).zip(self.lines);
        for ((logits, class), line) in rows {
            let predicted = argmax(logits);
            let confidence = calibration::softmax(logits, 1.0)[predicted];
            cells.entry((*class, predicted as u32)).or_default().push((confidence, *line));
        }
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.sort_by_key(|((class, predicted), rows)| (class == predicted, std::cmp::Reverse(rows.len())));
        cells.truncate(MAX_CELLS);
        let name = |class: u32| labels.get(class as usize).cloned().unwrap_or_default();
        let cell = |((class, predicted), mut rows): ((u32, u32), Vec<(f64, u64)>)| {
            rows.sort_by(|(one, _), (other, _)| match class == predicted {
                true => one.total_cmp(other),
                false => other.total_cmp(one),
            });
            CellLines { label: name(class), predicted: name(predicted), lines: first_distinct(rows) }
        };
        cells.into_iter().map(cell).collect()
    }
}

/// The first lines, each once: several rows may be words of one text.
fn first_distinct(rows: Vec<(f64, u64)>) -> Vec<u64> {
    let mut lines = Vec::new();
    for (_, line) in rows {
        if lines.len() == MAX_LINES {
            break;
        }
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_come_first_and_the_confident_ones_before_the_others() {
        let logits = [2., 0., 1., 0., 0., 3., 0., 1., 4., 0.];
        let rows =
            ClassifiedRows { logits: &logits, classes: &[0, 0, 0, 0, 0], class_count: 2, lines: &[2, 3, 4, 5, 6] };
        let labels = ["a", "b"].map(String::from).to_vec();
        let cell = |predicted: &str, lines: &[u64]| CellLines {
            label: "a".to_string(),
            predicted: predicted.to_string(),
            lines: lines.to_vec(),
        };
        assert_eq!(rows.example_lines(&labels), [cell("b", &[4, 5]), cell("a", &[3, 2, 6])]);
    }

    #[test]
    fn a_cell_has_each_line_once_and_ten_at_most() {
        let lines: Vec<u64> = (0..40).map(|row| row / 2).collect();
        let rows = ClassifiedRows { logits: &[1.0; 40], classes: &[0; 40], class_count: 1, lines: &lines };
        assert_eq!(rows.example_lines(&["a".to_string()])[0].lines, (0..10).collect::<Vec<u64>>());
    }
}

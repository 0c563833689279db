//! Examples of a dataset as training reads them, a page or chosen lines at a time.

use super::check::{self, acquire_permit};
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use espalier_core::dataset::{self, Options};
use espalier_core::error::{Error, Problem, Result};
use espalier_core::task::{self, Example};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const DEFAULT_LIMIT: u32 = 20;
const MAX_EXAMPLES: u32 = 100;
/// A page with more text than this ends early.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// Examples to return.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ExamplesQuery {
    /// Number of examples.
    #[param(minimum = 1, maximum = 100, default = 20)]
    pub limit: Option<u32>,
    /// `next` of the previous page: the line after which it begins.
    pub after: Option<u64>,
    /// Lines of the file whose examples are returned, separated by commas: at most 100.
    #[param(example = "3,17")]
    pub lines: Option<String>,
}

/// Page of examples, in the order of the file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Examples {
    pub data: Vec<ExampleView>,
    /// Value of `after` for the next page; `null` on the last page.
    pub next: Option<u64>,
}

/// One row of a dataset, as training reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatasetExample)]
pub struct ExampleView {
    /// Line of the file where the row begins, the header being 1; in files without lines the number of the row.
    pub line: u64,
    /// Empty for conversations, whose messages are the target.
    pub text: String,
    pub text_pair: Option<String>,
    /// Object with one field, which is the kind of the target: `label`, `multi_label`, `value`, `tags`, `positive`, `score`, `completion`,
    /// `conversation`, `preference` or `conversation_preference`; the string `text` where there is no target.
    #[schema(value_type = Object)]
    pub target: serde_json::Value,
}

/// A stored file and how it is read.
pub struct StoredFile {
    pub hash: String,
    pub options: Options,
    pub task: task::Config,
}

/// Validated [`ExamplesQuery`].
#[derive(Debug, PartialEq, Eq)]
enum Selection {
    Page { after: u64, limit: usize },
    Lines(BTreeSet<u64>),
}

impl StoredFile {
    /// File that is read as it was at its upload.
    pub fn of_dataset(state: &AppState, dataset: crate::store::Dataset) -> Self {
        let task = check::default_task(dataset.report.target, &state.base);
        Self { hash: dataset.hash, options: dataset.options, task }
    }
}

/// Reads examples of a file.
///
/// # Errors
/// `Invalid` (`invalid_query`); `Conflict` (`dataset_missing`) if the file is not in the data folder.
pub async fn read(state: &AppState, file: StoredFile, query: &ExamplesQuery) -> Result<Examples> {
    let selection = Selection::new(query)?;
    let permit = acquire_permit(state).await?;
    let (folder, settings) = (Arc::clone(&state.data_dir), Arc::clone(&state.dataset_settings));
    run_blocking("reading examples", move || {
        let _permit = permit;
        let path = folder.dataset_path(&file.hash);
        if std::fs::metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            let detail = "the dataset's file is missing from the data folder: send it again";
            return Err(Error::conflict("dataset_missing", detail));
        }
        let mut page = PageBuilder { selection, examples: Vec::new(), text_bytes: 0, has_more: false };
        dataset::for_each_example(&path, &file.options, &file.task, &settings, |example| page.visit(example))?;
        Ok(page.finish())
    })
    .await
}

impl Selection {
    fn new(query: &ExamplesQuery) -> Result<Self> {
        let invalid =
            |pointer: &str, message: String| Err(Error::Invalid(Problem::at_field("invalid_query", pointer, message)));
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_EXAMPLES).contains(&limit) {
            return invalid("/limit", format!("must be 1 to {MAX_EXAMPLES}"));
        }
        let Some(lines) = &query.lines else {
            return Ok(Self::Page { after: query.after.unwrap_or(0), limit: limit as usize });
        };
        if query.limit.is_some() || query.after.is_some() {
            return invalid("/lines", "names the examples: leave `limit` and `after` out".to_string());
        }
        match lines.split(',').map(|line| line.trim().parse()).collect::<std::result::Result<BTreeSet<u64>, _>>() {
            Ok(lines) if lines.len() <= MAX_EXAMPLES as usize => Ok(Self::Lines(lines)),
            Ok(_) => invalid("/lines", format!("may have {MAX_EXAMPLES} numbers at most")),
            Err(_) => invalid("/lines", "must be whole numbers separated by commas".to_string()),
        }
    }
}

/// Collects the selected examples of a file.
struct PageBuilder {
    selection: Selection,
    examples: Vec<Example>,
    text_bytes: usize,
    /// Whether an example follows the page.
    has_more: bool,
}

impl PageBuilder {
    fn visit(&mut self, example: Example) -> ControlFlow<()> {
        let is_full = self.text_bytes >= MAX_PAGE_BYTES;
        match &mut self.selection {
            Selection::Page { after, .. } if example.line <= *after => return ControlFlow::Continue(()),
            Selection::Page { limit, .. } if self.examples.len() == *limit || is_full => {
                self.has_more = true;
                return ControlFlow::Break(());
            }
            Selection::Page { .. } => {}
            Selection::Lines(lines) if lines.is_empty() => return ControlFlow::Break(()),
            Selection::Lines(lines) => {
                if !lines.remove(&example.line) {
                    return ControlFlow::Continue(());
                }
            }
        }
        self.text_bytes += example.text.len() + example.text_pair.as_ref().map_or(0, String::len);
        self.examples.push(example);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Examples {
        let next = self.examples.last().map(|example| example.line).filter(|_| self.has_more);
        Examples { data: self.examples.into_iter().map(ExampleView::from).collect(), next }
    }
}

impl From<Example> for ExampleView {
    fn from(example: Example) -> Self {
        let target = serde_json::to_value(&example.target).expect("targets always serialize to JSON");
        Self { line: example.line, text: example.text, text_pair: example.text_pair, target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::task::Target;

    fn query(limit: Option<u32>, after: Option<u64>, lines: Option<&str>) -> Result<Selection> {
        Selection::new(&ExamplesQuery { limit, after, lines: lines.map(str::to_string) })
    }

    fn page(selection: Selection, text: &str) -> (Vec<u64>, Option<u64>) {
        let mut page = PageBuilder { selection, examples: Vec::new(), text_bytes: 0, has_more: false };
        for line in 2..=9 {
            let target = Target::Label("a".to_string());
            if page.visit(Example { line, text: text.to_string(), text_pair: None, target }).is_break() {
                break;
            }
        }
        let examples = page.finish();
        (examples.data.iter().map(|example| example.line).collect(), examples.next)
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        assert_eq!(page(query(Some(4), None, None).unwrap(), "a"), (vec![2, 3, 4, 5], Some(5)));
        assert_eq!(page(query(Some(4), Some(5), None).unwrap(), "a"), (vec![6, 7, 8, 9], None));
        assert_eq!(page(query(Some(4), Some(9), None).unwrap(), "a"), (vec![], None));
        assert_eq!(page(query(None, None, None).unwrap(), &"a".repeat(MAX_PAGE_BYTES / 2)), (vec![2, 3], Some(3)));
    }

    #[test]
    fn chosen_lines_are_returned_in_the_order_of_the_file() {
        assert_eq!(page(query(None, None, Some("7, 3,40")).unwrap(), "a"), (vec![3, 7], None));
    }

    #[test]
    fn wrong_queries_name_the_parameter() {
        let many = (0..101).map(|line| line.to_string()).collect::<Vec<_>>().join(",");
        for (limit, after, lines, parameter) in [
            (Some(0), None, None, "limit"),
            (Some(101), None, None, "limit"),
            (Some(1), None, Some("3"), "lines"),
            (None, Some(1), Some("3"), "lines"),
            (None, None, Some("3,x"), "lines"),
            (None, None, Some(""), "lines"),
            (None, None, Some(many.as_str()), "lines"),
        ] {
            let error = query(limit, after, lines).unwrap_err();
            assert_eq!(error.code(), "invalid_query");
            assert!(error.to_string().starts_with(parameter), "{error}");
        }
    }
}

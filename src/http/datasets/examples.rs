//! Examples of a dataset as training reads them, a page or chosen lines at a time.

use super::check::{self, acquire_permit};
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use espalier_core::dataset::{self, Options};
use espalier_core::error::{Error, Problem, Result};
use espalier_core::task::{self, Example, Target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// `next` of the previous page: the number of examples before this one.
    pub after: Option<u64>,
    /// Lines of the file whose examples are returned, separated by commas: at most 100. Those after the first MiB of text are left out.
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
    /// `conversation`, `preference` or `conversation_preference`; `null` where the text is all.
    #[schema(value_type = Option<Object>)]
    pub target: Option<serde_json::Value>,
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
    Page { skipped: u64, limit: usize },
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
    let (path, settings) = (state.blobs.dataset(&file.hash).await?, Arc::clone(&state.dataset_settings));
    run_blocking("reading examples", move || {
        let _permit = permit;
        check::file_exists(&path)?;
        let mut page = PageBuilder::new(selection);
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
            return Ok(Self::Page { skipped: query.after.unwrap_or(0), limit: limit as usize });
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
    /// Examples of the file so far.
    seen: u64,
    examples: Vec<ExampleView>,
    bytes: usize,
    /// Whether an example follows the page.
    has_more: bool,
}

impl PageBuilder {
    fn new(selection: Selection) -> Self {
        Self { selection, seen: 0, examples: Vec::new(), bytes: 0, has_more: false }
    }

    fn visit(&mut self, example: Example) -> ControlFlow<()> {
        self.seen += 1;
        let is_full = self.bytes >= MAX_PAGE_BYTES;
        match &self.selection {
            Selection::Page { skipped, .. } if self.seen <= *skipped => return ControlFlow::Continue(()),
            Selection::Page { limit, .. } if self.examples.len() == *limit || is_full => {
                self.has_more = true;
                return ControlFlow::Break(());
            }
            Selection::Lines(lines) if is_full || lines.last().is_none_or(|last| example.line > *last) => {
                return ControlFlow::Break(());
            }
            Selection::Lines(lines) if !lines.contains(&example.line) => return ControlFlow::Continue(()),
            Selection::Page { .. } | Selection::Lines(_) => {}
        }
        let view = ExampleView::from(example);
        self.bytes += view.bytes();
        self.examples.push(view);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Examples {
        // The example that ended the page is not on it.
        let next = self.has_more.then(|| self.seen - 1);
        Examples { data: self.examples, next }
    }
}

impl ExampleView {
    /// Size of the texts.
    fn bytes(&self) -> usize {
        let pair = self.text_pair.as_ref().map_or(0, String::len);
        self.text.len() + pair + self.target.as_ref().map_or(0, |target| target.to_string().len())
    }
}

impl From<Example> for ExampleView {
    fn from(example: Example) -> Self {
        let target = match &example.target {
            Target::Text => None,
            target => Some(serde_json::to_value(target).expect("targets always serialize to JSON")),
        };
        Self { line: example.line, text: example.text, text_pair: example.text_pair, target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: Option<u32>, after: Option<u64>, lines: Option<&str>) -> Result<Selection> {
        Selection::new(&ExamplesQuery { limit, after, lines: lines.map(str::to_string) })
    }

    fn page(selection: Selection, text: &str) -> (Vec<u64>, Option<u64>) {
        let mut page = PageBuilder::new(selection);
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
        assert_eq!(page(query(Some(4), None, None).unwrap(), "a"), (vec![2, 3, 4, 5], Some(4)));
        assert_eq!(page(query(Some(4), Some(4), None).unwrap(), "a"), (vec![6, 7, 8, 9], None));
        assert_eq!(page(query(Some(4), Some(8), None).unwrap(), "a"), (vec![], None));
        assert_eq!(page(query(None, None, None).unwrap(), &"a".repeat(MAX_PAGE_BYTES / 2)), (vec![2, 3], Some(2)));
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

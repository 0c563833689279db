//! Keyset pagination of lists, newest rows first.

use super::state::Settings;
use crate::store::PageRequest;
use espalier_core::error::{Error, Problem, Result};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Page of a list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    pub data: Vec<T>,
    /// Value of `after` for the next page; `null` on the last page.
    pub next: Option<String>,
}

/// Page of a list to return.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Page size; the maximum is a setting of the server.
    #[param(minimum = 1, default = 20)]
    pub limit: Option<u32>,
    /// `next` of the previous page of this list. The id of anything else is refused (422).
    pub after: Option<Uuid>,
}

/// Validated page size and cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageParams {
    limit: u32,
    after: Option<Uuid>,
}

impl PageParams {
    /// # Errors
    /// `Invalid` if the limit is 0 or greater than the server's maximum.
    pub fn new(limit: Option<u32>, after: Option<Uuid>, settings: &Settings) -> Result<Self> {
        let limit = limit.unwrap_or(settings.default_page_size);
        match (1..=settings.max_page_size).contains(&limit) {
            true => Ok(Self { limit, after }),
            false => Err(Error::Invalid(Problem::at_field(
                "invalid_query",
                "/limit",
                format!("must be 1 to {}", settings.max_page_size),
            ))),
        }
    }

    /// Store query for one row more than the page, which shows whether another page follows.
    pub fn to_store_page(self) -> PageRequest {
        PageRequest { limit: self.limit + 1, after: self.after }
    }

    /// Converts the rows of [`Self::to_store_page`] into a page.
    pub fn into_list<R, T>(self, mut rows: Vec<R>, id: impl Fn(&R) -> Uuid, to_view: impl Fn(R) -> T) -> List<T> {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(|row| id(row).to_string());
        List { data: rows.into_iter().map(to_view).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_page(limit: u32, rows: usize) -> (usize, Option<String>) {
        let page_request = PageParams::new(Some(limit), None, &Settings::default()).unwrap();
        let ids: Vec<Uuid> = (0..rows).map(|row| Uuid::from_u128(row as u128)).collect();
        let list = page_request.into_list(ids, |id| *id, |id| id);
        (list.data.len(), list.next)
    }

    #[test]
    fn next_cursor_is_set_only_if_more_rows_follow() {
        assert_eq!(first_page(2, 3), (2, Some(Uuid::from_u128(1).to_string())));
        assert_eq!(first_page(2, 2), (2, None));
        assert_eq!(first_page(2, 0), (0, None));
    }

    #[test]
    fn limit_outside_the_allowed_range_is_rejected() {
        let settings = Settings::default();
        for limit in [0, settings.max_page_size + 1] {
            assert_eq!(PageParams::new(Some(limit), None, &settings).unwrap_err().code(), "invalid_query");
        }
    }
}

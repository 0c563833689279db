//! Response with a table as CSV.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Context, Result};
use serde::Serialize;

/// Writes rows as CSV with a header. Cells that a spreadsheet would read as a formula begin with an apostrophe.
pub fn write<T: Serialize>(rows: impl Iterator<Item = T>) -> Result<Response> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for row in rows {
        let value = serde_json::to_value(row).context("writing a row of CSV")?;
        let fields = value.as_object().into_iter().flatten();
        if writer.get_ref().is_empty() {
            writer.write_record(fields.clone().map(|(name, _)| name)).context("writing the header of CSV")?;
            writer.flush().context("writing the header of CSV")?;
        }
        writer.write_record(fields.map(|(_, value)| cell(value))).context("writing a row of CSV")?;
    }
    let text = writer.into_inner().map_err(csv::IntoInnerError::into_error).context("writing CSV")?;
    Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response())
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn cells_are_quoted_and_formulas_are_text() {
        let rows = [json!({"name": "a,b", "count": 3}), json!({"name": "=1+1", "count": null})];
        let body = write(rows.into_iter()).unwrap().into_body();
        let bytes = axum::body::to_bytes(body, 1000).await.unwrap();
        assert_eq!(bytes, "name,count\n\"a,b\",3\n'=1+1,\n");
    }
}

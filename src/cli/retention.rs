//! `espalier retention`: applies the retention policy once, or shows what it would delete.

use super::error::{CliError, CliResult};
use super::output::{Output, OutputFormat, format_bytes};
use super::serve::open_store;
use crate::config::StorageFlags;
use crate::store::blobs::{BlobStore, DataDir};
use crate::store::retention::{self, RetentionReport};
use clap::Args;
use espalier_core::error::Result;
use serde::Serialize;
use std::sync::Arc;
use tokio::runtime::Runtime;

#[derive(Args)]
pub struct RetentionArgs {
    /// Delete nothing, and show what would be deleted
    #[arg(long)]
    dry_run: bool,

    /// Write the report as JSON to standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    storage: StorageFlags,
}

/// What the command reports.
#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    #[serde(flatten)]
    report: RetentionReport,
    database_bytes_before: u64,
    database_bytes_after: u64,
}

pub fn run(args: &RetentionArgs) -> CliResult {
    let mut output = Output::new(if args.json { OutputFormat::Json } else { OutputFormat::Human });
    let runtime = Runtime::new().map_err(|error| CliError::failed(format!("threads cannot be started: {error}")))?;
    let summary = runtime.block_on(apply(args))?;
    for line in format_summary(&summary) {
        output.write_line(line)?;
    }
    output.write_json(&summary)
}

async fn apply(args: &RetentionArgs) -> Result<Summary> {
    let data_dir = Arc::new(DataDir::open(&args.storage.data_dir)?);
    let store = open_store(&args.storage.resolve_database_url()?, &data_dir).await?;
    let objects = args.storage.object_storage()?;
    let blobs = Arc::new(BlobStore::new(data_dir, Arc::clone(&store), objects, args.storage.blob_cache_size));
    let policy = args.storage.retention_policy();
    let database_bytes_before = store.database_bytes().await?;
    let report = match args.dry_run {
        true => retention::preview(&store, &blobs, &policy).await?,
        false => retention::apply(&store, &blobs, &policy).await?,
    };
    let database_bytes_after = store.database_bytes().await?;
    Ok(Summary { dry_run: args.dry_run, report, database_bytes_before, database_bytes_after })
}

fn format_summary(summary: &Summary) -> Vec<String> {
    let RetentionReport { rows, files } = &summary.report;
    let unreferenced = files.datasets + files.adapters + files.checkpoints;
    let mut lines = vec![if summary.dry_run { "would be deleted:" } else { "deleted:" }.to_string()];
    lines.push(format!("  finished jobs           {}", rows.jobs.count));
    lines.push(format!("  metrics events          {}", rows.events));
    lines.push(format!("  datasets                {} ({})", rows.datasets.count, format_bytes(rows.datasets.bytes)));
    lines.push(format!("  adapters                {} ({})", rows.adapters.count, format_bytes(rows.adapters.bytes)));
    lines.push(format!("  files without a row     {unreferenced} ({})", format_bytes(files.bytes)));
    for (kind, ids) in [("job", &rows.jobs.ids), ("dataset", &rows.datasets.ids), ("adapter", &rows.adapters.ids)] {
        lines.extend(ids.iter().map(|id| format!("{kind} {id}")));
    }
    let (before, after) = (summary.database_bytes_before, summary.database_bytes_after);
    lines.push(format!("database: {} before, {} after", format_bytes(before), format_bytes(after)));
    lines
}

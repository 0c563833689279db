//! `espalier backup` and `espalier restore`.

use super::error::{CliError, CliResult};
use super::output::{Output, OutputFormat, format_bytes};
use crate::config::StorageFlags;
use crate::store::backup::{self, ExistingRows, Manifest, RestoreTarget};
use clap::Args;
use std::path::PathBuf;
use tokio::runtime::Runtime;

#[derive(Args)]
pub struct BackupArgs {
    /// New folder for the backup
    #[arg(value_name = "FOLDER")]
    target: PathBuf,

    /// Write the manifest of the backup as JSON to standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    storage: StorageFlags,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// Folder of the backup
    #[arg(value_name = "FOLDER")]
    source: PathBuf,

    /// Replace the rows of a database that is not empty
    #[arg(long)]
    replace: bool,

    /// Write the manifest of the backup as JSON to standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    storage: StorageFlags,
}

pub fn create(args: &BackupArgs) -> CliResult {
    let database_url = args.storage.resolve_database_url()?;
    let objects = args.storage.object_storage()?;
    let backup = backup::create(database_url.expose(), &args.storage.data_dir, objects.as_ref(), &args.target);
    let manifest = new_runtime()?.block_on(backup)?;
    let mut output = new_output(args.json);
    output.write_line(format!("{}: {}", args.target.display(), describe(&manifest)))?;
    report_damage(&manifest, &mut output)?;
    output.write_json(&manifest)
}

pub fn restore(args: &RestoreArgs) -> CliResult {
    let database_url = args.storage.resolve_database_url()?;
    let objects = args.storage.object_storage()?;
    let target = RestoreTarget {
        database_url: database_url.expose(),
        data_dir: &args.storage.data_dir,
        objects: objects.as_ref(),
        existing_rows: if args.replace { ExistingRows::Replace } else { ExistingRows::Refuse },
    };
    let manifest = new_runtime()?.block_on(backup::restore(&args.source, target))?;
    let mut output = new_output(args.json);
    output.write_line(format!("restored {}, made at {}", describe(&manifest), manifest.created_at.to_rfc3339()))?;
    report_damage(&manifest, &mut output)?;
    output.write_json(&manifest)
}

fn new_runtime() -> CliResult<Runtime> {
    Runtime::new().map_err(|error| CliError::failed(format!("threads cannot be started: {error}")))
}

fn new_output(json: bool) -> Output {
    Output::new(if json { OutputFormat::Json } else { OutputFormat::Human })
}

fn describe(manifest: &Manifest) -> String {
    format!("{} rows and {} files, {}", manifest.rows(), manifest.files.len(), format_bytes(manifest.bytes()))
}

/// Names what was missing or damaged in the data folder already.
fn report_damage(manifest: &Manifest, output: &mut Output) -> CliResult {
    manifest.damaged.iter().try_for_each(|path| {
        output.write_line(format!("warning: {path} was missing or damaged in the data folder when the backup was made"))
    })
}

//! The data room from outside: files on disk in, examples and reports out.

#[path = "data/support.rs"]
mod support;

#[path = "data/examples.rs"]
mod examples;
#[path = "data/files.rs"]
mod files;
#[path = "data/json_lines.rs"]
mod json_lines;
#[path = "data/properties.rs"]
mod properties;
#[path = "data/tables.rs"]
mod tables;
#[path = "data/truncation.rs"]
mod truncation;
#[path = "data/warnings.rs"]
mod warnings;

//! Validation of dataset files: examples and reports.
mod documented_codes;
mod examples;
mod files;
mod json_lines;
mod properties;
mod support;
mod tables;
mod truncation;
mod user_files;
mod warnings;

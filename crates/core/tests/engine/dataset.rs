//! The data room from outside: files on disk in, examples and reports out.
mod examples;
mod files;
mod json_lines;
mod properties;
mod support;
mod tables;
mod truncation;
mod warnings;

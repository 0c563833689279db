//! Tests of the whole command line, and of the flags named in the README.

use super::*;
use clap::CommandFactory;
use std::collections::BTreeSet;

#[test]
fn clap_definition_is_valid() {
    Cli::command().debug_assert();
}

/// Collects the long flags and environment variables of a command and its subcommands.
fn flag_and_env_names(command: &clap::Command, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        found.extend(argument.get_long().map(|long| format!("--{long}")));
        found.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
    }
    command.get_subcommands().for_each(|command| flag_and_env_names(command, found));
}

#[test]
fn readme_names_only_existing_flags_and_variables() {
    let (mut command, mut known) = (Cli::command(), BTreeSet::new());
    command.build(); // adds --help
    flag_and_env_names(&command, &mut known);
    let text = include_str!("../../README.md");
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let words: Vec<&str> =
        text.split(end).filter(|word| word.starts_with("--") || word.starts_with("ESPALIER_")).collect();
    assert!(words.len() > 20, "the README describes the settings");
    // Excludes prefixes such as `ESPALIER_MAX_…`, lines of dashes, and curl's `--data-binary`.
    let is_foreign = |word: &&&str| word.ends_with('_') || word.ends_with("--") || **word == "--data-binary";
    let unknown: Vec<_> = words.iter().filter(|word| !known.contains(**word) && !is_foreign(word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

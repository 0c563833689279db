//! The command line as a whole, and what the README says of it.

use super::*;
use clap::CommandFactory;
use std::collections::BTreeSet;

#[test]
fn the_command_line_has_no_contradictions() {
    Cli::command().debug_assert();
}

/// Every flag with two dashes, and every variable, of this command and those below it.
fn names(command: &clap::Command, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        found.extend(argument.get_long().map(|long| format!("--{long}")));
        found.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
    }
    command.get_subcommands().for_each(|command| names(command, found));
}

#[test]
fn the_readme_names_no_flag_and_no_variable_that_is_not_there() {
    let (mut command, mut known) = (Cli::command(), BTreeSet::new());
    command.build(); // adds --help
    names(&command, &mut known);
    let text = include_str!("../../README.md");
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let words: Vec<&str> =
        text.split(end).filter(|word| word.starts_with("--") || word.starts_with("ESPALIER_")).collect();
    assert!(words.len() > 20, "the README tells of the settings");
    // `ESPALIER_MAX_…` stands for several, a line of dashes for none, and `--data-binary` is curl's.
    let of_others = |word: &&&str| word.ends_with('_') || word.ends_with("--") || **word == "--data-binary";
    let unknown: Vec<_> = words.iter().filter(|word| !known.contains(**word) && !of_others(word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

//! Tests of the whole command line, and of the flags and variables named in the documentation.

use super::*;
use clap::CommandFactory;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

/// Flags of other programs that the documentation uses.
const FOREIGN_FLAGS: [&str; 13] = [
    // of compose and Helm
    "--build",
    "--scale",
    "--set",
    "--data-binary",
    "--compressed",
    "--http2-prior-knowledge",
    "--bench",
    "--version",
    // of the endpoint picker of the Gateway API Inference Extension
    "--total-queued-requests-metric",
    "--total-running-requests-metric",
    "--kv-cache-usage-percentage-metric",
    "--lora-info-metric",
    "--cache-info-metric",
];

fn documentation() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: &Path| (path.display().to_string(), fs::read_to_string(path).unwrap());
    pages.map(|path| read(&path)).chain([read(&root.join("README.md"))]).collect()
}

#[test]
fn documentation_names_only_existing_flags_and_variables() {
    let (mut command, mut known) = (Cli::command(), BTreeSet::new());
    command.build(); // adds --help
    flag_and_env_names(&command, &mut known);
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let mut count = 0;
    for (page, text) in documentation() {
        let named: Vec<&str> =
            text.split(end).filter(|word| word.starts_with("--") || word.starts_with("ESPALIER_")).collect();
        // a run of dashes is a rule of a table
        let is_rule = |word: &str| word.chars().all(|c| c == '-');
        let is_unknown = |word: &&&str| !known.contains(**word) && !is_rule(word) && !FOREIGN_FLAGS.contains(*word);
        let unknown: Vec<_> = named.iter().filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{page}: {unknown:?}");
        count += named.len();
    }
    assert!(count > 100, "the documentation names {count} flags and variables");
}

#[test]
fn settings_page_lists_every_setting() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md")).unwrap();
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").expect("the server has a command");
    let mut settings = BTreeSet::new();
    flag_and_env_names(serve, &mut settings);
    let missing: Vec<_> = settings.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "run `make openapi` and commit docs/settings.md: {missing:?}");
}

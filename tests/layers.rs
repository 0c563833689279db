//! Checks the layers: a module imports only modules of lower layers, and an outside crate is used only where it belongs.
//!
//! The compiler keeps the crates apart; this test keeps the modules inside them apart. It reads the sources, so it needs no
//! build. Comments are skipped; string literals are not.

use std::path::{Path, PathBuf};

/// A module and what it may import. All may import `error`.
type Layer = (&'static str, &'static [&'static str]);

/// Modules of `espalier-core` (`crates/core/src`), from the bottom layer to the top.
const CORE: [Layer; 8] = [
    ("error", &[]),
    ("durable_fs", &[]),
    ("model", &[]),
    ("adapter", &["model"]),
    ("task", &["model"]),
    ("dataset", &["model", "adapter", "task"]),
    ("training", &["model", "adapter", "task", "durable_fs"]),
    ("artifact", &["model", "adapter", "task", "durable_fs"]),
];

/// Modules of the service (`src`), from the bottom layer to the top. `worker` and `serving` are independent of each other.
const SERVICE: [Layer; 7] = [
    ("telemetry", &[]),
    ("store", &["telemetry"]),
    ("worker", &["telemetry", "store"]),
    ("serving", &["telemetry", "store"]),
    ("http", &["telemetry", "store", "worker", "serving"]),
    ("config", &["telemetry", "store", "worker", "serving", "http", "cli"]),
    ("cli", &["telemetry", "store", "worker", "serving", "http", "config"]),
];

/// Modules of `espalier-core` that a module of the service may not import.
const NOT_FROM_CORE: [Layer; 1] = [("store", &["model"])];

/// Outside crates that belong to some modules alone; the others may be used everywhere.
const CRATES: [Layer; 33] = [
    ("candle_core", &["tensor", "model"]),
    ("candle_nn", &["tensor"]),
    ("libc", &["tensor"]),
    ("tokenizers", &["model"]),
    ("minijinja", &["model"]),
    ("csv", &["cli", "http"]),
    ("zip", &["artifact", "dataset"]),
    ("calamine", &["dataset"]),
    ("encoding_rs", &["dataset"]),
    ("flate2", &["artifact", "dataset", "http"]),
    ("tar", &["artifact", "store"]),
    ("parquet", &["dataset"]),
    ("ureq", &["model", "worker", "http", "cli", "telemetry"]),
    ("jsonwebtoken", &["http"]),
    ("llguidance", &["serving"]),
    ("sqlx", &["store"]),
    ("object_store", &["store"]),
    ("rustls", &["store"]),
    ("tokio", &["store", "worker", "serving", "http", "cli"]),
    ("tokio_util", &["worker", "serving", "http", "cli"]),
    ("axum", &["http"]),
    ("async_compression", &["http"]),
    ("tower_http", &["http"]),
    ("utoipa_axum", &["http"]),
    ("utoipa_swagger_ui", &["http"]),
    ("clap", &["config", "cli"]),
    ("indicatif", &["cli"]),
    ("tracing_subscriber", &["telemetry", "cli"]),
    ("tracing_opentelemetry", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
];

#[test]
fn modules_import_only_lower_layers() {
    let violations = [("crates/tensor/src", "tensor"), ("crates/core/src", "core"), ("src", "service")]
        .into_iter()
        .flat_map(|(folder, krate)| violations_in(folder, krate))
        .collect::<Vec<_>>();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn a_wrong_import_is_found_in_every_spelling() {
    let found = |krate: &str, module: &str, text: &str| !violations(krate, module, text).is_empty();
    assert!(found("service", "store", "use crate::http::State;"));
    assert!(found("core", "task", "use crate::{error::Result, adapter};"));
    assert!(found("core", "task", "use crate::{\n    error::{Error, Result},\n    adapter::Config,\n};"));
    assert!(found("service", "serving", "fn f(x: &crate::worker::Settings) {}"));
    assert!(found("service", "store", "use espalier_core::model::Site;"));
    assert!(found("core", "training", "let pool = sqlx::query(\"select 1\");"));
    assert!(found("service", "http", "use sqlx::Row;"));
    assert!(found("core", "dataset", "use tokio as runtime;"));
    assert!(found("tensor", "tensor", "use tokenizers::Tokenizer;"));
    assert!(!found("service", "store", "use espalier_core::error::Result;\n// crate::http is above\nuse sqlx::Row;"));
    assert!(!found("service", "http", "use crate::{serving, worker::{self, Workers}};\nuse axum::Json;"));
    assert!(!found("core", "task", "use crate::{model::{Pooling, adapter}};"), "`adapter` is an item of `model` here");
    assert!(!found("core", "artifact", "use super::{axum, http};"), "a submodule may have the name of a crate");
}

fn violations_in(folder: &str, krate: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = sources(&root);
    assert!(files.len() > 20, "the sources are in {}", root.display());
    let of_file = |file: &PathBuf| {
        let inside = file.strip_prefix(&root).expect("the file is below the folder");
        let module = if krate == "tensor" { Some(krate.to_string()) } else { top_module(inside) };
        let text = std::fs::read_to_string(file).expect("the source is readable");
        let mut found = module.map_or_else(Vec::new, |module| violations(krate, &module, &text));
        // Unit tests in files of their own may use any crate as an oracle.
        if file.to_str().is_some_and(|name| name.ends_with("tests.rs")) {
            found.retain(|violation| !violation.starts_with("the crate "));
        }
        found.into_iter().map(|violation| format!("{folder}/{}: {violation}", inside.display())).collect::<Vec<_>>()
    };
    files.iter().flat_map(of_file).collect()
}

/// `None` for `lib.rs` and `main.rs`, which see everything.
fn top_module(file: &Path) -> Option<String> {
    let first = file.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_string();
    (first != "lib" && first != "main").then_some(first)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is readable").map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let mut files: Vec<PathBuf> = files.into_iter().filter(is_rust).collect();
    files.extend(folders.iter().flat_map(|folder| sources(folder)));
    files.sort();
    files
}

fn violations(krate: &str, module: &str, text: &str) -> Vec<String> {
    let words = words(text);
    let layers: &[Layer] = match krate {
        "core" => &CORE,
        "service" => &SERVICE,
        _ => &[],
    };
    let allowed = layers.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
    if allowed.is_none() && !layers.is_empty() {
        return vec![format!("the module `{module}` is not in the table of tests/layers.rs")];
    }
    let is_layer = |name: &&str| layers.iter().any(|(layer, _)| layer == name);
    let is_allowed = |name: &&str| *name == module || *name == "error" || allowed.is_some_and(|all| all.contains(name));
    let upward = imported_modules(&words, "crate").into_iter().filter(|name| is_layer(name) && !is_allowed(name));
    let is_banned = |name: &&str| NOT_FROM_CORE.iter().any(|(from, banned)| *from == module && banned.contains(name));
    let banned = imported_modules(&words, "espalier_core").into_iter().filter(is_banned);
    let misplaced = CRATES.iter().filter(|(name, homes)| !homes.contains(&module) && uses_crate(&words, name));
    upward
        .chain(banned)
        .map(|name| format!("`{module}` may not import `{name}`"))
        .chain(misplaced.map(|(name, homes)| format!("the crate `{name}` belongs to {} alone", homes.join(", "))))
        .collect()
}

/// Identifiers, and every other character by itself.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let is_letter = |c: char| c.is_alphanumeric() || c == '_';
            let end =
                if is_letter(first) { rest.find(|c| !is_letter(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            if !first.is_whitespace() {
                words.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }
    words
}

/// The first path segments after `root::`, alone or in braces.
fn imported_modules<'a>(words: &[&'a str], root: &str) -> Vec<&'a str> {
    let mut imported = Vec::new();
    for start in words.windows(3).enumerate().filter(|(_, w)| *w == [root, ":", ":"]).map(|(at, _)| at + 3) {
        let mut depth = 0;
        for (at, word) in words.iter().enumerate().skip(start) {
            match *word {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 0 || (depth == 1 && ["{", ","].contains(&words[at - 1])) => imported.push(name),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    imported
}

/// `name::…` or `use name`, where no path leads to the name.
fn uses_crate(words: &[&str], name: &str) -> bool {
    words.iter().enumerate().any(|(at, word)| {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        let path = words.get(at + 1) == Some(&":") && words.get(at + 2) == Some(&":");
        *word == name && ((path && before != ":") || before == "use")
    })
}

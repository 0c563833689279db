//! The floors of the house: a room may use only the rooms that the table below gives it, and an outside crate only where
//! it belongs. Reads the sources, so it needs no build of its own.
//!
//! Knows nothing of what the rooms do. Words in comments do not count; words in texts do, which has not hurt so far.

use std::path::{Path, PathBuf};

/// Every room and what it may use, from the ground up. All may use `error`.
const ROOMS: [(&str, &[&str]); 14] = [
    ("error", &[]),
    ("compute", &[]),
    ("model", &["compute"]),
    ("adapter", &["compute", "model"]),
    ("task", &["compute", "model"]),
    ("data", &["compute", "model", "adapter", "task"]),
    ("training", &["compute", "model", "adapter", "task"]),
    ("artifact", &["compute", "model", "adapter", "task"]),
    ("store", &["adapter", "task", "data", "training", "artifact"]),
    ("worker", &BELOW),
    ("serving", &BELOW),
    ("http", &["compute", "model", "adapter", "task", "data", "training", "artifact", "store", "worker", "serving"]),
    ("config", &ALL),
    ("cli", &ALL),
];

/// What lies below worker and serving, which do not know each other.
const BELOW: [&str; 8] = ["compute", "model", "adapter", "task", "data", "training", "artifact", "store"];
const ALL: [&str; 13] = [
    "compute", "model", "adapter", "task", "data", "training", "artifact", "store", "worker", "serving", "http",
    "config", "cli",
];

/// Outside crates that belong in some rooms alone; the others are welcome everywhere.
const CRATES: [(&str, &[&str]); 21] = [
    ("candle_core", &["compute", "model"]),
    ("tokenizers", &["model"]),
    ("minijinja", &["model"]),
    ("llguidance", &["serving"]),
    ("rayon", &["compute"]),
    ("libc", &["compute", "worker"]),
    ("csv", &["data", "cli"]),
    ("zip", &["artifact"]),
    ("ureq", &["model", "cli"]),
    ("sqlx", &["store"]),
    ("object_store", &["store"]),
    ("tokio", &["store", "worker", "serving", "http", "cli"]),
    ("tokio_util", &["worker", "serving", "http", "cli"]),
    ("axum", &["http"]),
    ("tower", &["http"]),
    ("tower_http", &["http"]),
    ("utoipa_axum", &["http"]),
    ("utoipa_swagger_ui", &["http"]),
    ("clap", &["config", "cli"]),
    ("indicatif", &["cli"]),
    ("tracing_subscriber", &["config", "cli"]),
];

#[test]
fn imports_only_go_down_and_crates_stay_in_their_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "the sources are read from {}", root.display());
    let faults: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let inside = file.strip_prefix(&root).unwrap();
            let room = room(inside)?;
            Some((inside, faults(&room, &std::fs::read_to_string(file).unwrap())))
        })
        .flat_map(|(file, faults)| faults.into_iter().map(move |fault| format!("src/{}: {fault}", file.display())))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_wrong_import_is_found_however_it_is_written() {
    let found = |room: &str, text: &str| !faults(room, text).is_empty();
    assert!(found("store", "use crate::http::State;"));
    assert!(found("task", "use crate::{error::Result, adapter};"));
    assert!(found("task", "use crate::{\n    error::{Error, Result},\n    adapter::Config,\n};"));
    assert!(found("serving", "fn f(x: &crate::worker::Settings) {}"));
    assert!(found("compute", "use crate::model::Site;"));
    assert!(found("training", "let pool = sqlx::query(\"select 1\");"));
    assert!(found("http", "use sqlx::Row;"));
    assert!(found("data", "use tokio as runtime;"));
    assert!(!found("store", "use crate::error::Result;\n// crate::http knows better\nuse sqlx::Row;"));
    assert!(!found("http", "use crate::{serving, worker::{self, Workers}};\nuse axum::Json;"));
    assert!(!found("task", "use crate::model::{Pooling, adapter};"), "a name inside another room is not a room");
    assert!(!found("artifact", "use super::{axum, http};"), "a module of our own may be called as a crate is");
}

/// `lib.rs` and `main.rs` see everything.
fn room(file: &Path) -> Option<String> {
    let first = file.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_string();
    (first != "lib" && first != "main").then_some(first)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut files: Vec<PathBuf> =
        files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
    files.extend(folders.iter().flat_map(|folder| sources(folder)));
    files.sort();
    files
}

fn faults(room: &str, text: &str) -> Vec<String> {
    let words = words(text);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("the room `{room}` is not in the table of tests/floors.rs")];
    };
    let rooms = used_rooms(&words).into_iter().filter(|used| {
        ROOMS.iter().any(|(name, _)| name == used) && *used != room && *used != "error" && !allowed.contains(used)
    });
    let crates = CRATES.iter().filter(|(name, homes)| !homes.contains(&room) && uses_crate(&words, name));
    rooms
        .map(|used| format!("`{room}` may not use `{used}`"))
        .chain(crates.map(|(name, homes)| format!("the crate `{name}` belongs in {} alone", homes.join(", "))))
        .collect()
}

/// Identifiers, and every other character by itself.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let letter = |c: char| c.is_alphanumeric() || c == '_';
            let end = if letter(first) { rest.find(|c| !letter(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            if !first.is_whitespace() {
                words.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }
    words
}

/// What stands behind `crate::`, alone or in braces.
fn used_rooms<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut used = Vec::new();
    for start in words.windows(3).enumerate().filter(|(_, w)| *w == ["crate", ":", ":"]).map(|(at, _)| at + 3) {
        let mut depth = 0;
        for (at, word) in words.iter().enumerate().skip(start) {
            match *word {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 0 || (depth == 1 && ["{", ","].contains(&words[at - 1])) => used.push(name),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

/// `name::…` or `use name`, where nothing leads to the name.
fn uses_crate(words: &[&str], name: &str) -> bool {
    words.iter().enumerate().any(|(at, word)| {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        let path = words.get(at + 1) == Some(&":") && words.get(at + 2) == Some(&":");
        *word == name && ((path && before != ":") || before == "use")
    })
}

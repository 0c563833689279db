//! Keeps retired words out of the code and the documentation: metaphors and private meanings that were replaced by the field's
//! terms. DESIGN rule: a name is what a practitioner would type into a search box.

use std::path::{Path, PathBuf};

/// Retired words and their replacements. A word matches whole words only, in any case.
const RETIRED: &[(&str, &str)] = &[
    ("house", "service"),
    ("shelf", "LRU map, buffer pool"),
    ("wish", "requested action"),
    ("wishes", "requested actions"),
    ("crew", "worker pool"),
    ("workshop", "worker context"),
    ("fruitless", "attempts without progress"),
    ("octets", "int8 matrix"),
    ("farewell", "shutdown"),
    ("leftover", "drain"),
    ("senseless", "unsupported"),
    ("twofold", "twice"),
    ("gladly", ""),
    ("whoever", "a client, a worker"),
    ("heard", "received"),
    ("hears", "receives"),
    ("knows nothing of", "does not depend on"),
    ("way back", "backward pass"),
    ("text that goes on", "generated text"),
    ("texts that go on", "generated text"),
    ("the house", "the service"),
    ("this room", "this module"),
    ("rooms", "modules"),
    ("is told", "receives"),
    ("are told", "receive"),
    ("is remembered", "is cached, is saved"),
    ("are remembered", "are cached, are saved"),
    ("remembers", "saves, caches"),
    ("goes away", "disconnects"),
    ("as above", "state the reason again"),
    ("the caller's.", "state the precondition"),
];

/// Identifiers of retired types and functions, matched exactly.
const RETIRED_IDENTIFIERS: &[&str] = &[
    "Adapted",
    "AtWork",
    "Bench",
    "Bell",
    "Card",
    "Chains",
    "Circumstances",
    "Coming",
    "Crew",
    "Desk",
    "Draft",
    "Faults",
    "Ground",
    "Halt",
    "Held",
    "Helped",
    "House",
    "Judge",
    "Lanes",
    "Lasting",
    "Ledger",
    "Leg",
    "Mixed",
    "Moved",
    "Narrow",
    "Octets",
    "Orders",
    "Outline",
    "Past",
    "Place",
    "Reach",
    "Recall",
    "Reduced",
    "Refusal",
    "Remembered",
    "Resident",
    "Rounded",
    "Senseless",
    "Shade",
    "Shelf",
    "Speaker",
    "Speech",
    "Swept",
    "Team",
    "Ticket",
    "Turn",
    "Turns",
    "Unheld",
    "Usual",
    "Wanted",
    "Wide4",
    "Wide8",
    "Widen",
    "Wish",
    "Workshop",
];

#[test]
fn retired_words_are_not_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in ["src", "crates", "fuzz/src", "docs", "tests/service", "README.md", "CONTRIBUTING.md", "SECURITY.md"] {
        collect(&root.join(place), &mut files);
    }
    assert!(files.len() > 200, "{} files were found", files.len());
    let found: Vec<String> = files.iter().flat_map(|file| violations(file, root)).collect();
    assert!(found.is_empty(), "{} retired words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn words_are_found_whole() {
    assert!(contains("the house rules", "house") && !contains("a warehouse", "house"));
    assert!(contains("on the way back, always", "way back") && !contains("always backward", "way back"));
    assert!(has_identifier("let x: Past = y;", "Past") && !has_identifier("let past: PastDue = y;", "Past"));
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("the folder is readable").map(|entry| entry.unwrap().path());
        entries.for_each(|entry| collect(&entry, files));
    } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
        files.push(path.to_path_buf());
    }
}

fn violations(file: &Path, root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the file is readable");
    let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let is_code = name.ends_with(".rs");
    let lines = text.lines().enumerate();
    let of_line = |(index, line): (usize, &str)| {
        let lowercase = line.to_lowercase();
        let words = RETIRED.iter().filter(|(word, _)| contains(&lowercase, word));
        let words = words.map(|(word, instead)| format!("`{word}` (instead: {instead})"));
        let identifiers = RETIRED_IDENTIFIERS.iter().filter(|name| is_code && has_identifier(line, name));
        let place = format!("{name}:{}", index + 1);
        words
            .chain(identifiers.map(|name| format!("`{name}`")))
            .map(|what| format!("{place}: {what}"))
            .collect::<Vec<_>>()
    };
    lines.flat_map(of_line).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a line in lower case has the phrase as whole words.
fn contains(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + phrase.len()..]);
        let continues = phrase.ends_with(is_word) && after.starts_with(is_word);
        !before.ends_with(is_word) && !continues
    })
}

fn has_identifier(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name)
        .any(|(start, _)| !code[..start].ends_with(is_word) && !code[start + name.len()..].starts_with(is_word))
}

//! Rules of the settings that guard against mistakes.

use super::*;
use clap::Parser;
use std::io::Write;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

fn settings(flags: &[&str]) -> Result<Settings> {
    Line::parse_from(["espalier"].iter().chain(flags)).config.settings()
}

fn refusal(flags: &[&str]) -> String {
    settings(flags).expect_err("these settings must be refused").to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn an_open_address_needs_a_key() {
    let open = ["--listen", "0.0.0.0:8080"];
    assert!(refusal(&open).contains("--insecure-no-auth"));
    assert!(settings(&["--listen", "0.0.0.0:8080", "--insecure-no-auth"]).unwrap().keys.is_empty());
    assert_eq!(settings(&["--listen", "0.0.0.0:8080", "--api-keys", "0123456789abcdef"]).unwrap().keys.len(), 1);
    assert!(settings(&["--listen", "[::1]:8080"]).is_ok());
}

#[test]
fn an_empty_list_of_keys_is_no_key() {
    assert!(refusal(&["--listen", "0.0.0.0:8080", "--api-keys", " , "]).contains("no API key"));
    let empty = file("# only a comment\n\n");
    let path = empty.path().to_str().unwrap();
    assert!(refusal(&["--api-keys-file", path]).contains("holds no key"));
}

#[test]
fn keys_come_from_the_list_and_the_file() {
    let keys = file("# ours\nabcdefghijklmnop # alice\n\n  qrstuvwxyz012345\n");
    let path = keys.path().to_str().unwrap();
    let settings = settings(&["--api-keys", "0123456789abcdef", "--api-keys-file", path]).unwrap();
    let keys: Vec<&str> = settings.keys.iter().map(Secret::expose).collect();
    assert_eq!(keys, ["0123456789abcdef", "abcdefghijklmnop", "qrstuvwxyz012345"]);
}

#[test]
fn a_short_key_is_refused_without_showing_it() {
    let refusal = refusal(&["--api-keys", "0123456789abcdef,hunter2"]);
    assert!(refusal.contains("number 2") && !refusal.contains("hunter2"), "{refusal}");
}

#[test]
fn the_database_is_in_the_data_folder_unless_told_otherwise() {
    assert_eq!(settings(&["--data-dir", "there"]).unwrap().database_url.expose(), "sqlite://there/espalier.db");
    let url = file("postgres://user:secret@db/espalier\n");
    let path = url.path().to_str().unwrap();
    assert_eq!(
        settings(&["--database-url-file", path]).unwrap().database_url.expose(),
        "postgres://user:secret@db/espalier"
    );
    assert!(refusal(&["--database-url-file", path, "--database-url", "sqlite://x"]).contains("give one"));
    assert!(refusal(&["--database-url-file", "/nowhere"]).contains("/nowhere"));
    assert!(refusal(&["--database-url", "mysql://db"]).contains("postgres://"));
}

#[test]
fn secrets_are_not_shown_by_debug_output() {
    let settings = settings(&["--api-keys", "0123456789abcdef", "--database-url", "postgres://u:pw@h/d"]).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("u:pw"), "{shown}");
}

#[test]
fn the_lease_outlasts_a_late_heartbeat() {
    assert!(refusal(&["--lease", "9s", "--heartbeat", "5s"]).contains("twice"));
    assert!(settings(&["--lease", "10s", "--heartbeat", "5s"]).is_ok());
}

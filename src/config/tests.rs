//! Tests of resolving the settings.

use super::*;
use clap::Parser;
use std::io::Write;

#[derive(Parser)]
struct TestCli {
    #[command(flatten)]
    config: Config,
}

fn resolve(flags: &[&str]) -> Result<Settings> {
    TestCli::parse_from(["espalier"].iter().chain(flags)).config.resolve()
}

fn resolve_error(flags: &[&str]) -> String {
    resolve(flags).expect_err("the settings are invalid").to_string()
}

fn temp_file_with(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn non_loopback_address_requires_an_api_key() {
    let open = ["--listen", "0.0.0.0:8080"];
    assert!(resolve_error(&open).contains("--insecure-no-auth"));
    assert!(resolve(&["--listen", "0.0.0.0:8080", "--insecure-no-auth"]).unwrap().api_keys.is_empty());
    assert_eq!(resolve(&["--listen", "0.0.0.0:8080", "--api-keys", "0123456789abcdef"]).unwrap().api_keys.len(), 1);
    assert!(resolve(&["--listen", "[::1]:8080"]).is_ok());
}

#[test]
fn empty_key_list_counts_as_no_key() {
    assert!(resolve_error(&["--listen", "0.0.0.0:8080", "--api-keys", " , "]).contains("no API key"));
    let empty = temp_file_with("# only a comment\n\n");
    let path = empty.path().to_str().unwrap();
    assert!(resolve_error(&["--api-keys-file", path]).contains("holds no key"));
}

#[test]
fn keys_are_read_from_flag_and_file() {
    let keys = temp_file_with("# ours\nabcdefghijklmnop # alice\n\n  qrstuvwxyz012345\n");
    let path = keys.path().to_str().unwrap();
    let settings = resolve(&["--api-keys", "0123456789abcdef", "--api-keys-file", path]).unwrap();
    let keys: Vec<&str> = settings.api_keys.iter().map(Secret::expose).collect();
    assert_eq!(keys, ["0123456789abcdef", "abcdefghijklmnop", "qrstuvwxyz012345"]);
}

#[test]
fn short_key_is_rejected_without_printing_it() {
    let error = resolve_error(&["--api-keys", "0123456789abcdef,hunter2"]);
    assert!(error.contains("number 2") && !error.contains("hunter2"), "{error}");
}

#[test]
fn database_defaults_to_the_data_dir() {
    assert_eq!(resolve(&["--data-dir", "there"]).unwrap().database_url.expose(), "sqlite://there/espalier.db");
    let url = temp_file_with("postgres://user:secret@db/espalier\n");
    let path = url.path().to_str().unwrap();
    assert_eq!(
        resolve(&["--database-url-file", path]).unwrap().database_url.expose(),
        "postgres://user:secret@db/espalier"
    );
    assert!(resolve_error(&["--database-url-file", path, "--database-url", "sqlite://x"]).contains("give one"));
    assert!(resolve_error(&["--database-url-file", "/nowhere"]).contains("/nowhere"));
}

#[test]
fn secrets_are_not_shown_by_debug_output() {
    let settings = resolve(&["--api-keys", "0123456789abcdef", "--database-url", "postgres://u:pw@h/d"]).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("u:pw"), "{shown}");
}

#[test]
fn lease_must_be_at_least_twice_the_heartbeat() {
    assert!(resolve_error(&["--lease-duration", "9s", "--heartbeat-interval", "5s"]).contains("twice"));
    assert!(resolve(&["--lease-duration", "10s", "--heartbeat-interval", "5s"]).is_ok());
}

#[test]
fn flag_defaults_equal_settings_defaults() {
    let shown = format!("{:?}", resolve(&[]).unwrap().http);
    assert_eq!(shown, format!("{:?}", http::Settings::default()));
}

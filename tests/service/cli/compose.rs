//! Tests of the scripts around `docker-compose.yml`, without an engine.

use crate::api::server_process::ServerConfig;
use std::path::Path;
use std::process::Command;

/// Runs a shell command in the folder and returns its output.
fn shell(folder: &Path, command: &str, port: &str) -> String {
    let output =
        Command::new("bash").args(["-euc", command]).current_dir(folder).env("ESPALIER_PORT", port).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn printed_curl_line_calls_the_server_with_the_key_that_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    std::fs::create_dir(folder.path().join("scripts")).unwrap();
    for name in ["secrets.sh", "compose-usage.sh"] {
        std::fs::copy(scripts.join(name), folder.path().join("scripts").join(name)).unwrap();
    }
    let keys = folder.path().join("secrets/api_keys");
    // The file of an earlier version has a comment behind the key.
    shell(folder.path(), "mkdir secrets; echo '0123456789abcdef # made by scripts/secrets.sh' >secrets/api_keys", "0");
    for expected in [Some("0123456789abcdef\n"), None] {
        shell(folder.path(), "scripts/secrets.sh", "0");
        let key = std::fs::read_to_string(&keys).unwrap();
        assert!(expected.is_none_or(|expected| key == expected) && !key.contains(['#', ' ']), "{key:?}");

        let app = ServerConfig::new().with_arguments(&["--api-keys-file", keys.to_str().unwrap()]).start();
        let port = app.url("").rsplit(':').next().unwrap().to_string();
        let usage = shell(folder.path(), "scripts/compose-usage.sh", &port);
        let line = usage.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap();
        let answer = shell(folder.path(), &format!("{line} --silent --show-error --fail"), &port);
        assert!(answer.contains("fingerprint"), "{answer}");
        std::fs::remove_file(&keys).unwrap();
    }
}

/// The image has the toolchain of the checks, and needs no download.
#[test]
fn dockerfile_has_the_version_of_the_toolchain_file() {
    let read = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split('"').nth(1).unwrap().to_string();
    assert!(read("Dockerfile").contains(&format!("FROM rust:{channel}-slim-bookworm AS build")), "{channel}");
}

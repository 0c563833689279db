//! Tests of watching a job: reconnection after a server restart, and Ctrl-C.

use crate::api::server_process::ServerConfig;
use crate::cli::run::{CommandOutput, Server, dataset, espalier, free_address, run, signal, wait_for_output};
use std::io::{BufRead, BufReader, Read};
use std::process::Child;

/// Reads the command's output up to a line with the text.
fn read_until(child: &mut Child, text: &str) -> BufReader<std::process::ChildStdout> {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the command ended without: {text}");
    }
    reader
}

fn read_to_exit(child: Child, mut reader: impl Read) -> CommandOutput {
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    CommandOutput { out, ..wait_for_output(child) }
}

#[test]
fn watch_continues_after_a_server_restart() {
    let (setup, address, folder) = (ServerConfig::new(), free_address(), tempfile::tempdir().unwrap());
    let mut server = Server::start(&setup, &address, &[]);
    let file = dataset(folder.path(), 60);
    let flags = ["--label-column", "kind", "--name", "kept", "--epochs", "150", "--server", &server.url];
    let mut command = espalier(&["train", file.to_str().unwrap()]);
    let mut child = command.args(flags).spawn().unwrap();
    let reader = read_until(&mut child, "step ");
    server.kill();
    let server = Server::start(&setup, &address, &[]);
    let shown = read_to_exit(child, reader).success_stdout();
    assert!(shown.contains("succeeded"), "{shown}");
    run(&["predict", "--adapter", "kept", "--server", &server.url, "when will it arrive"]).success_stdout();
}

#[test]
fn ctrl_c_detaches_and_prints_the_watch_command() {
    let (setup, folder) = (ServerConfig::new(), tempfile::tempdir().unwrap());
    let server = Server::start(&setup, &free_address(), &[]);
    let file = dataset(folder.path(), 60);
    let flags = ["--label-column", "kind", "--epochs", "1000", "--server", &server.url];
    let mut child = espalier(&["train", file.to_str().unwrap()]).args(flags).spawn().unwrap();
    let reader = read_until(&mut child, "step ");
    signal(&child, "INT");
    let shown = read_to_exit(child, reader).success_stdout();
    let line = shown.lines().find(|line| line.contains("espalier jobs watch ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let id = words[2];
    assert!(run(&["jobs", "show", id, "--server", &server.url]).success_stdout().contains("running"));

    let mut watching = espalier(&words).spawn().unwrap();
    let reader = read_until(&mut watching, "step ");
    run(&["jobs", "cancel", id, "--server", &server.url]).success_stdout();
    let ended = read_to_exit(watching, reader);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("cancelled"), "{}", ended.err);
}

//! Runs commands to completion, and servers on a fixed address.

use crate::api::server_process::ServerConfig;
use espalier_core::task::Target;
use espalier_testing::jobs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct CommandOutput {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    /// Standard output of a command that must succeed.
    pub fn success_stdout(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

/// The binary, without the settings of the test's environment.
pub fn espalier(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ESPALIER_") || name.starts_with("DATABASE_"))
    {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(arguments: &[&str]) -> CommandOutput {
    wait_for_output(espalier(arguments).spawn().unwrap())
}

pub fn wait_for_output(child: Child) -> CommandOutput {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    CommandOutput { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Writes a dataset with three labels; the label column is `kind`.
pub fn dataset(folder: &Path, rows: usize) -> PathBuf {
    let path = folder.join("questions.csv");
    let rows = jobs::examples(rows).into_iter().map(|example| {
        let Target::Label(label) = example.target else { panic!("a label was expected") };
        format!("{},{label}\n", example.text)
    });
    std::fs::write(&path, format!("text,kind\n{}", rows.collect::<String>())).unwrap();
    path
}

/// Server on a given address, which another server can use afterwards.
pub struct Server {
    pub url: String,
    pub child: Child,
}

pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Server {
    pub fn start(setup: &ServerConfig, address: &str, arguments: &[&str]) -> Self {
        let mut command = espalier(&["serve", "--listen", address, "--event-poll-interval", "50ms", "--model"]);
        command.arg(jobs::fixture("tiny-bert")).arg("--data-dir").arg(setup.data_dir()).args(arguments);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("listening")), "the server did not start");
        // Keeps reading, because a full pipe would block the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url: format!("http://{address}"), child }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the test has already ended the process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Runs the binary as a server process on the tiny base model, and an HTTP client for it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Maximum time to wait for anything; a test that reaches it fails.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum time until a job is trained: training has the lowest priority, so that tests beside it can delay it for minutes.
pub const TRAINING_TIMEOUT: Duration = Duration::from_secs(900);

/// Configuration of a server process; allows a restart with the same data.
#[derive(Clone)]
pub struct ServerConfig {
    pub folder: Arc<TempDir>,
    /// Database URL; SQLite in the folder by default.
    pub database: Option<String>,
    /// Listen address; a free port by default.
    pub listen: String,
    /// Folder of the base model.
    pub model: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl ServerConfig {
    pub fn new() -> Self {
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            database: None,
            listen: "127.0.0.1:0".to_string(),
            model: espalier_testing::jobs::fixture("tiny-bert"),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_string()));
        self
    }

    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    pub fn with_database(mut self, database: String) -> Self {
        self.database = Some(database);
        self
    }

    pub fn with_base_model(mut self, model: PathBuf) -> Self {
        self.model = model;
        self
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn start(&self) -> ServerProcess {
        let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
        command.args(["serve", "--listen", &self.listen, "--log-format", "json", "--model"]);
        command.arg(&self.model).arg("--data-dir").arg(self.data_dir());
        if let Some(url) = &self.database {
            command.args(["--database-url", url]);
        }
        command
            .args(&self.arguments)
            .env("ESPALIER_EVENT_POLL_INTERVAL", "50ms")
            .envs(self.environment.iter().cloned());
        ServerProcess::start(self.clone(), command)
    }
}

pub struct ServerProcess {
    pub setup: ServerConfig,
    child: Child,
    address: String,
    agent: ureq::Agent,
    lines: Mutex<Receiver<String>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl ServerProcess {
    fn start(setup: ServerConfig, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line_sender, lines) = channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let (line_sender, log) = (line_sender.clone(), Arc::clone(&log));
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line.clone());
                    // Fails after the test has dropped the receiver.
                    let _ = line_sender.send(line);
                }
            });
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        let mut app =
            Self { setup, child, address: String::new(), agent: config.into(), lines: Mutex::new(lines), log };
        let line = app.wait_for_log("\"listening\"");
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap();
        app.address = format!("http://{address}");
        app
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn agent(&self) -> &ureq::Agent {
        &self.agent
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        HttpResponse::from_result(self.agent.get(self.url(path)).call())
    }

    pub fn delete(&self, path: &str) -> HttpResponse {
        HttpResponse::from_result(self.agent.delete(self.url(path)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.post_bytes(path, "application/json", body.to_string().as_bytes())
    }

    pub fn post_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> HttpResponse {
        HttpResponse::from_result(self.agent.post(self.url(path)).header("content-type", content_type).send(body))
    }

    /// Posts a multipart form with a JSON part and a file.
    pub fn post_file(&self, path: &str, json: (&str, &Value), file: (&str, &str, &[u8])) -> HttpResponse {
        let (content_type, body) = multipart(json, file);
        self.post_bytes(path, &content_type, &body)
    }

    /// Creates a job and returns its id.
    pub fn submit_job(&self, job: &Value) -> String {
        let answer = self.post("/jobs", job);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_string()
    }

    /// Reads the job's events to their end and returns the job.
    pub fn wait_for_job(&self, job: &str) -> Value {
        let path = format!("/jobs/{job}/events");
        let started = Instant::now();
        loop {
            let events = self.agent.get(self.url(&path)).header("accept", "text/event-stream").call().unwrap();
            // The stream ends with the job, or fails if the server is killed or after [`TIMEOUT`].
            let _ = events.into_body().into_reader().read_to_string(&mut String::new());
            let job = self.get(&format!("/jobs/{job}")).json();
            let is_unfinished = job["status"] == "queued" || job["status"] == "running";
            if !is_unfinished || started.elapsed() > TRAINING_TIMEOUT {
                return job;
            }
        }
    }

    pub fn train_to_success(&self, job: &Value) -> Value {
        let job = self.wait_for_job(&self.submit_job(job));
        assert_eq!(job["status"], "succeeded", "{job:#}");
        job
    }

    /// Reads the job's event stream up to a line that satisfies the predicate.
    pub fn read_events_until(&self, job: &str, mut predicate: impl FnMut(&str) -> bool) {
        let path = format!("/jobs/{job}/events");
        let events = self.agent.get(self.url(&path)).header("accept", "text/event-stream").call().unwrap();
        let mut lines = BufReader::new(events.into_body().into_reader()).lines().map_while(Result::ok);
        assert!(lines.any(|line| predicate(&line)), "the job's events ended without a matching line");
    }

    /// Waits until the running job has completed a step.
    pub fn wait_for_progress(&self, job: &str) {
        self.read_events_until(job, |line| line.starts_with("event: progress") || line.starts_with("event:progress"));
    }

    pub fn wait_for_status(&self, job: &str, status: &str) {
        let wanted = format!("\"status\":\"{status}\"");
        self.read_events_until(job, |line| line.replace(' ', "").contains(&wanted));
    }

    /// Waits for the next log line with the text.
    pub fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.lines.lock().unwrap().recv_timeout(remaining) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(_) => panic!("no log line contains {text}; the log:\n{}", self.log().join("\n")),
            }
        }
    }

    /// Waits for a log line with the text, which may have been logged before the server listened.
    pub fn wait_for_log_since_start(&self, text: &str) -> String {
        let logged = self.log().into_iter().find(|line| line.contains(text));
        logged.unwrap_or_else(|| self.wait_for_log(text))
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: i32) {
        let status = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends SIGKILL; returns the configuration for a restart and the log.
    pub fn kill(mut self) -> (ServerConfig, Vec<String>) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.setup.clone(), self.log())
    }

    /// Sends SIGKILL and starts a server with the same data.
    pub fn kill_and_restart(self) -> Self {
        self.kill().0.start()
    }

    /// Waits for the process to exit.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends SIGTERM; returns the exit status and the duration of the shutdown.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal(15);
        (self.wait_for_exit(), started.elapsed())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails if the test has already ended the process.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let panicked = self.log().into_iter().find(|line| line.contains("panicked"));
        if let (Some(line), false) = (panicked, std::thread::panicking()) {
            panic!("the server panicked: {line}");
        }
    }
}

pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn from_result(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        let response = result.expect("the server answers");
        let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap_or_default().to_string())
        };
        let headers = response.headers().iter().map(header).collect();
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(1 << 30).read_to_vec().unwrap();
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
}

pub fn multipart((part, json): (&str, &Value), (field, name, bytes): (&str, &str, &[u8])) -> (String, Vec<u8>) {
    let boundary = "a-boundary-that-no-dataset-holds";
    let mut body = Vec::new();
    let head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{part}\"\r\n");
    body.extend(format!("{head}content-type: application/json\r\n\r\n{json}\r\n").into_bytes());
    let head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n");
    body.extend(head.into_bytes());
    body.extend(bytes);
    body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// Small job with inline examples; `fields` override its fields.
pub fn small_job(count: usize, fields: Value) -> Value {
    let examples: Vec<Value> = espalier_testing::jobs::examples(count)
        .into_iter()
        .map(|example| {
            let espalier_core::task::Target::Label(label) = example.target else { panic!("a label was expected") };
            serde_json::json!({"text": example.text, "label": label})
        })
        .collect();
    let mut job = serde_json::json!({"examples": examples, "method": {"type": "lora"}});
    for (key, value) in fields.as_object().unwrap() {
        job[key] = value.clone();
    }
    job
}

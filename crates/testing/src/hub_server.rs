//! Test server with the HTTP interface of the hub, for one model.

use espalier_core::model::hub::{NetworkMode, Settings};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request that the server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub authorization: Option<String>,
    pub traceparent: Option<String>,
}

pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// Bytes of a response, header and body.
pub type Answer = Vec<u8>;

impl Server {
    /// Responds to every request with `handler` until the process ends.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, handler.as_ref()));
            }
        });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn settings(&self, cache: &Path) -> Settings {
        Settings {
            headers: Vec::new(),
            endpoint: self.address.clone(),
            token: None,
            network: NetworkMode::Online,
            cache: cache.to_path_buf(),
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &dyn Fn(&Request) -> Answer) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap());
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_string();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |wanted: &str| {
        headers.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case(wanted).then(|| value.to_string())
        })
    };
    let request = Request { path, authorization: header("authorization"), traceparent: header("traceparent") };
    seen.lock().unwrap().push(request.clone());
    // The client may close the connection first.
    let _ = stream.write_all(&handler(&request));
}

pub fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of a model by name.
#[derive(Clone)]
pub struct Model(pub BTreeMap<String, Vec<u8>>);

impl Model {
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(name, content)| (name.to_string(), content.as_bytes().to_vec())).collect())
    }

    /// A model with the required files and the pooling settings.
    pub fn small() -> Self {
        Self::new(&[
            ("config.json", "{\"model_type\": \"bert\"}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors", "weights"),
            ("1_Pooling/config.json", "{\"pooling_mode_mean_tokens\": true}"),
        ])
    }

    /// Response of the hub to a request for a file; 404 if there is none. `path` is `/org/name/resolve/revision/file`.
    pub fn answer(&self, path: &str) -> Answer {
        let file = path.splitn(6, '/').nth(5).unwrap_or_default();
        match self.0.get(file) {
            None => answer("404 Not Found", &[("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", COMMIT)], b""),
            Some(content) => {
                let tag = format!("\"{}\"", sha256(content));
                answer("200 OK", &[("X-Repo-Commit", COMMIT), ("ETag", &tag)], content)
            }
        }
    }

    pub fn serve(self) -> Server {
        Server::start(move |request| self.answer(&request.path))
    }
}

/// Paths of all files below a folder, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => walk(root, &entry.path(), found),
                false => found.push(entry.path().strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

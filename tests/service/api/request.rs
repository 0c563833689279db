//! HTTP requests as values, for tables of test cases.

use crate::api::server_process::{HttpResponse, ServerProcess, multipart};
use serde_json::Value;

/// Request to send.
#[derive(Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

pub fn request_without_body(method: &'static str, path: impl Into<String>) -> Request {
    Request { method, path: path.into(), headers: Vec::new(), body: None }
}

pub fn get(path: impl Into<String>) -> Request {
    request_without_body("GET", path)
}

pub fn delete(path: impl Into<String>) -> Request {
    request_without_body("DELETE", path)
}

pub fn post(path: impl Into<String>, body: &Value) -> Request {
    bytes(path, "application/json", body.to_string().into_bytes())
}

pub fn bytes(path: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    let request = Request { body: Some(body.into()), ..request_without_body("POST", path) };
    request.with_header("content-type", content_type)
}

/// Form with a JSON part and a file.
pub fn form(path: impl Into<String>, json: (&str, &Value), file: (&str, &str, &[u8])) -> Request {
    let (content_type, body) = multipart(json, file);
    bytes(path, &content_type, body)
}

/// Form with these parts, each given by its headers and its body.
pub fn parts(path: impl Into<String>, parts: &[(&str, &[u8])]) -> Request {
    let mut body = Vec::new();
    for (headers, content) in parts {
        body.extend(format!("--cut\r\n{headers}\r\n\r\n").into_bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    bytes(path, "multipart/form-data; boundary=cut", body)
}

impl Request {
    pub fn with_header(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }

    pub fn send(self, app: &ServerProcess) -> HttpResponse {
        let mut request = ureq::http::Request::builder().method(self.method).uri(app.url(&self.path));
        for (header, value) in self.headers {
            request = request.header(header, value);
        }
        match self.body {
            Some(body) => HttpResponse::from_result(app.agent().run(request.body(body).unwrap())),
            None => HttpResponse::from_result(app.agent().run(request.body(()).unwrap())),
        }
    }
}

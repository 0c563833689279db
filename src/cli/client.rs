//! Blocking HTTP client of the API. Error responses become [`CliError`]s.

use super::error::{CliError, CliResult, Problem};
use super::output::{self, Output};
use super::upload::MultipartForm;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, AsSendBody, Body, Error, SendBody};

/// Server address, API key and output format of client commands.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct ClientArgs {
    /// URL of the server [default: http://127.0.0.1:8080]
    #[arg(long, env = "ESPALIER_SERVER", value_name = "URL", global = true)]
    pub server: Option<String>,

    /// API key of the server
    #[arg(long, env = "ESPALIER_API_KEY", value_name = "KEY", hide_env_values = true, global = true)]
    pub api_key: Option<String>,

    /// Write the result as JSON to standard output, and messages to standard error
    #[arg(long, global = true)]
    pub json: bool,
}

/// HTTP client of the espalier API.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    server_url: String,
    api_key: Option<String>,
}

pub const DEFAULT_SERVER_URL: &str = "http://127.0.0.1:8080";
/// Timeout of requests except uploads and streams. Longer than the server's request timeout, whose error is more precise.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response that is read into memory.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;

impl ClientArgs {
    pub fn output(&self) -> Output {
        Output::new(if self.json { output::OutputFormat::Json } else { output::OutputFormat::Human })
    }

    pub fn client(&self) -> CliResult<Client> {
        Client::new(self)
    }
}

impl Client {
    /// # Errors
    /// `InvalidInput` if the server's URL is invalid.
    pub fn new(args: &ClientArgs) -> CliResult<Self> {
        let server = args.server.as_deref().map(str::trim).filter(|address| !address.is_empty());
        let address = server.unwrap_or(DEFAULT_SERVER_URL).trim_end_matches('/').to_string();
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(CliError::invalid_input(format!(
                "\"{address}\" is not the URL of a server: it must begin with http:// or https:// (--server, ESPALIER_SERVER)"
            )));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let key = args.api_key.as_deref().map(str::trim).filter(|key| !key.is_empty()).map(str::to_string);
        Ok(Self { agent, server_url: address, api_key: key })
    }

    pub fn server_url(&self) -> &str {
        &self.server_url
    }

    pub fn has_api_key(&self) -> bool {
        self.api_key.is_some()
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> CliResult<T> {
        self.read_json(self.send_checked(self.request(Method::GET, path), ())?)
    }

    /// Returns the version of the server from its OpenAPI document, which needs no key; `None` if it is not espalier.
    pub fn server_version(&self) -> Option<String> {
        let response = self.send(self.request(Method::GET, "/openapi.yaml"), (), Some(CONNECT_TIMEOUT)).ok()?;
        let description = response.into_body().read_to_string().ok()?;
        if !description.contains("title: espalier") {
            return None;
        }
        let line = description.lines().find_map(|line| line.strip_prefix("  version: "))?;
        Some(line.trim_matches(['"', '\'']).to_string())
    }

    /// Status and body of a response that is text.
    pub fn get_text(&self, path: &str, timeout: Duration) -> CliResult<(u16, String)> {
        let response = self.send(self.request(Method::GET, path), (), Some(timeout))?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        Ok((status, body.map_err(|error| self.unexpected_response(&error))?))
    }

    /// Sends a request without a body; the response may be empty.
    pub fn request_json(&self, method: Method, path: &str) -> CliResult<Value> {
        let response = self.send_checked(self.request(method, path), ())?;
        match response.status().as_u16() {
            204 => Ok(Value::Null),
            _ => self.read_json(response),
        }
    }

    pub fn post(&self, path: &str, body: &impl Serialize) -> CliResult<Value> {
        let text =
            serde_json::to_vec(body).map_err(|error| CliError::failed(format!("building the request: {error}")))?;
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        self.read_json(self.send_checked(request, text.as_slice())?)
    }

    /// Uploads a form without a timeout.
    pub fn upload(&self, path: &str, form: MultipartForm, output: &Output) -> CliResult<Response<Body>> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, &form.content_type);
        // With `Expect` the server can reject the request (wrong key, file too large) before the file is sent.
        let request = request.header(CONTENT_LENGTH, form.length).header(EXPECT, "100-continue");
        self.send(request, SendBody::from_owned_reader(form.into_reader(output)), None)
    }

    /// Sends a request and returns the response whatever its status.
    pub fn send(
        &self,
        request: Builder,
        body: impl AsSendBody,
        timeout: Option<Duration>,
    ) -> CliResult<Response<Body>> {
        let request = self.build_request(request, body)?;
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request).map_err(|error| self.connection_error(&error))
    }

    fn build_request<B>(&self, request: Builder, body: B) -> CliResult<Request<B>> {
        let build_error =
            |error| CliError::invalid_input(format!("this cannot be sent to {}: {error}", self.server_url));
        request.body(body).map_err(build_error)
    }

    /// Opens a response that is read as a stream; fails if no data arrives for `read_timeout`.
    pub fn open_stream(
        &self,
        request: Builder,
        body: impl AsSendBody,
        read_timeout: Duration,
    ) -> CliResult<Response<Body>> {
        let request = self.build_request(request, body)?;
        let request = self.agent.configure_request(request).timeout_per_read(Some(read_timeout)).build();
        self.agent.run(request).map_err(|error| self.connection_error(&error))
    }

    /// A request with the key, if there is one.
    pub fn request(&self, method: Method, path: &str) -> Builder {
        let builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server_url))
            .header(ACCEPT, "application/json");
        match &self.api_key {
            Some(key) => builder.header(AUTHORIZATION, format!("Bearer {key}")),
            None => builder,
        }
    }

    fn send_checked(&self, request: Builder, body: impl AsSendBody) -> CliResult<Response<Body>> {
        let response = self.send(request, body, Some(RESPONSE_TIMEOUT))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(read_problem(response).to_error(None)),
        }
    }

    /// Parses the JSON body of a response.
    pub fn read_json<T: DeserializeOwned>(&self, response: Response<Body>) -> CliResult<T> {
        response
            .into_body()
            .into_with_config()
            .limit(MAX_RESPONSE_BYTES)
            .read_json()
            .map_err(|error| self.unexpected_response(&error))
    }

    /// Converts a JSON value of a response into a type.
    pub fn decode<T: DeserializeOwned>(&self, value: Value) -> CliResult<T> {
        serde_json::from_value(value).map_err(|error| self.unexpected_response(&error))
    }

    fn unexpected_response(&self, error: &dyn std::fmt::Display) -> CliError {
        CliError::failed(format!(
            "the response of {} is not one of espalier ({error}): is --server right?",
            self.server_url
        ))
    }

    fn connection_error(&self, error: &Error) -> CliError {
        let server = &self.server_url;
        CliError::failed(match error {
            Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("no server answers at {server}: start one with `espalier serve`, or name it with --server")
            }
            Error::HostNotFound => format!("there is no host of that name: {server}; check --server"),
            Error::Timeout(_) => format!("{server} did not answer in time: try again, or look at its log"),
            Error::Io(error) => format!("the connection to {server} broke: {error}; try again"),
            error => format!("the request to {server} failed: {error}"),
        })
    }
}

/// Reads the problem document of an error response.
pub fn read_problem(response: Response<Body>) -> Problem {
    let status = response.status().as_u16();
    let body = response.into_body().into_with_config().limit(MAX_RESPONSE_BYTES).read_to_vec().unwrap_or_default();
    Problem::from_response(status, &body)
}

/// Percent-encodes an id, a name or `name@version` as a path segment.
pub fn encode_path_segment(text: &str) -> String {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte);
    text.bytes()
        .map(|byte| if is_unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_percent_encoded() {
        assert_eq!(encode_path_segment("intents@sha256:0a"), "intents@sha256:0a");
        assert_eq!(encode_path_segment("../jobs?x=é"), "..%2Fjobs%3Fx%3D%C3%A9");
    }

    #[test]
    fn address_without_scheme_is_rejected() {
        let remote = ClientArgs { server: Some("localhost:8080".to_string()), ..ClientArgs::default() };
        assert_eq!(Client::new(&remote).err().map(|error| error.exit_code()), Some(2));
    }

    #[test]
    fn connection_refused_names_the_server() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let remote = ClientArgs { server: Some(format!("http://{free}")), ..ClientArgs::default() };
        let error = Client::new(&remote).unwrap().get::<Value>("/base").unwrap_err();
        assert!(error.message().unwrap().contains(&format!("no server answers at http://{free}")));
        assert_eq!(error.exit_code(), 1);
    }
}

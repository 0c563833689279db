//! Tests of HTTP/2 by prior knowledge: requests at once, limits, floods of resets, time limits and shutdown.

use crate::api::generation::start_with_decoder;
use crate::api::server_process::{ServerConfig, ServerProcess};
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request};
use futures_util::future::join_all;
use h2::client::{Connection, ResponseFuture, SendRequest};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

type Client = SendRequest<Bytes>;

/// Opens a connection; the task ends with it.
async fn connect(app: &ServerProcess) -> (Client, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(app.url("").trim_start_matches("http://")).await.unwrap();
    let (client, connection): (_, Connection<TcpStream>) = h2::client::handshake(stream).await.unwrap();
    (client.ready().await.unwrap(), tokio::spawn(connection))
}

/// Starts a request.
async fn start(client: &Client, method: Method, path: &str, body: Option<&Value>) -> ResponseFuture {
    let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
    let request = request.header("content-type", "application/json").body(()).unwrap();
    let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        stream.send_data(Bytes::from(body.to_string()), true).unwrap();
    }
    response
}

/// Status, headers and body.
async fn finish(response: ResponseFuture) -> Result<(u16, HeaderMap, String), h2::Error> {
    let (parts, mut body) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len()).unwrap();
        bytes.extend_from_slice(&chunk);
    }
    Ok((parts.status.as_u16(), parts.headers, String::from_utf8(bytes).unwrap()))
}

async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> (u16, HeaderMap, String) {
    finish(start(client, method, path, body).await).await.unwrap()
}

#[test]
fn requests_on_one_connection_are_answered_at_once() {
    let app = ServerConfig::new().start();
    let body = json!({"inputs": ["where is my card"]});
    let expected = app.post("/predict", &body).json();
    Runtime::new().unwrap().block_on(async {
        let (client, _connection) = connect(&app).await;
        let predictions = (0..50).map(|_| send(&client, Method::POST, "/predict", Some(&body)));
        for (status, headers, text) in join_all(predictions).await {
            assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (200, expected.clone()));
            assert!(headers.contains_key("x-request-id"));
        }
        let (status, headers, text) = send(&client, Method::GET, "/v1/nothing", None).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &error["error"]["code"]), (404, &json!("route_not_found")));
        assert!(headers.contains_key("openai-processing-ms"), "{headers:?}");
        // The host is the authority of the target.
        let request = Request::builder().uri("http://evil.example/jobs").body(()).unwrap();
        let (response, _) = client.clone().send_request(request, true).unwrap();
        assert_eq!(finish(response).await.unwrap().0, 421);
        // A connection may have no requests in flight and be used again.
        assert_eq!(send(&client, Method::GET, "/health", None).await.0, 200);
    });
}

#[test]
fn text_is_streamed() {
    let app = start_with_decoder("llama", &[]);
    let model = app.get("/base").json()["name"].clone();
    let body = json!({"model": model, "prompt": "fruit", "max_tokens": 8, "stream": true, "temperature": 0});
    Runtime::new().unwrap().block_on(async {
        let (client, _connection) = connect(&app).await;
        let (status, headers, text) = send(&client, Method::POST, "/v1/completions", Some(&body)).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "text/event-stream"));
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let whole = app.post("/v1/completions", &body).text();
        assert_eq!(text.matches("data: {").count(), whole.matches("data: {").count(), "{text}");
    });
}

#[test]
fn streams_of_a_connection_are_limited() {
    let app = ServerConfig::new().with_arguments(&["--max-http2-streams", "3", "--max-headers", "8KiB"]).start();
    Runtime::new().unwrap().block_on(async {
        let (client, _connection) = connect(&app).await;
        // The server's settings have arrived with the first answer.
        assert_eq!(send(&client, Method::GET, "/health", None).await.0, 200);
        assert_eq!(client.current_max_send_streams(), 3);
        let long = format!("/jobs?name={}", "x".repeat(20_000));
        let refused = finish(start(&client, Method::GET, &long, None).await).await;
        assert!(refused.is_err() || refused.is_ok_and(|(status, ..)| status == 431));
        let (client, _connection) = connect(&app).await;
        assert_eq!(send(&client, Method::GET, "/health", None).await.0, 200);
    });
}

#[test]
fn flood_of_resets_ends_the_connection_and_no_other() {
    let app = ServerConfig::new().start();
    Runtime::new().unwrap().block_on(async {
        let (client, connection) = connect(&app).await;
        let body = json!({"inputs": ["where is my card"]});
        for _ in 0..20_000 {
            let request = Request::builder().method(Method::POST).uri("http://localhost/predict");
            let request = request.header("content-type", "application/json").body(()).unwrap();
            let Ok(mut client) = client.clone().ready().await else { break };
            let Ok((_, mut stream)) = client.send_request(request, false) else { break };
            let _ = stream.send_data(Bytes::from(body.to_string()), true);
            stream.send_reset(h2::Reason::CANCEL);
        }
        drop(client);
        connection.abort();
        let started = Instant::now();
        let (client, _connection) = connect(&app).await;
        assert_eq!(send(&client, Method::POST, "/predict", Some(&body)).await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    });
    // No request stays in flight.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !app.get("/metrics").text().contains("espalier_http_requests_in_flight 1\n") {
        assert!(Instant::now() < deadline, "{}", app.get("/metrics").text());
        std::thread::yield_now();
    }
}

#[test]
fn idle_connection_is_closed_after_the_keep_alive_timeout() {
    let app = ServerConfig::new().with_arguments(&["--keep-alive-timeout", "200ms"]).start();
    Runtime::new().unwrap().block_on(async {
        let (client, connection) = connect(&app).await;
        assert_eq!(send(&client, Method::GET, "/health", None).await.0, 200);
        tokio::time::timeout(Duration::from_secs(30), connection).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn client_that_does_not_read_is_disconnected() {
    let app = ServerConfig::new().with_arguments(&["--write-timeout", "200ms", "--log-level", "debug"]).start();
    Runtime::new().unwrap().block_on(async {
        let (client, _connection) = connect(&app).await;
        // More than the window of a connection, of which nothing is released.
        let responses = join_all((0..8).map(|_| start(&client, Method::GET, "/openapi.yaml", None))).await;
        let started = Instant::now();
        app.wait_for_log("the client does not read the response");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        drop(responses);
    });
}

#[test]
fn requests_in_flight_finish_at_the_shutdown() {
    let app = start_with_decoder("llama", &[]);
    let body = json!({"inputs": ["fruit red"], "max_tokens": 60});
    let app = Runtime::new().unwrap().block_on(async {
        let mut app = app;
        let (client, connection) = connect(&app).await;
        assert_eq!(send(&client, Method::GET, "/health", None).await.0, 200);
        let response = start(&client, Method::POST, "/generate", Some(&body)).await;
        // The server has read the request when it answers a later one.
        assert_eq!(send(&client, Method::GET, "/health/live", None).await.0, 200);
        app.signal(15);
        let (status, _, text) = finish(response).await.unwrap();
        assert!(status == 200 || (status == 503 && text.contains("shutting_down")), "{status} {text}");
        connection.await.unwrap().unwrap();
        assert!(app.wait_for_exit().success());
        app
    });
    drop(app);
}

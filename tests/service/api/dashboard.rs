//! Tests of the dashboard's files and of the sessions of its users.

use crate::api::request::{Request, delete, get, post};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

const KEY: &str = "a-key-of-sufficient-length";

fn file_names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn web_file(app: &ServerProcess, name: &str) -> HttpResponse {
    app.get(&if name == "index.html" { "/".to_string() } else { format!("/dashboard/{name}") })
}

#[test]
fn every_file_is_served_with_type_policy_and_etag() {
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY]).start();
    let names = file_names();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let answer = web_file(&app, &name);
        assert_eq!(answer.status, 200, "{name}");
        let content_type = answer.header("content-type").unwrap();
        let expected = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "html" => "text/html; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(content_type, expected, "{name}");
        let policy = answer.header("content-security-policy").unwrap();
        for rule in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]
        {
            assert!(policy.contains(rule), "{name}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{name}");
        let path = if name == "index.html" { "/".to_string() } else { format!("/dashboard/{name}") };
        let again = get(path).with_header("if-none-match", answer.header("etag").unwrap()).send(&app);
        assert_eq!((again.status, again.text().as_str()), (304, ""), "{name}");
    }
}

#[test]
fn file_is_compressed_for_clients_that_read_gzip() {
    let app = ServerConfig::new().start();
    let plain = get("/dashboard/uplot.js").with_header("accept-encoding", "identity").send(&app);
    assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
    let compressed = get("/dashboard/uplot.js").with_header("accept-encoding", "gzip, br").send(&app);
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert_eq!(compressed.header("vary"), Some("accept-encoding"));
    let length = |answer: &HttpResponse| answer.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(length(&compressed) * 2 < length(&plain), "{} of {}", length(&compressed), length(&plain));
}

/// The page has no script of its own text and names no other server.
#[test]
fn page_loads_own_files_alone() {
    let app = ServerConfig::new().start();
    let page = app.get("/").text();
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick"), "{page}");
    let references = page.split(['"', '\'']).filter_map(|part| part.strip_prefix("dashboard/"));
    let loaded: BTreeSet<&str> = references.collect();
    assert!(loaded.contains("app.js") && loaded.contains("theme.css"), "{loaded:?}");
    for name in loaded {
        assert_eq!(app.get(&format!("/dashboard/{name}")).status, 200, "{name}");
    }
    for name in file_names() {
        let text = web_file(&app, &name).text();
        for call in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "importScripts"]
        {
            assert!(!text.contains(call), "{name} has {call}");
        }
        if name == "uplot.js" {
            // Its comments have addresses.
            assert!(!text.contains("fetch(") && !text.contains("XMLHttpRequest") && !text.contains("import "));
        } else {
            let text = text.replace("http://www.w3.org/", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{name} names another server");
        }
    }
}

#[test]
fn unknown_file_is_404() {
    let app = ServerConfig::new().start();
    for path in ["/dashboard/nothing.js", "/dashboard/..%2fmod.rs", "/dashboard/"] {
        assert_eq!(app.get(path).status, 404, "{path}");
    }
}

fn sign_in(app: &ServerProcess, key: &str) -> HttpResponse {
    post("/session", &json!({"key": key})).send(app)
}

/// Cookie that the answer sets, as a browser sends it back.
fn cookie(answer: &HttpResponse) -> String {
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_string()
}

fn with_cookie(request: Request, cookie: &str) -> Request {
    request.with_header("cookie", cookie)
}

#[test]
fn key_is_exchanged_for_a_session_that_authenticates_requests() {
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY]).start();
    let state = |request: Request| request.send(&app).json();
    assert_eq!(state(get("/session")), json!({"key_required": true, "signed_in": false, "expires_at": null}));
    let wrong = sign_in(&app, "another-key-of-length");
    assert_eq!((wrong.status, &wrong.json()["code"], wrong.header("set-cookie")), (401, &json!("key_wrong"), None));
    let answer = sign_in(&app, KEY);
    assert_eq!((answer.status, &answer.json()["signed_in"]), (200, &json!(true)));
    let header = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(header.contains(attribute), "{header}");
    }
    assert!(!header.contains(KEY) && !header.contains("Secure"), "{header}");
    let secure = post("/session", &json!({"key": KEY})).with_header("x-forwarded-proto", "https").send(&app);
    assert!(secure.header("set-cookie").unwrap().contains("; Secure"));

    let session = cookie(&answer);
    assert_eq!(app.get("/jobs").status, 401);
    assert_eq!(with_cookie(get("/jobs"), &session).send(&app).status, 200);
    let signed_in = state(with_cookie(get("/session"), &session));
    assert!(signed_in["signed_in"] == true && signed_in["expires_at"].is_string(), "{signed_in}");
    let changed = with_cookie(get("/jobs"), &format!("{session}0")).send(&app);
    assert_eq!((changed.status, &changed.json()["code"]), (401, &json!("session_ended")));
    // A key that is sent counts, not the session.
    let with_wrong_key = with_cookie(get("/jobs"), &session).with_header("authorization", "Bearer wrong").send(&app);
    assert_eq!((with_wrong_key.status, &with_wrong_key.json()["code"]), (401, &json!("key_wrong")));
    let signed_out = delete("/session").send(&app);
    assert_eq!(signed_out.status, 204);
    assert!(signed_out.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[test]
fn session_outlives_a_restart_and_ends_with_its_key() {
    let config = ServerConfig::new();
    let app = config.clone().with_arguments(&["--api-keys", KEY]).start();
    let session = cookie(&sign_in(&app, KEY));
    drop(app);
    let app = config.clone().with_arguments(&["--api-keys", &format!("another-key-of-length,{KEY}")]).start();
    assert_eq!(with_cookie(get("/jobs"), &session).send(&app).status, 200);
    drop(app);
    let app = config.with_arguments(&["--api-keys", "another-key-of-length"]).start();
    assert_eq!(with_cookie(get("/jobs"), &session).send(&app).status, 401);
}

#[test]
fn session_ends_after_its_lifetime() {
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY, "--session-lifetime", "1s"]).start();
    let session = cookie(&sign_in(&app, KEY));
    while with_cookie(get("/jobs"), &session).send(&app).status == 200 {
        std::thread::yield_now();
    }
    assert_eq!(with_cookie(get("/jobs"), &session).send(&app).json()["code"], "session_ended");
}

#[test]
fn page_of_another_origin_cannot_use_the_session() {
    let app = ServerConfig::new().with_arguments(&["--api-keys", KEY, "--cors-origins", "https://app.example"]).start();
    let session = cookie(&sign_in(&app, KEY));
    let own = app.url("");
    let write = || with_cookie(post("/jobs?validate_only=true", &json!({"examples": []})), &session);
    for headers in [
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
        [("origin", "https://app.example"), ("sec-fetch-site", "same-site")],
        [("origin", "http://localhost:1"), ("sec-fetch-site", "same-site")],
    ] {
        let request = headers.iter().fold(write(), |request, (name, value)| request.with_header(name, value));
        let answer = request.send(&app);
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("cross_origin_request")), "{headers:?}");
    }
    let answer = write().with_header("origin", &own).with_header("sec-fetch-site", "same-origin").send(&app);
    assert_eq!(answer.status, 422, "{}", answer.text());
}

#[test]
fn server_without_keys_needs_no_session() {
    let app = ServerConfig::new().start();
    assert_eq!(app.get("/session").json(), json!({"key_required": false, "signed_in": true, "expires_at": null}));
    let answer = sign_in(&app, KEY);
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("no_api_keys")));
}

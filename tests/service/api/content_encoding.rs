//! Tests of compressed request bodies and responses.

use crate::api::generation::start_with_decoder;
use crate::api::request::{Request, bytes, get, post};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, multipart};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};

const ENCODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

fn compressed(text: &[u8], encoding: &str) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(text, 3).unwrap(),
    }
}

fn predict(body: impl Into<Vec<u8>>, encoding: &str) -> Request {
    bytes("/predict", "application/json", body).with_header("content-encoding", encoding)
}

/// Largest resident memory of the process so far, in MiB.
fn peak_memory_mib(app: &ServerProcess) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn compressed_bodies_are_read() {
    let app = ServerConfig::new().start();
    let body = json!({"inputs": ["where is my card"]});
    let plain = app.post("/predict", &body).json();
    for encoding in ENCODINGS {
        let answer = predict(compressed(body.to_string().as_bytes(), encoding), encoding).send(&app);
        assert_eq!((answer.status, answer.json()), (200, plain.clone()), "{encoding}: {}", answer.text());
    }
    assert_eq!(predict(body.to_string(), "identity").send(&app).status, 200);
    // Two gzip members, one after the other, as parallel compressors write them.
    let text = body.to_string();
    let (first, second) = text.split_at(5);
    let members = [compressed(first.as_bytes(), "gzip"), compressed(second.as_bytes(), "gzip")].concat();
    assert_eq!(predict(members, "GZIP").send(&app).json(), plain);
    let rows = b"text,label\na,x\nb,y\nc,x\nd,y\n";
    let (content_type, form) = multipart(("options", &json!({})), ("dataset", "a.csv", rows));
    let form = bytes("/datasets", &content_type, compressed(&form, "zstd")).with_header("content-encoding", "zstd");
    let stored = form.send(&app);
    assert_eq!((stored.status, &stored.json()["report"]["rows"]), (201, &json!(4)), "{}", stored.text());
    let raw = bytes("/datasets?file_name=a.csv", "text/csv", compressed(rows, "gzip"))
        .with_header("content-encoding", "gzip");
    assert_eq!(raw.send(&app).json()["id"], stored.json()["id"]);
}

#[test]
fn wrong_encodings_are_refused_by_name() {
    let app = ServerConfig::new().start();
    let check = |request: Request, status: u16, code: &str, words: &str| -> HttpResponse {
        let answer = request.send(&app);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
        answer
    };
    for encoding in ["br", "compress", "gzip, gzip"] {
        let answer = check(predict("{}", encoding), 415, "unsupported_media_type", "gzip, deflate, zstd");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate, zstd"));
    }
    let whole = json!({"inputs": ["a"]}).to_string();
    for encoding in ENCODINGS {
        check(predict(whole.clone(), encoding), 400, "invalid_encoding", encoding);
        let mut broken = compressed(whole.as_bytes(), encoding);
        broken.truncate(broken.len() - 3);
        check(predict(broken, encoding), 400, "invalid_encoding", encoding);
    }
}

#[test]
fn decompression_bomb_gets_413_without_the_memory() {
    let app = ServerConfig::new().with_arguments(&["--max-json", "1MiB", "--max-dataset", "1MiB"]).start();
    let zeros = vec![b' '; 256 << 20];
    let before = peak_memory_mib(&app);
    for encoding in ENCODINGS {
        let bomb = compressed(&zeros, encoding);
        let answer = predict(bomb.clone(), encoding).send(&app);
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (413, &json!("too_large")),
            "{encoding}: {}",
            answer.text()
        );
        let upload = bytes("/datasets?file_name=a.csv", "text/csv", bomb).with_header("content-encoding", encoding);
        assert_eq!(upload.send(&app).status, 413, "{encoding}");
    }
    let grown = peak_memory_mib(&app) - before;
    assert!(grown < 32, "the memory grew by {grown} MiB");
}

#[test]
fn large_responses_are_compressed_for_clients_that_accept_it() {
    let app = ServerConfig::new().start();
    let plain = get("/openapi.yaml").send(&app);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    let read = |accepted: &str| get("/openapi.yaml").with_header("accept-encoding", accepted).send(&app);
    let gzip = read("gzip, br");
    assert_eq!((gzip.header("content-encoding"), gzip.header("vary")), (Some("gzip"), Some("accept-encoding")));
    let mut text = Vec::new();
    GzDecoder::new(gzip.body.as_slice()).read_to_end(&mut text).unwrap();
    assert!(text == plain.body && gzip.body.len() * 3 < text.len());
    let zstd = read("gzip, zstd");
    assert_eq!(zstd.header("content-encoding"), Some("zstd"));
    assert!(zstd::decode_all(zstd.body.as_slice()).unwrap() == plain.body);
    assert_eq!(read("identity, gzip;q=0").header("content-encoding"), None);
    // Small ones are not.
    let small = get("/base").with_header("accept-encoding", "zstd").send(&app);
    assert_eq!((small.status, small.header("content-encoding"), small.header("vary")), (200, None, None));
    let app = ServerConfig::new().with_arguments(&["--compress-from", "off"]).start();
    let off = get("/openapi.yaml").with_header("accept-encoding", "zstd").send(&app);
    assert_eq!((off.header("content-encoding"), off.body == plain.body), (None, true));
}

#[test]
fn streams_and_archives_are_not_compressed() {
    let app = start_with_decoder("llama", &["--compress-from", "1B"]);
    let model = app.get("/base").json()["name"].clone();
    let body = json!({"model": model, "prompt": "fruit", "max_tokens": 4, "stream": true});
    let stream = post("/v1/completions", &body).with_header("accept-encoding", "zstd").send(&app);
    assert_eq!((stream.status, stream.header("content-encoding")), (200, None));
    assert!(stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
    let job: Value = json!({"name": "fruit", "examples": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}],
        "hyperparameters": {"epochs": 1}});
    app.train_to_success(&job);
    let zip = get("/adapters/fruit/download").with_header("accept-encoding", "zstd").send(&app);
    assert_eq!((zip.status, zip.header("content-encoding"), &zip.body[..2]), (200, None, b"PK".as_slice()));
    let small = get("/base").with_header("accept-encoding", "zstd").send(&app);
    assert_eq!(small.header("content-encoding"), Some("zstd"));
}

//! Tests of rejected adapter imports.

use crate::api::error_cases::{ErrorCase, check_cases, error_case};
use crate::api::request::{Request, bytes, form};
use crate::api::server_process::{ServerConfig, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn upload(zip: Vec<u8>) -> Request {
    bytes("/adapters?name=never", "application/zip", zip)
}

#[test]
fn every_damaged_adapter_is_rejected_with_its_reason() {
    let app = ServerConfig::new().start();
    let folder = fixture("peft-damaged");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let mut cases: Vec<ErrorCase> = Vec::new();
    for (name, refusal) in expected.as_object().unwrap() {
        let code: &'static str = refusal["code"].as_str().unwrap().to_string().leak();
        let zip = fs::read(folder.join(format!("{name}.zip"))).unwrap();
        cases.push(error_case(name, upload(zip), 422, code, refusal["words"].as_str().unwrap()));
    }
    assert!(check_cases(&app, cases) >= 20);
}

#[test]
fn invalid_or_malicious_zip_is_rejected() {
    let app = ServerConfig::new().with_arguments(&["--max-adapter-files", "8", "--max-adapter-json", "5kB"]).start();
    let good = fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap();
    let file = |name: &str| fs::read(fixture("peft-tiny/adapter").join(name)).unwrap();
    let (config, tensors) = (file(CONFIG), file(TENSORS));
    let beside = |name: &str| zip(&[(CONFIG, &config), (TENSORS, &tensors), (name, b"x")]);
    let big = vec![b' '; 10_000];
    let names: Vec<String> = (0..9).map(|index| format!("file-{index}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    let bad =
        |name: &str, zip: Vec<u8>, fragment: &str| error_case(name, upload(zip), 422, "unreadable_adapter", fragment);
    let mut cases = vec![
        bad("nothing", Vec::new(), "is not a zip"),
        bad("a text", b"my adapter".to_vec(), "is not a zip"),
        bad("half a zip", good[..good.len() / 2].to_vec(), "is not a zip"),
        bad("an empty zip", zip(&[]), "holds no adapter_config.json"),
        bad("two adapters", zip(&[("a/adapter_config.json", b"{}"), ("b/adapter_config.json", b"{}")]), "one by one"),
        bad("too many files", zip(&many), "at most 8"),
        bad("a bomb", zip(&[(CONFIG, &big), (TENSORS, &tensors)]), "unpacks to more than 5000 bytes"),
        bad("a config that is no JSON", zip(&[(CONFIG, b"r: 8"), (TENSORS, &tensors)]), "adapter_config.json"),
        bad("tensors of nothing", zip(&[(CONFIG, &config), (TENSORS, b"")]), "adapter_model.safetensors"),
        bad("a card that is no JSON", beside("espalier.json"), "espalier.json"),
    ];
    for name in ["../evil", "/etc/passwd", "a/../../evil", "C:/evil", "a\\..\\evil"] {
        cases.push(bad(name, beside(name), "points outside of the zip"));
    }
    cases.push(error_case(
        "a zip as JSON",
        bytes("/adapters", "application/json", good.clone()),
        400,
        "malformed_json",
        "UTF-8",
    ));
    for content_type in ["text/plain", ""] {
        let request = bytes("/adapters", content_type, good.clone());
        cases.push(error_case(
            format!("as {content_type:?}"),
            request,
            415,
            "unsupported_media_type",
            "application/zip",
        ));
    }
    check_cases(&app, cases);
}

#[test]
fn adapter_options_must_match_the_adapter() {
    let app = ServerConfig::new().start();
    app.train_to_success(&small_job(30, json!({"name": "ours", "hyperparameters": {"max_steps": 2}})));
    let ours = app.get("/adapters/ours/download").body;
    let theirs = fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap();
    let said = |zip: &[u8], options: &Value| form("/adapters", ("options", options), ("adapter", "a.zip", zip));
    let wrong = |options: Value, code, fragment: &str| {
        error_case(options.to_string(), said(&theirs, &options), 422, code, fragment)
    };
    check_cases(
        &app,
        vec![
            wrong(json!({"label": ["a"]}), "invalid_body", "`labels`").with_pointer("/label"),
            wrong(json!({"labels": "a,b,c"}), "invalid_body", "a list").with_pointer("/labels"),
            wrong(json!({"labels": ["a", "b"]}), "invalid_import", "3"),
            wrong(json!({"labels": ["a", "b", "b"]}), "invalid_import", "\"b\""),
            wrong(json!({"labels": ["a", "", "c"]}), "invalid_import", "empty"),
            wrong(json!({"pooling": "max"}), "invalid_body", "`mean`").with_pointer("/pooling"),
            wrong(json!({"max_length": 3}), "invalid_import", "4 to 128"),
            wrong(json!({"max_length": 100_000}), "invalid_import", "4 to 128"),
            wrong(json!({"base": "bert-base-uncased"}), "other_base", "\"bert-base-uncased\""),
            wrong(json!({"name": "Two Words"}), "invalid_body", "a-z").with_pointer("/name"),
            error_case(
                "labels for ours",
                said(&ours, &json!({"labels": ["a", "b", "c"]})),
                422,
                "invalid_import",
                "leave them out",
            ),
            error_case(
                "a wrong name",
                bytes("/adapters?name=Two%20Words", "application/zip", theirs.clone()),
                422,
                "invalid_query",
                "a-z",
            ),
            error_case(
                "an unknown parameter",
                bytes("/adapters?nam=x", "application/zip", theirs.clone()),
                422,
                "invalid_query",
                "`name`",
            ),
        ],
    );
}

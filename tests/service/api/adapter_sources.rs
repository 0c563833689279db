//! Imports with options in the query, of `.tar.gz` files, from paths below the operator's folder, and from a hub.

use crate::api::error_cases::{check_cases, error_case};
use crate::api::request::{bytes, form, post};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use espalier_testing::folders::read_zip;
use espalier_testing::hub_server::{COMMIT, Model, Server, answer};
use espalier_testing::jobs::fixture;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn adapter_zip() -> Vec<u8> {
    fs::read(fixture("peft-tiny").join("adapter.zip")).unwrap()
}

fn write_folder(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in read_zip(&fixture("peft-tiny").join("adapter.zip")) {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn tar_gz() -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in read_zip(&fixture("peft-tiny").join("adapter.zip")) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("./checkpoint/{name}"), bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn created(answer: HttpResponse) -> Value {
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn source(app: &ServerProcess, request: &Value) -> HttpResponse {
    app.post("/adapters", request)
}

#[test]
fn query_states_the_options_of_a_body() {
    let app = ServerConfig::new().start();
    let query = "name=theirs&labels=card,refund,top%20up&pooling=cls&max_length=64&base=tiny-bert";
    let adapter = created(app.post_bytes(&format!("/adapters?{query}"), "application/zip", &adapter_zip()));
    assert_eq!((&adapter["name"], &adapter["max_length"]), (&json!("theirs"), &json!(64)));
    assert_eq!(adapter["labels"], json!(["card", "refund", "top up"]));
    assert_eq!(adapter["task"], json!({"type": "sequence_classification", "pooling": "cls"}));
    let list = "labels=%5B%22a%2Cb%22%2C%22c%22%2C%22d%22%5D";
    let adapter = created(app.post_bytes(&format!("/adapters?{list}"), "application/zip", &adapter_zip()));
    assert_eq!(adapter["labels"], json!(["a,b", "c", "d"]));
    // Beside a form, for what its options leave out.
    let options = ("options", &json!({"name": "formed"}));
    let adapter = created(app.post_file("/adapters?labels=a,b,c", options, ("adapter", "a.zip", &adapter_zip())));
    assert_eq!((&adapter["name"], &adapter["labels"]), (&json!("formed"), &json!(["a", "b", "c"])));
    let zip = |query: &str| bytes(format!("/adapters?{query}"), "application/zip", adapter_zip());
    let twice = form("/adapters?name=a", ("options", &json!({"name": "b"})), ("adapter", "a.zip", &adapter_zip()));
    check_cases(
        &app,
        vec![
            error_case("two names", twice, 422, "invalid_query", "both say name"),
            error_case("two labels", zip("labels=a,b"), 422, "invalid_import", "3 rows"),
            error_case("half a list", zip("labels=%5B%22a%22"), 422, "invalid_query", "labels"),
            error_case("another base", zip("base=bert-base-uncased"), 422, "other_base", "bert-base-uncased"),
            error_case("a wrong pooling", zip("pooling=max"), 422, "invalid_query", "mean"),
            error_case("a wrong length", zip("max_length=3"), 422, "invalid_import", "4 to 128"),
        ],
    );
}

#[test]
fn tar_gz_is_imported_as_the_zip_is() {
    let app = ServerConfig::new().start();
    let from_zip = created(app.post_bytes("/adapters", "application/zip", &adapter_zip()));
    for content_type in ["application/gzip", "application/x-gzip", "application/x-tar", "application/octet-stream"] {
        let from_tar = created(app.post_bytes("/adapters", content_type, &tar_gz()));
        assert_eq!(from_tar["version"], from_zip["version"]);
    }
    let form = app.post_file("/adapters", ("options", &json!({"name": "packed"})), ("adapter", "a.tar.gz", &tar_gz()));
    assert_eq!(created(form)["version"], from_zip["version"]);
    assert_eq!(app.post("/predict?adapter=packed", &json!({"inputs": ["where is my card"]})).status, 200);
    let cut = bytes("/adapters", "application/gzip", tar_gz()[..200].to_vec());
    check_cases(&app, vec![error_case("half a .tar.gz", cut, 422, "unreadable_adapter", "the .tar.gz cannot be used")]);
}

#[test]
fn paths_are_read_below_the_folder_alone() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("imports");
    write_folder(&root.join("team/one"));
    write_folder(&home.path().join("secret"));
    fs::write(root.join("two.zip"), adapter_zip()).unwrap();
    fs::write(root.join("three.tar.gz"), tar_gz()).unwrap();
    symlink(home.path().join("secret"), root.join("link")).unwrap();
    let by_link = root.join("by-link");
    fs::create_dir(&by_link).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        symlink(home.path().join("secret").join(name), by_link.join(name)).unwrap();
    }
    let folder = root.display().to_string();
    let app = ServerConfig::new().with_arguments(&["--adapter-import-folder", &folder]).start();
    let mut versions = Vec::new();
    for path in ["path:team/one", "path:two.zip", "path:three.tar.gz", &format!("path:{folder}/team/one")] {
        let adapter = created(source(&app, &json!({"source": path, "name": "one", "labels": ["a", "b", "c"]})));
        assert_eq!(adapter["labels"], json!(["a", "b", "c"]));
        versions.push(adapter["version"].clone());
    }
    assert!(versions.iter().all(|version| *version == versions[0]));
    let refused = |path: &str, status, code, words: &str| {
        error_case(path, post("/adapters", &json!({"source": path})), status, code, words)
    };
    let not_found = |path: &str| refused(path, 404, "adapter_not_found", "--adapter-import-folder");
    check_cases(
        &app,
        vec![
            not_found("path:../secret"),
            not_found("path:link"),
            not_found("path:nothing"),
            not_found("path:/etc"),
            not_found(&format!("path:{}/secret", home.path().display())),
            refused("path:by-link", 422, "unreadable_adapter", "is a link to a place outside"),
            refused("path:team", 422, "unreadable_adapter", "holds no adapter_config.json"),
            refused("one", 422, "invalid_body", "hub:owner/name@revision").with_pointer("/source"),
            error_case("no source", post("/adapters", &json!({"name": "a"})), 422, "invalid_body", "source"),
            error_case(
                "an unknown field",
                post("/adapters", &json!({"source": "path:team/one", "label": []})),
                422,
                "invalid_body",
                "label",
            ),
        ],
    );
    let app = ServerConfig::new().start();
    check_cases(&app, vec![refused("path:one", 422, "imports_disabled", "--adapter-import-folder")]);
}

/// A hub with the files of the tiny adapter.
fn hub_model(names: &[&str]) -> Model {
    let files = read_zip(&fixture("peft-tiny").join("adapter.zip"));
    Model(names.iter().map(|name| (name.to_string(), files.get(*name).cloned().unwrap_or_default())).collect())
}

fn start_with_hub(hub: &str, cache: &Path, environment: &[(&str, &str)]) -> ServerProcess {
    let setup = ServerConfig::new()
        .with_environment("HF_ENDPOINT", hub)
        .with_environment("HF_HUB_CACHE", cache.to_str().unwrap());
    environment.iter().fold(setup, |setup, (name, value)| setup.with_environment(name, value)).start()
}

#[test]
fn adapters_are_imported_from_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let files = ["adapter_config.json", "adapter_model.safetensors"];
    let hub = hub_model(&files).serve();
    let app = start_with_hub(&hub.address, cache.path(), &[("HF_TOKEN", "hf_secret")]);
    let adapter = created(source(&app, &json!({"source": "hub:owner/name@v1", "name": "theirs", "max_length": 64})));
    assert_eq!((&adapter["name"], &adapter["max_length"]), (&json!("theirs"), &json!(64)));
    assert_eq!(app.post("/predict?adapter=theirs", &json!({"inputs": ["where is my card"]})).status, 200);
    let requests = hub.requests();
    assert_eq!(requests[0].path, "/owner/name/resolve/v1/adapter_config.json");
    assert!(requests[1..].iter().all(|request| request.path.contains(COMMIT)), "one commit for all files");
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));

    // The branch is looked up again, and the files of a known commit are not downloaded again.
    created(source(&app, &json!({"source": "hub:owner/name@v1"})));
    assert_eq!(hub.requests().len(), requests.len() + 1);
    let version = adapter["version"].clone();
    drop(app);
    let app = start_with_hub("http://127.0.0.1:1", cache.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(created(source(&app, &json!({"source": "hub:owner/name@v1", "max_length": 64})))["version"], version);
    let offline = post("/adapters", &json!({"source": "hub:owner/other"}));
    check_cases(&app, vec![error_case("offline", offline, 422, "adapter_not_cached", "HF_HUB_OFFLINE")]);
}

#[test]
fn what_the_hub_does_not_give_is_refused_with_the_reason() {
    let cache = tempfile::tempdir().unwrap();
    let pickled = hub_model(&["adapter_config.json", "adapter_model.bin"]);
    let hub = Server::start(move |request| match request.path.split('/').nth(2).unwrap_or_default() {
        "pickled" => pickled.answer(&request.path),
        "gated" => answer("403 Forbidden", &[("X-Error-Code", "GatedRepo")], b""),
        "broken" => answer("500 Internal Server Error", &[], b""),
        "model" => Model::small().answer(&request.path),
        "large" => {
            answer("200 OK", &[("X-Repo-Commit", COMMIT), ("ETag", "\"e\""), ("X-Linked-Size", "9999999999")], b"")
        }
        _ => answer("404 Not Found", &[("X-Error-Code", "RepoNotFound")], b""),
    });
    let app = start_with_hub(&hub.address, cache.path(), &[]);
    let refused = |id: &str, status, code, words: &str| {
        error_case(id, post("/adapters", &json!({"source": format!("hub:{id}")})), status, code, words)
    };
    check_cases(
        &app,
        vec![
            refused("owner/nothing", 422, "adapter_not_found", "no such model or revision"),
            refused("owner/model", 422, "adapter_not_found", "has no adapter_config.json"),
            refused("owner/pickled", 422, "unsupported_adapter", "safe_serialization=True"),
            refused("owner/gated", 422, "adapter_forbidden", "HF_TOKEN"),
            refused("owner/large", 422, "adapter_too_large", "9999999999 bytes"),
            refused("../etc", 422, "invalid_source", "owner/name@revision"),
            refused("a/b/c", 422, "invalid_source", "owner/name@revision"),
        ],
    );
    let broken = source(&app, &json!({"source": "hub:owner/broken"}));
    assert_eq!((broken.status, broken.json()["code"].as_str()), (503, Some("hub_unavailable")));
    assert_eq!(broken.header("retry-after"), Some("30"));
}

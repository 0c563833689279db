//! A plain PEFT folder becomes an adapter, with what the request adds; these tests need no base. The whole way, with
//! the base and its probe, is in `tests/artifact.rs`.

use super::plain::Plain;
use super::*;
use crate::adapter::{self, targets::TargetModules};
use crate::artifact::folder::publish;
use crate::artifact::peft::head::Head;
use crate::artifact::peft::keys::Form;
use crate::artifact::peft::weights;
use crate::artifact::{BaseCard, safetensors, testing};
use crate::model::SiteInfo;
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"],
        "base_model_name_or_path": "/home/x/tiny-bert", "modules_to_save": ["classifier", "score"],
    })
}

fn plain(config: &Value, keep: impl Fn(&SiteInfo) -> bool) -> Plain {
    let outline = testing::outline();
    let Artifact { card, mut weights } = testing::lora(Pooling::Cls);
    for info in outline.sites.iter().filter(|info| !keep(info)) {
        weights.retain(|name, _| !name.starts_with(&format!("{}.", info.site)));
    }
    let tensors =
        safetensors::write(&weights::to_peft(&weights, &card.method, &outline.sites, Form::Headed, Head::LINEAR))
            .unwrap();
    Plain { config: config.to_string().into_bytes(), tensors }
}

fn read(config: &Value, request: &ImportRequest) -> Result<Artifact> {
    plain(config, |_| true).open(request, &testing::outline())
}

fn with(field: &str, value: Value) -> Value {
    let mut config = config();
    config[field] = value;
    config
}

fn targets(artifact: &Artifact) -> Vec<String> {
    match &artifact.card.method {
        adapter::Config::Lora(adapter::lora::Config { target_modules: TargetModules::Names(names), .. }) => {
            names.clone()
        }
        other => panic!("expected names, got {other:?}"),
    }
}

#[test]
fn a_plain_folder_has_transformers_pooling_and_no_fingerprint() {
    let artifact = read(&config(), &ImportRequest::default()).unwrap();
    assert_eq!(artifact.weights, testing::lora(Pooling::Cls).weights);
    assert_eq!(testing::outline().pooling(&artifact.card.task), Pooling::Cls);
    assert_eq!(artifact.card.base, BaseCard { name: "example/tiny-bert".to_string(), fingerprint: None });
    assert_eq!((artifact.card.max_length, artifact.card.temperature), (128, 1.0));
    assert_eq!(targets(&artifact), ["query", "value"]);
}

#[test]
fn labels_come_from_the_request_else_the_config_else_their_numbers() {
    let named = with("id2label", json!({"0": "x", "1": "y", "2": "z"}));
    let said = |labels: &[&str]| ImportRequest {
        labels: Some(labels.iter().map(std::string::ToString::to_string).collect()),
        ..ImportRequest::default()
    };
    let labels = |config: &Value, request: &ImportRequest| read(config, request).unwrap().card.labels;
    assert_eq!(labels(&config(), &ImportRequest::default()), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(labels(&named, &ImportRequest::default()), ["x", "y", "z"]);
    assert_eq!(labels(&named, &said(&["a", "b", "c"])), ["a", "b", "c"]);
    assert_eq!(read(&named, &said(&["a", "b"])).unwrap_err().code(), "invalid_import");
    assert_eq!(read(&named, &said(&["a", "b", "b"])).unwrap_err().code(), "invalid_import");
    let short = with("id2label", json!({"0": "x", "1": "y"}));
    assert_eq!(read(&short, &ImportRequest::default()).unwrap_err().code(), "unreadable_adapter");
}

#[test]
fn another_base_is_refused_unless_the_request_says_that_it_is_ours() {
    for name in [json!("bert-base-uncased"), Value::Null] {
        let config = with("base_model_name_or_path", name);
        let error = read(&config, &ImportRequest::default()).unwrap_err();
        assert_eq!(error.code(), "other_base");
        assert!(error.to_string().contains("\"base\": \"example/tiny-bert\""), "{error}");
        let said = |base: &str| ImportRequest { base: Some(base.to_string()), ..ImportRequest::default() };
        read(&config, &said("example/tiny-bert")).unwrap();
        assert_eq!(read(&config, &said("something/else")).unwrap_err().code(), "other_base");
    }
}

#[test]
fn some_layers_keep_their_whole_paths() {
    let whole = "bert.encoder.layer.1.attention.self.value";
    let config = with("target_modules", json!([whole]));
    let plain = plain(&config, |info| info.path == whole);
    let artifact = plain.open(&ImportRequest::default(), &testing::outline()).unwrap();
    assert_eq!(targets(&artifact), [whole]);
}

#[test]
fn tasks_other_than_classification_are_refused() {
    let error = read(&with("task_type", json!("CAUSAL_LM")), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
    let encoder = with("task_type", json!("FEATURE_EXTRACTION"));
    assert!(read(&encoder, &ImportRequest::default()).unwrap_err().to_string().contains("\"pooling\""));
    let request = ImportRequest { pooling: Some(Pooling::Mean), ..ImportRequest::default() };
    assert_eq!(testing::outline().pooling(&read(&encoder, &request).unwrap().card.task), Pooling::Mean);
}

#[test]
fn a_length_that_the_base_cannot_read_is_refused() {
    let request = ImportRequest { max_length: Some(129), ..ImportRequest::default() };
    assert_eq!(read(&config(), &request).unwrap_err().code(), "invalid_import");
}

#[test]
fn a_bare_head_without_its_card_is_refused() {
    let error = read(&json!({"peft_type": null}), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
}

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

fn upload(zip: &Path, request: &ImportRequest) -> Result<Opened> {
    let temporary = tempfile::tempdir().unwrap();
    let opened = super::open(zip, request, &testing::outline(), temporary.path(), &Settings::default());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
    opened
}

#[test]
fn what_the_real_peft_saved_is_read() {
    let zip = Path::new(FIXTURES).join("peft-tiny/adapter.zip");
    let Opened::Plain(artifact) = upload(&zip, &ImportRequest::default()).unwrap() else {
        panic!("it holds no espalier.json")
    };
    assert_eq!(artifact.weights.len(), 10);
    assert_eq!(artifact.weights["layer.1.value.lora_B"].shape, [32, 4]);
    assert_eq!(artifact.weights["head.weight"].shape, [3, 32]);
    assert_eq!(targets(&artifact), ["query", "value"]);
}

#[test]
fn every_damaged_file_is_refused_with_its_reason() {
    let folder = Path::new(FIXTURES).join("peft-damaged");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for (name, refusal) in expected.as_object().unwrap() {
        // Only the base can tell that an adapter has no effect: see `tests/artifact.rs`.
        let Err(error) = upload(&folder.join(format!("{name}.zip")), &ImportRequest::default()) else {
            assert_eq!(refusal["code"], "adapter_without_effect", "{name} is accepted");
            continue;
        };
        assert_eq!(error.code(), refusal["code"], "{name}");
        let words = refusal["words"].as_str().unwrap();
        assert!(error.to_string().contains(words), "{name}: {error} should say {words}");
        assert!(matches!(error, Error::Invalid(_)), "{name} is the caller's fault");
    }
}

fn exported(artifact: &Artifact, folder: &Path) -> (String, std::path::PathBuf) {
    let files = Files::of(artifact, &testing::outline()).unwrap();
    let version = publish(&files, folder, &folder.join("temporary")).unwrap().version;
    let path = folder.join("export.zip");
    zip::export(&folder.join(&version), &version, &json!({"job_id": 7}), File::create(&path).unwrap()).unwrap();
    (version, path)
}

#[test]
fn our_own_export_comes_back_with_its_version() {
    for artifact in [testing::lora(Pooling::Cls), testing::lora(Pooling::Mean), testing::head(Pooling::Mean)] {
        let folder = tempfile::tempdir().unwrap();
        let (version, path) = exported(&artifact, folder.path());
        let Opened::Ours(back) = upload(&path, &ImportRequest::default()).unwrap() else {
            panic!("it holds an espalier.json")
        };
        assert_eq!(back, artifact);
        assert_eq!(Files::of(&back, &testing::outline()).unwrap().version(), version);
    }
}

#[test]
fn our_own_export_for_another_base_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut artifact = testing::lora(Pooling::Cls);
    artifact.card.base.fingerprint = Some("sha256:other".to_string());
    let (_, path) = exported(&artifact, folder.path());
    assert_eq!(upload(&path, &ImportRequest::default()).err().unwrap().code(), "other_base");
}

#[test]
fn a_request_cannot_overrule_our_own_card() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = exported(&testing::lora(Pooling::Cls), folder.path());
    let request = ImportRequest { max_length: Some(16), ..ImportRequest::default() };
    assert_eq!(upload(&path, &request).err().unwrap().code(), "invalid_import");
}

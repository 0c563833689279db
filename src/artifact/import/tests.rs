//! A plain PEFT folder becomes an adapter, with what the request adds; these tests need no base. The whole way, with
//! the base and its probe, is in `tests/peft.rs`.

use super::plain::Plain;
use super::*;
use crate::adapter::{self, lora::TargetModules};
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
    let mut weights = testing::lora(Pooling::Cls).weights;
    for info in outline.sites.iter().filter(|info| !keep(info)) {
        weights.retain(|name, _| !name.starts_with(&format!("{}.", info.site)));
    }
    let tensors = safetensors::write(&weights::to_peft(&weights, &outline.sites, Form::Headed)).unwrap();
    Plain { config: config.to_string().into_bytes(), tensors }
}

fn open(config: &Value, request: &ImportRequest) -> Result<Artifact> {
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
    let artifact = open(&config(), &ImportRequest::default()).unwrap();
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
        labels: Some(labels.iter().map(|label| label.to_string()).collect()),
        ..ImportRequest::default()
    };
    let labels = |config: &Value, request: &ImportRequest| open(config, request).unwrap().card.labels;
    assert_eq!(labels(&config(), &ImportRequest::default()), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(labels(&named, &ImportRequest::default()), ["x", "y", "z"]);
    assert_eq!(labels(&named, &said(&["a", "b", "c"])), ["a", "b", "c"]);
    assert_eq!(open(&named, &said(&["a", "b"])).unwrap_err().code(), "invalid_import");
    assert_eq!(open(&named, &said(&["a", "b", "b"])).unwrap_err().code(), "invalid_import");
    let short = with("id2label", json!({"0": "x", "1": "y"}));
    assert_eq!(open(&short, &ImportRequest::default()).unwrap_err().code(), "unreadable_adapter");
}

#[test]
fn another_base_is_refused_unless_the_request_says_that_it_is_ours() {
    for name in [json!("bert-base-uncased"), Value::Null] {
        let config = with("base_model_name_or_path", name);
        let error = open(&config, &ImportRequest::default()).unwrap_err();
        assert_eq!(error.code(), "other_base");
        assert!(error.to_string().contains("\"base\": \"example/tiny-bert\""), "{error}");
        let said = |base: &str| ImportRequest { base: Some(base.to_string()), ..ImportRequest::default() };
        open(&config, &said("example/tiny-bert")).unwrap();
        assert_eq!(open(&config, &said("something/else")).unwrap_err().code(), "other_base");
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
    let error = open(&with("task_type", json!("CAUSAL_LM")), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
    let encoder = with("task_type", json!("FEATURE_EXTRACTION"));
    assert!(open(&encoder, &ImportRequest::default()).unwrap_err().to_string().contains("\"pooling\""));
    let request = ImportRequest { pooling: Some(Pooling::Mean), ..ImportRequest::default() };
    assert_eq!(testing::outline().pooling(&open(&encoder, &request).unwrap().card.task), Pooling::Mean);
}

#[test]
fn a_length_that_the_base_cannot_read_is_refused() {
    let request = ImportRequest { max_length: Some(129), ..ImportRequest::default() };
    assert_eq!(open(&config(), &request).unwrap_err().code(), "invalid_import");
}

#[test]
fn a_bare_head_without_its_card_is_refused() {
    let error = open(&json!({"peft_type": null}), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
}

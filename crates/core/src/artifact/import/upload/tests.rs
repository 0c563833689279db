//! Import of PEFT folders and native exports without a base. Tests with a base and its probe are in `tests/engine/artifact.rs`.

use super::*;
use crate::adapter::{self, peft::ModuleNaming, target_modules::TargetModules};
use crate::artifact::base::BaseModelId;
use crate::artifact::folder::publish_files;
use crate::artifact::peft::{head::HeadLayout, weights};
use crate::artifact::zip::write_peft_zip;
use crate::artifact::{safetensors, testing};
use crate::model::{Pooling, SiteInfo};
use serde_json::{Value, json};

fn peft_config() -> Value {
    json!({
        "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"],
        "base_model_name_or_path": "/home/x/tiny-bert", "modules_to_save": ["classifier", "score"],
    })
}

fn peft_files(config: &Value, keep_site: impl Fn(&SiteInfo) -> bool) -> PeftFiles {
    let summary = testing::base_summary();
    let Artifact { manifest, mut weights } = testing::lora_artifact(Pooling::Cls);
    for info in summary.sites.iter().filter(|info| !keep_site(info)) {
        weights.retain(|name, _| !name.starts_with(&format!("{}.", info.site)));
    }
    let tensors = safetensors::write(&weights::to_peft(
        &weights,
        &manifest.method,
        &summary.sites,
        ModuleNaming::WithHead,
        HeadLayout::LINEAR,
    ))
    .unwrap();
    PeftFiles { config: config.to_string().into_bytes(), weights: tensors }
}

fn import_config(config: &Value, request: &ImportRequest) -> Result<Artifact> {
    peft_files(config, |_| true).parse(request, &testing::base_summary())
}

fn config_with(field: &str, value: Value) -> Value {
    let mut config = peft_config();
    config[field] = value;
    config
}

fn target_module_names(artifact: &Artifact) -> Vec<String> {
    match &artifact.manifest.method {
        adapter::Config::Lora(adapter::lora::Config { target_modules: TargetModules::Names(names), .. }) => {
            names.clone()
        }
        other => panic!("expected names, got {other:?}"),
    }
}

#[test]
fn peft_folder_uses_cls_pooling_and_no_fingerprint() {
    let artifact = import_config(&peft_config(), &ImportRequest::default()).unwrap();
    assert_eq!(artifact.weights, testing::lora_artifact(Pooling::Cls).weights);
    assert_eq!(testing::base_summary().pooling(&artifact.manifest.task), Pooling::Cls);
    assert_eq!(artifact.manifest.base, BaseModelId { name: "example/tiny-bert".to_string(), fingerprint: None });
    assert_eq!((artifact.manifest.max_length, artifact.manifest.temperature), (128, 1.0));
    assert_eq!(target_module_names(&artifact), ["query", "value"]);
}

#[test]
fn label_sources_in_order_of_precedence() {
    let with_labels = config_with("id2label", json!({"0": "x", "1": "y", "2": "z"}));
    let request_with_labels = |labels: &[&str]| ImportRequest {
        labels: Some(labels.iter().map(std::string::ToString::to_string).collect()),
        ..ImportRequest::default()
    };
    let labels = |config: &Value, request: &ImportRequest| import_config(config, request).unwrap().manifest.labels;
    assert_eq!(labels(&peft_config(), &ImportRequest::default()), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(labels(&with_labels, &ImportRequest::default()), ["x", "y", "z"]);
    assert_eq!(labels(&with_labels, &request_with_labels(&["a", "b", "c"])), ["a", "b", "c"]);
    assert_eq!(import_config(&with_labels, &request_with_labels(&["a", "b"])).unwrap_err().code(), "invalid_import");
    assert_eq!(
        import_config(&with_labels, &request_with_labels(&["a", "b", "b"])).unwrap_err().code(),
        "invalid_import"
    );
    let two_labels = config_with("id2label", json!({"0": "x", "1": "y"}));
    assert_eq!(import_config(&two_labels, &ImportRequest::default()).unwrap_err().code(), "unreadable_adapter");
}

#[test]
fn base_mismatch_is_rejected_unless_overridden() {
    for name in [json!("bert-base-uncased"), Value::Null] {
        let config = config_with("base_model_name_or_path", name);
        let error = import_config(&config, &ImportRequest::default()).unwrap_err();
        assert_eq!(error.code(), "other_base");
        assert!(error.to_string().contains("\"base\": \"example/tiny-bert\""), "{error}");
        let request_with_base = |base: &str| ImportRequest { base: Some(base.to_string()), ..ImportRequest::default() };
        import_config(&config, &request_with_base("example/tiny-bert")).unwrap();
        assert_eq!(import_config(&config, &request_with_base("something/else")).unwrap_err().code(), "other_base");
    }
}

#[test]
fn partial_layers_keep_full_paths() {
    let full_path = "bert.encoder.layer.1.attention.self.value";
    let config = config_with("target_modules", json!([full_path]));
    let files = peft_files(&config, |info| info.module_path == full_path);
    let artifact = files.parse(&ImportRequest::default(), &testing::base_summary()).unwrap();
    assert_eq!(target_module_names(&artifact), [full_path]);
}

#[test]
fn unsupported_task_types_are_rejected() {
    let error = import_config(&config_with("task_type", json!("CAUSAL_LM")), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
    for task_type in ["TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM"] {
        let error = import_config(&config_with("task_type", json!(task_type)), &ImportRequest::default()).unwrap_err();
        assert_eq!((error.code(), error.to_string().contains(task_type)), ("unsupported_adapter", true), "{error}");
    }
}

/// The files of an adapter without a head, or with a head of the first `head_rows` rows.
fn files_with_naming(config: &Value, naming: ModuleNaming, head_rows: usize) -> PeftFiles {
    let summary = testing::base_summary();
    let Artifact { manifest, mut weights } = testing::lora_artifact(Pooling::Cls);
    for name in ["head.weight", "head.bias"] {
        let tensor = weights.remove(name).unwrap();
        let width = tensor.values.len() / 3;
        let shape: Vec<usize> = std::iter::once(head_rows).chain(tensor.shape[1..].iter().copied()).collect();
        if head_rows > 0 {
            let rows = tensor.values[..width * head_rows].to_vec();
            weights.insert(name.to_string(), espalier_tensor::Tensor::new(shape, rows));
        }
    }
    let tensors = weights::to_peft(&weights, &manifest.method, &summary.sites, naming, HeadLayout::LINEAR);
    PeftFiles { config: config.to_string().into_bytes(), weights: safetensors::write(&tensors).unwrap() }
}

#[test]
fn task_is_inferred_from_the_tensors() {
    use ModuleNaming::{Bare, WithHead};
    let mean = Some(Pooling::Mean);
    // Task type, naming, rows of the head, pooling of the request, whether the base has a masked language model; then the task and
    // its pooling, or words of the refusal.
    type Case<'a> = (Value, ModuleNaming, usize, Option<Pooling>, bool, Result<(&'a str, Pooling), &'a str>);
    let feature_extraction = || json!("FEATURE_EXTRACTION");
    let cases: Vec<Case> = vec![
        (json!("SEQ_CLS"), WithHead, 3, None, false, Ok(("sequence_classification", Pooling::Cls))),
        (json!("SEQ_CLS"), WithHead, 1, None, false, Ok(("regression", Pooling::Cls))),
        (json!("SEQ_CLS"), WithHead, 0, None, false, Err("classifier.weight is missing")),
        (Value::Null, WithHead, 3, None, false, Ok(("sequence_classification", Pooling::Cls))),
        (Value::Null, WithHead, 1, None, false, Ok(("regression", Pooling::Cls))),
        (Value::Null, Bare, 3, None, false, Err("say in the request by \"pooling\"")),
        (Value::Null, Bare, 3, mean, false, Ok(("sequence_classification", Pooling::Mean))),
        (Value::Null, Bare, 0, None, false, Ok(("embedding", Pooling::Mean))),
        (Value::Null, Bare, 0, Some(Pooling::Cls), false, Ok(("embedding", Pooling::Cls))),
        (Value::Null, WithHead, 0, None, false, Err("modules_to_save=[\"classifier\"]")),
        (Value::Null, WithHead, 0, None, true, Ok(("masked_language_model", Pooling::Mean))),
        (Value::Null, WithHead, 0, mean, true, Ok(("embedding", Pooling::Mean))),
        (feature_extraction(), WithHead, 3, None, false, Ok(("sequence_classification", Pooling::Cls))),
        (feature_extraction(), Bare, 3, None, false, Err("say in the request by \"pooling\"")),
        (feature_extraction(), Bare, 3, mean, false, Ok(("sequence_classification", Pooling::Mean))),
        (feature_extraction(), Bare, 0, None, true, Ok(("embedding", Pooling::Mean))),
        (feature_extraction(), WithHead, 0, Some(Pooling::Last), false, Err("not one that this base offers")),
    ];
    for (task_type, naming, head_rows, pooling, has_mask, expected) in cases {
        let mut config = config_with("task_type", task_type);
        config["modules_to_save"] = Value::Null;
        let mut summary = testing::base_summary();
        summary.info.mask_token = has_mask.then(|| "[MASK]".to_string());
        let request = ImportRequest { pooling, ..ImportRequest::default() };
        let found = files_with_naming(&config, naming, head_rows).parse(&request, &summary);
        let case = format!("{} {naming:?} {head_rows} {pooling:?} {has_mask}", config["task_type"]);
        match (found, expected) {
            (Ok(artifact), Ok((task, pooling))) => {
                let found = &artifact.manifest.task;
                assert_eq!((found.type_name(), summary.pooling(found)), (task, pooling), "{case}");
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{case}: {error}"),
            (found, _) => panic!("{case}: {:?}", found.map(|artifact| artifact.manifest.task)),
        }
    }
}

#[test]
fn labels_and_pooling_are_refused_where_the_task_has_none() {
    let files = files_with_naming(&config_with("task_type", Value::Null), ModuleNaming::WithHead, 0);
    let mut summary = testing::base_summary();
    summary.info.mask_token = Some("[MASK]".to_string());
    let labels = ImportRequest { labels: Some(vec!["a".to_string()]), ..ImportRequest::default() };
    let error = files.parse(&labels, &summary).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("has no labels")), ("invalid_import", true), "{error}");
}

#[test]
fn max_length_above_base_limit_is_rejected() {
    let request = ImportRequest { max_length: Some(129), ..ImportRequest::default() };
    assert_eq!(import_config(&peft_config(), &request).unwrap_err().code(), "invalid_import");
}

#[test]
fn head_only_adapter_without_manifest_is_rejected() {
    let error = import_config(&json!({"peft_type": null}), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "unsupported_adapter");
}

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

fn parse_zip(zip: &Path, request: &ImportRequest) -> Result<UnverifiedAdapter> {
    let temporary = tempfile::tempdir().unwrap();
    let parsed = super::parse_upload(
        &ImportSource::Archive(zip.to_path_buf()),
        request,
        &testing::base_summary(),
        temporary.path(),
        &ImportLimits::default(),
    );
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
    parsed
}

#[test]
fn reads_files_saved_by_peft() {
    let zip = Path::new(FIXTURES).join("peft-tiny/adapter.zip");
    let UnverifiedAdapter::ThirdParty(artifact) = parse_zip(&zip, &ImportRequest::default()).unwrap() else {
        panic!("it holds no espalier.json")
    };
    assert_eq!(artifact.weights.len(), 10);
    assert_eq!(artifact.weights["layer.1.value.lora_B"].shape, [32, 4]);
    assert_eq!(artifact.weights["head.weight"].shape, [3, 32]);
    assert_eq!(target_module_names(&artifact), ["query", "value"]);
}

#[test]
fn damaged_fixtures_are_rejected_with_reason() {
    let folder = Path::new(FIXTURES).join("peft-damaged");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for (name, refusal) in expected.as_object().unwrap() {
        // An adapter without an effect is detected on a base only: see `tests/engine/artifact.rs`.
        let Err(error) = parse_zip(&folder.join(format!("{name}.zip")), &ImportRequest::default()) else {
            assert_eq!(refusal["code"], "adapter_without_effect", "{name} is accepted");
            continue;
        };
        assert_eq!(error.code(), refusal["code"], "{name}");
        let expected_text = refusal["words"].as_str().unwrap();
        assert!(error.to_string().contains(expected_text), "{name}: {error} should say {expected_text}");
        assert!(matches!(error, Error::Invalid(_)), "{name} is the caller's fault");
    }
}

fn export_zip(artifact: &Artifact, folder: &Path) -> (String, std::path::PathBuf) {
    let files = AdapterFiles::from_artifact(artifact, &testing::base_summary()).unwrap();
    let version = publish_files(&files, folder, &folder.join("temporary")).unwrap().version;
    let path = folder.join("export.zip");
    write_peft_zip(&folder.join(&version), &version, &json!({"job_id": 7}), File::create(&path).unwrap()).unwrap();
    (version, path)
}

#[test]
fn native_export_round_trips() {
    for artifact in [
        testing::lora_artifact(Pooling::Cls),
        testing::lora_artifact(Pooling::Mean),
        testing::head_artifact(Pooling::Mean),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (version, path) = export_zip(&artifact, folder.path());
        let UnverifiedAdapter::Native(imported) = parse_zip(&path, &ImportRequest::default()).unwrap() else {
            panic!("it holds an espalier.json")
        };
        assert_eq!(imported, artifact);
        assert_eq!(AdapterFiles::from_artifact(&imported, &testing::base_summary()).unwrap().version(), version);
    }
}

#[test]
fn native_export_for_another_base_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let mut artifact = testing::lora_artifact(Pooling::Cls);
    artifact.manifest.base.fingerprint = Some("sha256:other".to_string());
    let (_, path) = export_zip(&artifact, folder.path());
    assert_eq!(parse_zip(&path, &ImportRequest::default()).err().unwrap().code(), "other_base");
}

#[test]
fn request_cannot_override_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = export_zip(&testing::lora_artifact(Pooling::Cls), folder.path());
    let request = ImportRequest { max_length: Some(16), ..ImportRequest::default() };
    assert_eq!(parse_zip(&path, &request).err().unwrap().code(), "invalid_import");
}

//! Tensors that fit are converted; every other one is reported by name.

use super::*;
use crate::artifact::peft::Config;
use crate::artifact::testing;
use crate::error::Error;
use crate::model::Pooling;
use serde_json::json;

const QUERY_LORA_A_KEY: &str = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";

fn lora_config(fields: serde_json::Value) -> Config {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]});
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    Config::parse(config.to_string().as_bytes()).unwrap()
}

fn peft_tensors(naming: ModuleNaming) -> TensorMap {
    let artifact = testing::lora_artifact(Pooling::Cls);
    to_peft(&artifact.weights, &artifact.manifest.method, &testing::base_summary().sites, naming, HeadLayout::LINEAR)
}

fn from_peft_config(tensors: TensorMap, fields: serde_json::Value) -> Result<TensorMap> {
    let sites = testing::base_summary().sites;
    let method = lora_config(fields).method.unwrap().to_config(&sites, detect_naming(&tensors, &sites)).unwrap();
    from_peft(tensors, &method, &sites, Some(HeadLayout::LINEAR), 32)
}

fn error_text(result: Result<TensorMap, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "adapter_tensors");
    error.to_string()
}

#[test]
fn both_namings_are_read() {
    for naming in [ModuleNaming::WithHead, ModuleNaming::Bare] {
        assert_eq!(
            from_peft_config(peft_tensors(naming), json!({})).unwrap(),
            testing::lora_artifact(Pooling::Cls).weights
        );
    }
}

#[test]
fn reads_head_with_prompt_learning_prefix() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    for part in ["weight", "bias"] {
        let tensor = tensors.remove(&format!("base_model.model.classifier.{part}")).unwrap();
        tensors.insert(format!("base_model.classifier.{part}"), tensor);
    }
    assert_eq!(from_peft_config(tensors, json!({})).unwrap(), testing::lora_artifact(Pooling::Cls).weights);
}

#[test]
fn missing_tensors_are_reported() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    tensors.remove(QUERY_LORA_A_KEY);
    tensors.remove("base_model.model.classifier.bias");
    let detail = error_text(from_peft_config(tensors, json!({})));
    assert!(detail.contains(&format!("{QUERY_LORA_A_KEY} is missing")), "{detail}");
    assert!(detail.contains("base_model.model.classifier.bias is missing"), "{detail}");
}

#[test]
fn extra_tensors_are_reported_with_reason() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    let untargeted_key = "base_model.model.bert.encoder.layer.0.attention.self.key.lora_A.weight";
    let unknown_layer_key = "base_model.model.bert.encoder.layer.7.attention.self.query.lora_A.weight";
    let magnitude = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector";
    for name in [untargeted_key, unknown_layer_key, magnitude] {
        tensors.insert(name.to_string(), testing::random_tensor(name, [2, 32]));
    }
    let detail = error_text(from_peft_config(tensors, json!({})));
    assert!(
        detail.contains(&format!("{untargeted_key} belongs to a module that target_modules does not name")),
        "{detail}"
    );
    assert!(
        detail.contains(&format!("{unknown_layer_key} belongs to a module that this base does not have")),
        "{detail}"
    );
    assert!(detail.contains(&format!("{magnitude} is not a tensor of the method lora")), "{detail}");
}

#[test]
fn shape_mismatch_reports_both_shapes() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    tensors.insert(QUERY_LORA_A_KEY.to_string(), testing::random_tensor("narrow", [2, 31]));
    let detail = error_text(from_peft_config(tensors, json!({})));
    assert!(detail.contains(&format!("{QUERY_LORA_A_KEY} has the shape [2, 31], expected [2, 32]")), "{detail}");
    // A rank that is not the config's is a wrong shape of every tensor.
    assert!(
        error_text(from_peft_config(peft_tensors(ModuleNaming::WithHead), json!({"r": 3})))
            .contains("expected [3, 32]")
    );
}

#[test]
fn head_bias_must_match_head_weight() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    tensors.insert("base_model.model.classifier.bias".to_string(), Tensor::zeros([4]));
    assert!(error_text(from_peft_config(tensors, json!({}))).contains("has the shape [4], expected [3]"));
}

#[test]
fn targeted_module_without_tensors_is_missing() {
    let detail = error_text(from_peft_config(
        peft_tensors(ModuleNaming::WithHead),
        json!({"target_modules": ["query", "value", "key"]}),
    ));
    assert!(detail.contains("layer.1.attention.self.key.lora_B.weight is missing"), "{detail}");
}

#[test]
fn duplicate_tensor_under_both_prefixes_is_rejected() {
    let mut tensors = peft_tensors(ModuleNaming::WithHead);
    tensors.insert("base_model.classifier.bias".to_string(), Tensor::zeros([3]));
    assert!(error_text(from_peft_config(tensors, json!({}))).contains("is there twice"));
}

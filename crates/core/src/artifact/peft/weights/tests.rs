//! Strictness of the tensors: what fits comes through, everything else is named.

use super::*;
use crate::artifact::peft::Config;
use crate::artifact::testing;
use crate::error::Error;
use crate::model::Pooling;
use serde_json::json;

const QUERY: &str = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";

fn config(fields: serde_json::Value) -> Config {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]});
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    Config::read(config.to_string().as_bytes()).unwrap()
}

fn file(form: Form) -> Tensors {
    let artifact = testing::lora(Pooling::Cls);
    to_peft(&artifact.weights, &artifact.card.method, &testing::outline().sites, form, Head::LINEAR)
}

fn read(tensors: Tensors, fields: serde_json::Value) -> Result<Tensors> {
    let sites = testing::outline().sites;
    let method = config(fields).method.unwrap().on(&sites, form(&tensors, &sites)).unwrap();
    from_peft(tensors, &method, &sites, Some(Head::LINEAR), 32)
}

fn refusal(result: Result<Tensors, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "adapter_tensors");
    error.to_string()
}

#[test]
fn both_forms_come_back_under_our_names() {
    for form in [Form::Headed, Form::Bare] {
        assert_eq!(read(file(form), json!({})).unwrap(), testing::lora(Pooling::Cls).weights);
    }
}

#[test]
fn the_head_of_a_prompt_learning_file_is_found() {
    let mut tensors = file(Form::Headed);
    for part in ["weight", "bias"] {
        let tensor = tensors.remove(&format!("base_model.model.classifier.{part}")).unwrap();
        tensors.insert(format!("base_model.classifier.{part}"), tensor);
    }
    assert_eq!(read(tensors, json!({})).unwrap(), testing::lora(Pooling::Cls).weights);
}

#[test]
fn a_missing_tensor_is_named() {
    let mut tensors = file(Form::Headed);
    tensors.remove(QUERY);
    tensors.remove("base_model.model.classifier.bias");
    let detail = refusal(read(tensors, json!({})));
    assert!(detail.contains(&format!("{QUERY} is missing")), "{detail}");
    assert!(detail.contains("base_model.model.classifier.bias is missing"), "{detail}");
}

#[test]
fn an_extra_tensor_is_named_with_what_it_belongs_to() {
    let mut tensors = file(Form::Headed);
    let key = "base_model.model.bert.encoder.layer.0.attention.self.key.lora_A.weight";
    let gone = "base_model.model.bert.encoder.layer.7.attention.self.query.lora_A.weight";
    let magnitude = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector";
    for name in [key, gone, magnitude] {
        tensors.insert(name.to_string(), testing::tensor(name, [2, 32]));
    }
    let detail = refusal(read(tensors, json!({})));
    assert!(detail.contains(&format!("{key} belongs to a module that target_modules does not name")), "{detail}");
    assert!(detail.contains(&format!("{gone} belongs to a module that this base does not have")), "{detail}");
    assert!(detail.contains(&format!("{magnitude} is not a tensor of the method lora")), "{detail}");
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let mut tensors = file(Form::Headed);
    tensors.insert(QUERY.to_string(), testing::tensor("narrow", [2, 31]));
    let detail = refusal(read(tensors, json!({})));
    assert!(detail.contains(&format!("{QUERY} has the shape [2, 31], expected [2, 32]")), "{detail}");
    // A rank that is not the config's is a wrong shape of every tensor.
    assert!(refusal(read(file(Form::Headed), json!({"r": 3}))).contains("expected [3, 32]"));
}

#[test]
fn a_head_whose_bias_disagrees_with_its_weight_is_refused() {
    let mut tensors = file(Form::Headed);
    tensors.insert("base_model.model.classifier.bias".to_string(), Tensor::zeros([4]));
    assert!(refusal(read(tensors, json!({}))).contains("has the shape [4], expected [3]"));
}

#[test]
fn a_module_that_the_config_names_but_the_file_lacks_is_missing() {
    let detail = refusal(read(file(Form::Headed), json!({"target_modules": ["query", "value", "key"]})));
    assert!(detail.contains("layer.1.attention.self.key.lora_B.weight is missing"), "{detail}");
}

#[test]
fn a_tensor_that_is_there_under_both_forms_is_refused() {
    let mut tensors = file(Form::Headed);
    tensors.insert("base_model.classifier.bias".to_string(), Tensor::zeros([3]));
    assert!(refusal(read(tensors, json!({}))).contains("is there twice"));
}

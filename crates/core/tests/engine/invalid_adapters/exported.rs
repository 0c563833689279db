//! Folders exported by this software: a changed `espalier.json`, and files that contradict each other.

use crate::invalid_adapters::fixtures::Source::Native;
use crate::invalid_adapters::fixtures::{Case, Files, case, config, remove, set, tensors};
use espalier_tensor::Tensor;
use serde_json::{Value, json};

const UNREADABLE: &str = "unreadable_adapter";

fn manifest(files: &mut Files, path: &str, value: Value) {
    set(files, "espalier.json", path, value);
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        case("a manifest of a later format", Native, |f| manifest(f, "format", json!(2)), UNREADABLE, "espalier.json: its format is 2"),
        case("a manifest with an unknown field", Native, |f| manifest(f, "x_new", json!(1)), UNREADABLE, "x_new"),
        case("a manifest without a task", Native, |f| manifest(f, "task", Value::Null), UNREADABLE, "espalier.json"),
        case("a manifest of an unknown task", Native, |f| manifest(f, "task.type", json!("translation")), UNREADABLE, "translation"),
        case("a manifest of an unknown method", Native, |f| manifest(f, "method.type", json!("loha")), UNREADABLE, "loha"),
        case("a manifest with too few labels", Native, |f| manifest(f, "labels", json!(["a", "b"])), UNREADABLE, "there are 2 labels, but the head has 3 rows"),
        case("a manifest with a label twice", Native, |f| manifest(f, "labels", json!(["a", "b", "a"])), UNREADABLE, "the label \"a\" is there twice"),
        case("a manifest with an empty label", Native, |f| manifest(f, "labels", json!(["a", "b", " "])), UNREADABLE, "a label is empty"),
        case("a manifest with a temperature of 0", Native, |f| manifest(f, "temperature", json!(0)), UNREADABLE, "its temperature is 0"),
        case("a manifest with a max_length above the context window", Native, |f| manifest(f, "max_length", json!(4096)), UNREADABLE, "its max_length is 4096, expected 4 to 128"),
        case("a manifest of another rank", Native, |f| manifest(f, "method.rank", json!(2)), UNREADABLE, "r differs"),
        case("a config of another alpha", Native, |f| config(f, "lora_alpha", json!(64)), UNREADABLE, "lora_alpha differs"),
        case("a config of fewer target modules", Native, |f| config(f, "target_modules", json!(["query"])), UNREADABLE, "adapter_config.json and espalier.json contradict each other: target_modules differs"),
        case("a config of more target modules", Native, |f| config(f, "target_modules", json!(["query", "value", "key"])), UNREADABLE, "target_modules differs"),
        case("a config of one layer", Native, |f| config(f, "layers_to_transform", json!([1])), UNREADABLE, "target_modules differs"),
        case("a config of no target modules", Native, |f| config(f, "target_modules", json!(["nothing"])), "unsupported_adapter", "target_modules means no module"),
        case("a manifest of other target modules", Native, |f| manifest(f, "method.target_modules", json!(["query", "key"])), UNREADABLE, "target_modules differs"),
        case("a config of another dropout", Native, |f| config(f, "lora_dropout", json!(0.5)), UNREADABLE, "lora_dropout differs"),
        case("a config with a rank pattern", Native, |f| config(f, "rank_pattern", json!({"query": 2})), UNREADABLE, "rank_pattern differs"),
        case("a config with an alpha pattern", Native, |f| config(f, "alpha_pattern", json!({"query": 2})), UNREADABLE, "alpha_pattern differs"),
        case("a config of other labels", Native, |f| config(f, "id2label", json!({"0": "other", "1": "b", "2": "c"})), UNREADABLE, "id2label differs"),
        case("a config of another base's name", Native, |f| config(f, "base_model_name_or_path", json!("example/other")), UNREADABLE, "base_model_name_or_path differs"),
        case("a manifest of another method", Native, |f| manifest(f, "method", json!({"type": "bias"})), UNREADABLE, "peft_type differs"),
        case("a manifest of another base", Native, |f| manifest(f, "base.fingerprint", json!("sha256:00")), "other_base", "sha256:00"),
        case("a manifest of a regression with three outputs", Native, |f| manifest(f, "task", json!({"type": "regression", "pooling": "cls"})), UNREADABLE, "an adapter for regression has 1 output and no labels"),
        case("a manifest with a head layer that has no tensors", Native, |f| manifest(f, "task.head", json!({"type": "dense", "activation": "tanh"})), "adapter_tensors", "classifier.dense.weight is missing"),
        case("a manifest without a probe", Native, |f| manifest(f, "probe.inputs", json!([])), UNREADABLE, "its probe needs at least one input"),
        case("a probe of other labels", Native, |f| manifest(f, "probe.outputs.0", json!([0.5, 0.5])), UNREADABLE, "its probe needs"),
        case("a probe with other outputs", Native, |f| manifest(f, "probe.outputs.0.0", json!(99.5)), "probe_failed", "probe"),
        case("changed weights", Native, |f| tensors(f, "lora_B", |name, mut tensor: Tensor| { tensor.values[0] += 1.0; vec![(name.to_string(), tensor)] }), "probe_failed", "probe"),
        case("an exported folder without a tensor", Native, |f| remove(f, "classifier.bias"), "adapter_tensors", "classifier.bias is missing"),
        case("an exported folder without its tensors", Native, |f| drop(f.remove("adapter_model.safetensors")), UNREADABLE, "it holds no adapter_model.safetensors"),
    ]
}

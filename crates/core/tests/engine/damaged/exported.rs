//! Our own folders: `espalier.json`, and the three files against each other.

use crate::damaged::fixtures::Source::Ours;
use crate::damaged::fixtures::{Case, Files, case, config, remove, set, tensors};
use espalier_tensor::Tensor;
use serde_json::{Value, json};

const UNREADABLE: &str = "unreadable_adapter";

fn card(files: &mut Files, path: &str, value: Value) {
    set(files, "espalier.json", path, value);
}

#[rustfmt::skip]
pub fn rows() -> Vec<Case> {
    vec![
        case("a card of a later format", Ours, |f| card(f, "format", json!(2)), UNREADABLE, "espalier.json: its format is 2"),
        case("a card with an unknown field", Ours, |f| card(f, "x_new", json!(1)), UNREADABLE, "x_new"),
        case("a card without a task", Ours, |f| card(f, "task", Value::Null), UNREADABLE, "espalier.json"),
        case("a card of an unknown task", Ours, |f| card(f, "task.type", json!("translation")), UNREADABLE, "translation"),
        case("a card of an unknown method", Ours, |f| card(f, "method.type", json!("loha")), UNREADABLE, "loha"),
        case("a card whose labels are too few", Ours, |f| card(f, "labels", json!(["a", "b"])), UNREADABLE, "there are 2 labels, but the head has 3 rows"),
        case("a card with a label twice", Ours, |f| card(f, "labels", json!(["a", "b", "a"])), UNREADABLE, "the label \"a\" is there twice"),
        case("a card with an empty label", Ours, |f| card(f, "labels", json!(["a", "b", " "])), UNREADABLE, "a label is empty"),
        case("a card without warmth", Ours, |f| card(f, "temperature", json!(0)), UNREADABLE, "its temperature is 0"),
        case("a card whose inputs are too long", Ours, |f| card(f, "max_length", json!(4096)), UNREADABLE, "its max_length is 4096, expected 4 to 128"),
        case("a card of another rank", Ours, |f| card(f, "method.rank", json!(2)), UNREADABLE, "r differs"),
        case("a config of another alpha", Ours, |f| config(f, "lora_alpha", json!(64)), UNREADABLE, "lora_alpha differs"),
        case("a card of another method", Ours, |f| card(f, "method", json!({"type": "bias"})), UNREADABLE, "peft_type differs"),
        case("a card of another base", Ours, |f| card(f, "base.fingerprint", json!("sha256:00")), "other_base", "sha256:00"),
        case("a card of a value with three outputs", Ours, |f| card(f, "task", json!({"type": "regression", "pooling": "cls"})), UNREADABLE, "an adapter for regression has 1 output and no labels"),
        case("a card whose head has a layer that is not there", Ours, |f| card(f, "task.head", json!({"type": "dense", "activation": "tanh"})), "adapter_tensors", "classifier.dense.weight is missing"),
        case("a card without a probe", Ours, |f| card(f, "probe.inputs", json!([])), UNREADABLE, "its probe needs at least one input"),
        case("a probe of other labels", Ours, |f| card(f, "probe.outputs.0", json!([0.5, 0.5])), UNREADABLE, "its probe needs"),
        case("a probe that the adapter does not answer so", Ours, |f| card(f, "probe.outputs.0.0", json!(99.5)), "probe_failed", "probe"),
        case("numbers that were changed", Ours, |f| tensors(f, "lora_B", |name, mut tensor: Tensor| { tensor.values[0] += 1.0; vec![(name.to_string(), tensor)] }), "probe_failed", "probe"),
        case("our folder without a tensor", Ours, |f| remove(f, "classifier.bias"), "adapter_tensors", "classifier.bias is missing"),
        case("our folder without its tensors", Ours, |f| drop(f.remove("adapter_model.safetensors")), UNREADABLE, "it holds no adapter_model.safetensors"),
    ]
}

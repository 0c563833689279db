//! Folders written by AdapterHub.

use crate::invalid_adapters::fixtures::Source::AdapterHub;
use crate::invalid_adapters::fixtures::{Case, Files, Source, add, case, remove, set, shorten, tensors};
use espalier_tensor::Tensor;
use serde_json::{Value, json};

const HOULSBY: Source = AdapterHub("houlsby");
const UPPER: Source = AdapterHub("upper");
const UNREADABLE: &str = "unreadable_adapter";
const UNSUPPORTED: &str = "unsupported_adapter";
const TENSORS: &str = "adapter_tensors";
const OTHER: &str = "other_base";

fn config(files: &mut Files, path: &str, value: Value) {
    set(files, "adapter_config.json", path, value);
}

fn head(files: &mut Files, path: &str, value: Value) {
    set(files, "head_config.json", path, value);
}

fn rename(files: &mut Files, from: &str, to: &str) {
    let bytes = files.remove(from).unwrap();
    files.insert(to.to_string(), bytes);
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        case("a bottleneck without its down projection", HOULSBY, |f| remove(f, "layer.0.output.adapters.houlsby.adapter_down.0.weight"), TENSORS, "layer.0.output.adapters.houlsby.adapter_down.0.weight is missing"),
        case("a bottleneck whose up projection is too short", HOULSBY, |f| shorten(f, "layer.1.attention.output.adapters.houlsby.adapter_up.bias"), TENSORS, "adapter_up.bias has the shape [31], expected [32]"),
        case("a bottleneck of another width", HOULSBY, |f| config(f, "config.reduction_factor", json!(8)), TENSORS, "adapter_down.0.bias has the shape [8], expected [4]"),
        case("a bottleneck under another name", HOULSBY, |f| config(f, "name", json!("other")), TENSORS, "adapters.other.adapter_down.0.weight is missing"),
        case("tensors of a second adapter", HOULSBY, |f| add(f, "layer.0.output.adapters.houlsby.adapter_up.bias", |name| name.replace("houlsby", "second")), TENSORS, "adapters.second.adapter_up.bias is not a tensor of this adapter"),
        case("bottlenecks in other layers than the tensors", UPPER, |f| config(f, "config.leave_out", json!([1])), TENSORS, "layer.0.output.adapters.upper.adapter_down.0.weight is missing"),
        case("no layer with an adapter", UPPER, |f| config(f, "config.leave_out", json!([0, 1])), UNSUPPORTED, "config.leave_out leaves no layer"),
        case("Houlsby without the adapter of attention", HOULSBY, |f| config(f, "config.mh_adapter", json!(false)), UNSUPPORTED, "config.mh_adapter false"),
        case("gating", HOULSBY, |f| config(f, "config.use_gating", json!(true)), UNSUPPORTED, "config.use_gating is true, expected false"),
        case("a compacter", HOULSBY, |f| config(f, "config.phm_layer", json!(true)), UNSUPPORTED, "config.phm_layer is true"),
        case("a learned scaling", HOULSBY, |f| config(f, "config.scaling", json!("learned")), UNSUPPORTED, "config.scaling is \"learned\""),
        case("an unknown setting of AdapterHub", HOULSBY, |f| config(f, "config.x_new", json!(1)), UNSUPPORTED, "config.x_new is not known here"),
        case("another method of AdapterHub", HOULSBY, |f| config(f, "config.architecture", json!("prefix_tuning")), UNSUPPORTED, "config.architecture is \"prefix_tuning\""),
        case("settings that are a string", HOULSBY, |f| config(f, "config", json!("houlsby")), UNREADABLE, "config must be the object of all settings"),
        case("no name in the configuration", HOULSBY, |f| config(f, "name", Value::Null), UNREADABLE, "name must be a text"),
        case("an adapter for a base with a larger hidden size", HOULSBY, |f| config(f, "hidden_size", json!(768)), OTHER, "hidden_size is 768, this server's base has 32"),
        case("an adapter for another architecture", HOULSBY, |f| config(f, "model_type", json!("roberta")), OTHER, "model_type is \"roberta\""),
        case("an adapter for another model", HOULSBY, |f| config(f, "model_name", json!("bert-base-uncased")), OTHER, "adapter_config.json names \"bert-base-uncased\""),
        case("an adapter without a model name", HOULSBY, |f| config(f, "model_name", Value::Null), OTHER, "names no base model (model_name)"),
        case("AdapterHub's adapter without a head", HOULSBY, |f| drop(f.remove("model_head.safetensors")), UNSUPPORTED, "the adapter holds no model_head.safetensors"),
        case("AdapterHub's head without its config", HOULSBY, |f| drop(f.remove("head_config.json")), UNSUPPORTED, "the adapter holds no head_config.json"),
        case("AdapterHub's head without a tensor", HOULSBY, |f| remove(f, "heads.houlsby.4.bias"), TENSORS, "heads.houlsby.4.bias is missing"),
        case("AdapterHub's head with another layer", HOULSBY, |f| head(f, "config.layers", json!(1)), TENSORS, "heads.houlsby.4.weight is not a tensor of this adapter"),
        case("AdapterHub's head with other labels", HOULSBY, |f| head(f, "config.num_labels", json!(4)), UNREADABLE, "config.label2id must name the numbers 0 to 3"),
        case("AdapterHub's head of another task", HOULSBY, |f| head(f, "config.head_type", json!("tagging")), UNSUPPORTED, "config.head_type is \"tagging\""),
        case("AdapterHub's head with an unknown activation", HOULSBY, |f| head(f, "config.activation_function", json!("mish")), UNSUPPORTED, "config.activation_function is \"mish\""),
        case("AdapterHub's tensors as a pickle", HOULSBY, |f| rename(f, "adapter.safetensors", "pytorch_adapter.bin"), UNSUPPORTED, "pytorch_adapter.bin is a pickle"),
        case("AdapterHub's head as a pickle", HOULSBY, |f| rename(f, "model_head.safetensors", "pytorch_model_head.bin"), UNSUPPORTED, "pytorch_model_head.bin is a pickle"),
        case("a bottleneck without effect", UPPER, |f| tensors(f, "adapter_up", |name, tensor| vec![(name.to_string(), Tensor::zeros(tensor.shape.clone()))]), "adapter_without_effect", "changes nothing"),
    ]
}

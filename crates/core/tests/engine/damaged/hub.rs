//! AdapterHub's folders.

use crate::damaged::fixtures::Source::Hub;
use crate::damaged::fixtures::{Case, Files, Source, add, case, remove, set, shorten, tensors};
use espalier_tensor::Tensor;
use serde_json::{Value, json};

const ONE: Source = Hub("houlsby");
const UPPER: Source = Hub("upper");
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
pub fn rows() -> Vec<Case> {
    vec![
        case("a bottleneck without its way down", ONE, |f| remove(f, "layer.0.output.adapters.houlsby.adapter_down.0.weight"), TENSORS, "layer.0.output.adapters.houlsby.adapter_down.0.weight is missing"),
        case("a bottleneck whose way up is short", ONE, |f| shorten(f, "layer.1.attention.output.adapters.houlsby.adapter_up.bias"), TENSORS, "adapter_up.bias has the shape [31], expected [32]"),
        case("a bottleneck of another width", ONE, |f| config(f, "config.reduction_factor", json!(8)), TENSORS, "adapter_down.0.bias has the shape [8], expected [4]"),
        case("a bottleneck under another name", ONE, |f| config(f, "name", json!("other")), TENSORS, "adapters.other.adapter_down.0.weight is missing"),
        case("the bottleneck of a second adapter", ONE, |f| add(f, "layer.0.output.adapters.houlsby.adapter_up.bias", |name| name.replace("houlsby", "second")), TENSORS, "adapters.second.adapter_up.bias is not a tensor of this adapter"),
        case("bottlenecks in a layer that is left out", UPPER, |f| config(f, "config.leave_out", json!([1])), TENSORS, "layer.0.output.adapters.upper.adapter_down.0.weight is missing"),
        case("no layer left", UPPER, |f| config(f, "config.leave_out", json!([0, 1])), UNSUPPORTED, "config.leave_out leaves no layer"),
        case("half of Houlsby", ONE, |f| config(f, "config.mh_adapter", json!(false)), UNSUPPORTED, "config.mh_adapter false"),
        case("a gate", ONE, |f| config(f, "config.use_gating", json!(true)), UNSUPPORTED, "config.use_gating is true, expected false"),
        case("a compacter", ONE, |f| config(f, "config.phm_layer", json!(true)), UNSUPPORTED, "config.phm_layer is true"),
        case("a learned scaling", ONE, |f| config(f, "config.scaling", json!("learned")), UNSUPPORTED, "config.scaling is \"learned\""),
        case("an unknown setting of AdapterHub", ONE, |f| config(f, "config.x_new", json!(1)), UNSUPPORTED, "config.x_new is not known here"),
        case("another method of AdapterHub", ONE, |f| config(f, "config.architecture", json!("prefix_tuning")), UNSUPPORTED, "config.architecture is \"prefix_tuning\""),
        case("settings that are one word", ONE, |f| config(f, "config", json!("houlsby")), UNREADABLE, "config must be the object of all settings"),
        case("no name inside", ONE, |f| config(f, "name", Value::Null), UNREADABLE, "name must be a text"),
        case("an adapter for a wider base", ONE, |f| config(f, "hidden_size", json!(768)), OTHER, "hidden_size is 768, this server's base has 32"),
        case("an adapter for another architecture", ONE, |f| config(f, "model_type", json!("roberta")), OTHER, "model_type is \"roberta\""),
        case("an adapter for another model", ONE, |f| config(f, "model_name", json!("bert-base-uncased")), OTHER, "adapter_config.json names \"bert-base-uncased\""),
        case("an adapter for no model", ONE, |f| config(f, "model_name", Value::Null), OTHER, "names no base model (model_name)"),
        case("AdapterHub's adapter without a head", ONE, |f| drop(f.remove("model_head.safetensors")), UNSUPPORTED, "the zip holds no model_head.safetensors"),
        case("AdapterHub's head without its config", ONE, |f| drop(f.remove("head_config.json")), UNSUPPORTED, "the zip holds no head_config.json"),
        case("AdapterHub's head without a tensor", ONE, |f| remove(f, "heads.houlsby.4.bias"), TENSORS, "heads.houlsby.4.bias is missing"),
        case("AdapterHub's head with another layer", ONE, |f| head(f, "config.layers", json!(1)), TENSORS, "heads.houlsby.4.weight is not a tensor of this adapter"),
        case("AdapterHub's head with other labels", ONE, |f| head(f, "config.num_labels", json!(4)), UNREADABLE, "config.label2id must name the numbers 0 to 3"),
        case("AdapterHub's head of another task", ONE, |f| head(f, "config.head_type", json!("tagging")), UNSUPPORTED, "config.head_type is \"tagging\""),
        case("AdapterHub's head with an unknown function", ONE, |f| head(f, "config.activation_function", json!("mish")), UNSUPPORTED, "config.activation_function is \"mish\""),
        case("AdapterHub's tensors as a pickle", ONE, |f| rename(f, "adapter.safetensors", "pytorch_adapter.bin"), UNSUPPORTED, "pytorch_adapter.bin is a pickle"),
        case("AdapterHub's head as a pickle", ONE, |f| rename(f, "model_head.safetensors", "pytorch_model_head.bin"), UNSUPPORTED, "pytorch_model_head.bin is a pickle"),
        case("a bottleneck that does nothing", UPPER, |f| tensors(f, "adapter_up", |name, tensor| vec![(name.to_string(), Tensor::zeros(tensor.shape.clone()))]), "adapter_without_effect", "changes nothing"),
    ]
}

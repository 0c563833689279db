//! Files with damaged bytes.

use crate::invalid_adapters::fixtures::{Case, Files, Source, case};
use serde_json::{Value, json};

const LORA: Source = Source::Peft("lora-patterns");
const FILE: &str = "adapter_model.safetensors";
const UNREADABLE: &str = "unreadable_adapter";
const TENSORS: &str = "adapter_tensors";

/// Changes the header of the tensors' file; the data after it stays.
fn header(files: &mut Files, change: impl Fn(&mut Value)) {
    let bytes = &files[FILE];
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
    files.insert(FILE.to_string(), file);
}

const BIAS: &str = "base_model.model.classifier.bias";

/// Changes a field of the head's bias in the header.
fn entry(files: &mut Files, field: &str, change: impl Fn(&Value) -> Value) {
    header(files, |header| header[BIAS][field] = change(&header[BIAS][field]));
}

/// Sets the first value of the head's bias.
fn number(files: &mut Files, number: f32) {
    let bytes = files[FILE].clone();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let start = 8 + length + header[BIAS]["data_offsets"][0].as_u64().unwrap() as usize;
    files.get_mut(FILE).unwrap()[start..start + 4].copy_from_slice(&number.to_le_bytes());
}

fn bytes(files: &mut Files, change: impl Fn(&[u8]) -> Vec<u8>) {
    let changed = change(&files[FILE]);
    files.insert(FILE.to_string(), changed);
}

fn text(files: &mut Files, name: &str, text: &str) {
    files.insert(name.to_string(), text.as_bytes().to_vec());
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        case("an empty file of tensors", LORA, |f| bytes(f, |_| Vec::new()), UNREADABLE, "adapter_model.safetensors is damaged: it is shorter than eight bytes"),
        case("a truncated header", LORA, |f| bytes(f, |b| b[..100].to_vec()), UNREADABLE, "it ends inside its header"),
        case("truncated data", LORA, |f| bytes(f, |b| b[..b.len() - 9].to_vec()), UNREADABLE, "was the upload cut off?"),
        case("a header with a wrong length", LORA, |f| bytes(f, |b| [&u64::MAX.to_le_bytes()[..], &b[8..]].concat()), UNREADABLE, "its header claims"),
        case("a header that is not JSON", LORA, |f| bytes(f, |b| [&b[..8], b"[", &b[9..]].concat()), UNREADABLE, "its header is not valid"),
        case("bytes after the last tensor", LORA, |f| bytes(f, |b| [b, b"four"].concat()), UNREADABLE, "4 bytes at its end belong to no tensor"),
        case("a tensor beyond the end", LORA, |f| entry(f, "data_offsets", |_| json!([0, 99_999_999])), UNREADABLE, "tensor base_model.model.classifier.bias claims the bytes 0 to 99999999"),
        case("a tensor that ends before its start", LORA, |f| entry(f, "data_offsets", |o| json!([o[1], o[0]])), UNREADABLE, "tensor base_model.model.classifier.bias claims the bytes"),
        case("a shape larger than its data", LORA, |f| entry(f, "shape", |_| json!([4])), UNREADABLE, "tensor base_model.model.classifier.bias has the shape [4] of F32 but 12 bytes"),
        case("a shape that overflows", LORA, |f| entry(f, "shape", |_| json!([u64::MAX, 2])), UNREADABLE, "tensor base_model.model.classifier.bias has the shape"),
        case("overlapping tensors", LORA, |f| header(f, |h| h[BIAS]["data_offsets"] = json!([4, 16])), UNREADABLE, "starts at byte"),
        case("an unknown field in the header", LORA, |f| header(f, |h| h[BIAS]["strides"] = json!([1])), UNREADABLE, "strides"),
        case("integers", LORA, |f| entry(f, "dtype", |_| json!("I32")), TENSORS, "base_model.model.classifier.bias is stored as I32, expected F32, F16 or BF16"),
        case("eight-bit numbers", LORA, |f| entry(f, "dtype", |_| json!("F8_E4M3")), TENSORS, "base_model.model.classifier.bias is stored as F8_E4M3"),
        case("a NaN", LORA, |f| number(f, f32::NAN), TENSORS, "base_model.model.classifier.bias holds values that are not finite"),
        case("an infinity", LORA, |f| number(f, f32::NEG_INFINITY), TENSORS, "base_model.model.classifier.bias holds values that are not finite"),
        case("a configuration that is not JSON", LORA, |f| text(f, "adapter_config.json", "r: 4"), UNREADABLE, "adapter_config.json: it is not a JSON object"),
        case("a configuration that is a list", LORA, |f| text(f, "adapter_config.json", "[]"), UNREADABLE, "adapter_config.json: it is not a JSON object"),
        case("a configuration without a method", LORA, |f| text(f, "adapter_config.json", "{}"), UNREADABLE, "adapter_config.json: peft_type is missing"),
        case("no configuration", LORA, |f| drop(f.remove("adapter_config.json")), UNREADABLE, "it holds no adapter_config.json"),
        case("no file of tensors", LORA, |f| drop(f.remove(FILE)), UNREADABLE, "it holds no adapter_model.safetensors"),
        case("a pickle instead of the tensors", LORA, |f| { let b = f.remove(FILE).unwrap(); f.insert("adapter_model.bin".to_string(), b); }, "unsupported_adapter", "adapter_model.bin is a pickle"),
        case("a path outside of the zip", LORA, |f| text(f, "../adapter_config.json", "{}"), UNREADABLE, "\"../adapter_config.json\" points outside of the zip"),
        case("two adapters", LORA, |f| text(f, "other/adapter_config.json", "{}"), UNREADABLE, "it holds several adapters"),
    ]
}

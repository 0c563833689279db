//! Writing is deterministic, reading is strict, and no input panics.

use super::*;
use proptest::prelude::*;

fn sample_tensors() -> TensorMap {
    TensorMap::from([
        ("head.weight".to_string(), Tensor::new([2, 3], vec![0.5, -1.5, 2.25, 1e-30, -0.0, 3.0])),
        ("head.bias".to_string(), Tensor::new([2], vec![0.25, f32::MIN_POSITIVE])),
    ])
}

/// A file with any header, for entries that the writer never makes.
fn safetensors_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn read_error(bytes: &[u8]) -> (&'static str, String) {
    let error = read(bytes).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn tensors_round_trip_bit_exactly() {
    let bytes = write(&sample_tensors()).unwrap();
    let read_tensors = read(&bytes).unwrap();
    assert_eq!(read_tensors.keys().collect::<Vec<_>>(), ["head.bias", "head.weight"]);
    for (name, tensor) in &sample_tensors() {
        assert_eq!(read_tensors[name].shape, tensor.shape);
        assert_eq!(read_tensors[name].to_le_bytes(), tensor.to_le_bytes());
    }
}

#[test]
fn writing_is_deterministic_with_pt_metadata() {
    let bytes = write(&sample_tensors()).unwrap();
    assert_eq!(bytes, write(&sample_tensors()).unwrap());
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#"{"__metadata__":{"format":"pt"},"head.bias":{"dtype":"F32","shape":[2]"#), "{text}");
}

#[test]
fn safetensors_crate_reads_our_files() {
    let bytes = write(&sample_tensors()).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("head.weight").unwrap().data(), sample_tensors()["head.weight"].to_le_bytes());
}

#[test]
fn f16_and_bf16_files_are_read() {
    let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1,1],"data_offsets":[2,4]}}"#;
    let tensors = read(&safetensors_file(header, &[0x00, 0x3c, 0x80, 0xbf])).unwrap();
    assert_eq!(tensors["a"], Tensor::new([1], vec![1.0]));
    assert_eq!(tensors["b"], Tensor::new([1, 1], vec![-1.0]));
}

#[test]
fn f16_conversion_is_exact() {
    let cases: [(u16, f32); 8] = [
        (0x0000, 0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x3555, 0.333_251_95),
        (0x7bff, 65504.0),
        (0x0400, 0.000_061_035_156),
        (0x0001, 5.960_464_5e-8),
        (0x7c00, f32::INFINITY),
    ];
    for (bits, value) in cases {
        assert_eq!(to_f32("F16", &bits.to_le_bytes()).unwrap(), [value], "{bits:#06x}");
    }
    assert!(to_f32("F16", &0x7e00u16.to_le_bytes()).unwrap()[0].is_nan());
}

#[test]
fn bf16_conversion_is_exact() {
    assert_eq!(to_f32("BF16", &[0x80, 0x3f, 0x20, 0xc1]).unwrap(), [1.0, -10.0]);
}

#[test]
fn non_finite_values_are_rejected_by_name() {
    let mut tensors = sample_tensors();
    tensors.insert("layer.0.query.lora_A".to_string(), Tensor::new([1], vec![f32::NAN]));
    let error = write(&tensors).unwrap_err();
    assert_eq!(error.code(), "adapter_tensors");
    assert!(error.to_string().contains("layer.0.query.lora_A holds values that are not finite"), "{error}");

    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let (code, detail) = read_error(&safetensors_file(header, &f32::INFINITY.to_le_bytes()));
    assert_eq!(code, "adapter_tensors");
    assert!(detail.contains("a holds values that are not finite"), "{detail}");
}

#[test]
fn unsupported_dtypes_are_rejected_by_name() {
    let header = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let (code, detail) = read_error(&safetensors_file(header, &[0; 8]));
    assert_eq!(code, "adapter_tensors");
    assert!(detail.contains("a is stored as I64, expected F32, F16 or BF16"), "{detail}");
}

#[test]
fn damaged_files_are_rejected_with_reason() {
    let valid_file = write(&sample_tensors()).unwrap();
    let cases = [
        (Vec::new(), "shorter than eight bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "its header claims"),
        (valid_file[..60].to_vec(), "ends inside its header"),
        (valid_file[..valid_file.len() - 1].to_vec(), "was the upload cut off?"),
        ([valid_file.as_slice(), &[0]].concat(), "1 bytes at its end belong to no tensor"),
        (safetensors_file("[]", &[]), "its header is not valid"),
        (safetensors_file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]), "but 4 bytes"),
        (
            safetensors_file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, &[0; 8]),
            "starts at byte 4, expected 0",
        ),
        (
            safetensors_file(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#, &[0; 4]),
            "has the shape",
        ),
        (
            safetensors_file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#, &[0; 8]),
            "claims the bytes 8 to 4",
        ),
    ];
    for (bytes, reason) in cases {
        let (code, detail) = read_error(&bytes);
        assert_eq!(code, "unreadable_adapter");
        assert!(detail.contains(reason), "{detail} should say {reason}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in "\\PC{0,120}", data in proptest::collection::vec(any::<u8>(), 0..16)) {
        let _ = read(&safetensors_file(&header, &data));
    }

    #[test]
    fn flipped_bytes_never_panic(place in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = write(&sample_tensors()).unwrap();
        let index = place.index(bytes.len());
        bytes[index] = value;
        let _ = read(&bytes);
    }

    #[test]
    fn truncated_files_are_rejected(end in any::<prop::sample::Index>()) {
        let bytes = write(&sample_tensors()).unwrap();
        prop_assert!(read(&bytes[..end.index(bytes.len())]).is_err());
    }
}

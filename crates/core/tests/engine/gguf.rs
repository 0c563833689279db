//! GGUF files as base models against transformers. `tests/golden/gguf_file.py` makes one with every supported number format.

use espalier_core::model::hub::{self, NetworkMode};
use espalier_core::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use espalier_tensor::backend::cpu::{CpuBackend, WeightStorage};
use espalier_tensor::quant::QuantFormat;
use espalier_tensor::{Recording, Tape};
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Relative to the largest hidden state of a text.
const TOLERANCE: f32 = 1e-4;

const TEXTS: [&str; 4] = [
    "Where is my card?",
    "hi",
    "<|im_start|>user\nRefund 120 of 1,500, please: it's not my fee.<|im_end|>\n",
    " please  pay 7",
];

fn fixture(file: &str) -> PathBuf {
    espalier_testing::workspace().join("tests/fixtures/gguf").join(file)
}

fn load(path: &Path) -> espalier_core::error::Result<BaseModel> {
    BaseModel::load(path, "small", Arc::new(CpuBackend::detect()))
}

/// Compares token ids and hidden states of some texts with those of transformers.
fn assert_agrees(base: &BaseModel, texts: [&str; 4], expected: &str) {
    let bytes = fs::read(fixture(expected)).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: String| -> Vec<f32> {
        let tensor = read.tensor(&name).unwrap();
        tensor.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    };
    let mut worst = 0f32;
    for (index, text) in texts.into_iter().enumerate() {
        let ids: Vec<u32> = numbers(format!("ids.{index}")).into_iter().map(|id| id as u32).collect();
        let tokens = base.tokenizer().encode(text, None, 128).unwrap();
        assert_eq!(tokens.ids, ids, "{text:?}");
        let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
        let batch = Batch::new([&Tokens::from_ids(ids)], VirtualTokens::Disabled);
        let rows = base.encode(&mut tape, &batch, &(), RequiredRows::All).unwrap();
        let (found, expected) = (tape.to_host(rows).unwrap().values, numbers(format!("hidden.{index}")));
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs() / largest);
        worst = differences.fold(worst, f32::max);
    }
    println!("{expected}: largest relative error {worst:.1e}");
    assert!(worst <= TOLERANCE, "{worst}");
}

#[test]
fn hidden_states_and_tokens_agree_with_transformers() {
    let base = load(&fixture("model.gguf")).unwrap();
    assert_agrees(&base, TEXTS, "expected.safetensors");
    assert_eq!((base.info().model_type.as_str(), base.info().layers, base.info().max_tokens), ("llama", 5, 128));
}

/// Texts of `tests/golden/gguf_kinds.py`.
const OTHER_TEXTS: [&str; 4] = [
    "Where is my card?",
    "hi",
    " two  spaces, \u{e9}, \u{4f60} and \u{1f642}\nthe end ",
    "the card is my own card, and the fee is mine",
];

#[test]
fn gpt2_weight_layout_is_preserved() {
    let base = load(&fixture("gpt2.gguf")).unwrap();
    assert_agrees(&base, OTHER_TEXTS, "gpt2-expected.safetensors");
    assert_eq!((base.info().model_type.as_str(), base.info().is_causal_lm), ("gpt2", true));
}

#[test]
fn sentencepiece_and_rope_factors_are_read() {
    let base = load(&fixture("sentencepiece.gguf")).unwrap();
    assert_agrees(&base, OTHER_TEXTS, "sentencepiece-expected.safetensors");
    for text in OTHER_TEXTS {
        let ids = base.tokenizer().encode(text, None, 128).unwrap().ids;
        assert_eq!(base.tokenizer().decode(&ids), text);
    }
    let tokens = |text: &str| base.tokenizer().encode(text, None, 128).unwrap().ids;
    // A special token in a text is one token, and the text after it is encoded like the start of a text.
    assert_eq!(tokens("hi</s>hi"), [tokens("hi"), vec![2], tokens("hi")[1..].to_vec()].concat());
}

#[test]
fn file_name_is_the_model_name() {
    let folder = tempfile::tempdir().unwrap();
    let settings = hub::Settings { network: NetworkMode::Offline, ..hub::Settings::from_env(|_| None) };
    let path = folder.path().join("Small-Q4.gguf");
    fs::copy(fixture("model.gguf"), &path).unwrap();
    let located = hub::locate(path.to_str().unwrap(), &settings).unwrap();
    assert_eq!((located.path.as_path(), located.name.as_str()), (path.as_path(), "Small-Q4"));
    let text = folder.path().join("notes.txt");
    fs::write(&text, "notes").unwrap();
    let refused = hub::locate(text.to_str().unwrap(), &settings).unwrap_err();
    assert_eq!(refused.code(), "base_model_not_found");
    assert!(refused.to_string().contains("is no .gguf file"), "{refused}");
}

#[test]
fn damaged_and_unsupported_files_are_rejected() {
    let whole = fs::read(fixture("model.gguf")).unwrap();
    let replaced_in = |file: &str, from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = fs::read(fixture(file)).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let replaced = |from: &str, to: &str| replaced_in("model.gguf", from, to);
    let scores = "tokenizer.ggml.scores";
    let cut = whole[..whole.len() / 2].to_vec();
    for (bytes, code, words) in [
        (b"GGUF".to_vec(), "base_model_damaged", "cannot be read"),
        (b"no model at all".to_vec(), "base_model_damaged", "cannot be read"),
        (whole[..300].to_vec(), "base_model_damaged", "cannot be read"),
        (cut, "base_model_damaged", "cannot be read"),
        (replaced("blk.0.attn_q.weight", "blk.0.attn_x.weight"), "base_model_damaged", "self_attn.q_proj"),
        (replaced("llama.block_count", "llama.block_comnt"), "base_model_damaged", "llama.block_count"),
        (replaced("smollm", "smallm"), "unsupported_model", "tokenizer.ggml.pre \"smallm\""),
        (replaced_in("sentencepiece.gguf", scores, "tokenizer.ggml.scares"), "base_model_damaged", scores),
        (replaced_in("gpt2.gguf", "position_embd", "position_embb"), "base_model_damaged", "wpe.weight"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        let Err(refused) = load(&path) else { panic!("{words}") };
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

/// Quantized weights have the same values in their own format and dequantized.
#[test]
fn native_weight_format_is_bit_identical() {
    let load = |storage: WeightStorage| {
        let backend = CpuBackend::detect().with_weight_storage(storage);
        BaseModel::load(&fixture("model.gguf"), "small", Arc::new(backend)).unwrap()
    };
    let [dequantized, native, requantized] =
        [WeightStorage::F32, WeightStorage::Native, WeightStorage::Quantized(QuantFormat::Q8_0)].map(load);
    let logits = |base: &BaseModel| {
        let ids = base.tokenizer().encode(TEXTS[0], None, 128).unwrap().ids;
        let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
        let rows = base.encode(
            &mut tape,
            &Batch::new([&Tokens::from_ids(ids)], VirtualTokens::Disabled),
            &(),
            RequiredRows::All,
        );
        let logits = base.lm_logits(&mut tape, rows.unwrap()).unwrap();
        tape.to_host(logits).unwrap().values.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert_eq!(logits(&native), logits(&dequantized));
    assert_eq!(native.info().fingerprint, dequantized.info().fingerprint);
    assert_eq!(native.info().backend, dequantized.info().backend);
    assert_ne!(logits(&requantized), logits(&dequantized));
    assert_eq!(requantized.info().backend, "cpu-q8_0");
}

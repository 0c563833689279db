//! A GGUF file is a base as transformers' files are: `tests/golden/gguf_file.py` made one with every form of numbers that is read.

use espalier::compute::cpu::{Cpu, Form, Held};
use espalier::compute::{Recording, Tape};
use espalier::model::hub::{self, Network};
use espalier::model::{Base, Batch, Tokens, Virtual, Wanted};
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Relative to the largest value of a text's hidden states.
const TOLERANCE: f32 = 1e-4;

const TEXTS: [&str; 4] = [
    "Where is my card?",
    "hi",
    "<|im_start|>user\nRefund 120 of 1,500, please: it's not my fee.<|im_end|>\n",
    " please  pay 7",
];

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(file)
}

fn load(path: &Path) -> espalier::error::Result<Base> {
    Base::load(path, "small", Arc::new(Cpu::best()))
}

#[test]
fn hidden_states_and_tokens_agree_with_transformers() {
    let base = load(&fixture("model.gguf")).unwrap();
    let bytes = fs::read(fixture("expected.safetensors")).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: String| -> Vec<f32> {
        let tensor = read.tensor(&name).unwrap();
        tensor.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    };
    let mut worst = 0f32;
    for (index, text) in TEXTS.into_iter().enumerate() {
        let ids: Vec<u32> = numbers(format!("ids.{index}")).into_iter().map(|id| id as u32).collect();
        let tokens = base.tokenizer().encode(text, None, 128).unwrap();
        assert_eq!(tokens.ids, ids, "{text:?}");
        let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
        let batch = Batch::new([&Tokens::whole(ids)], Virtual::Nothing);
        let rows = base.encode(&mut tape, &batch, &(), Wanted::All).unwrap();
        let (found, expected) = (tape.read(rows).unwrap().values, numbers(format!("hidden.{index}")));
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs() / largest);
        worst = differences.fold(worst, f32::max);
    }
    println!("largest relative error {worst:.1e}");
    assert!(worst <= TOLERANCE, "{worst}");
    assert_eq!((base.info().model_type.as_str(), base.info().layers, base.info().max_tokens), ("llama", 5, 128));
}

#[test]
fn a_file_is_found_by_its_path_and_named_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = hub::Settings { network: Network::Offline, ..hub::Settings::from_environment(|_| None) };
    let path = folder.path().join("Small-Q4.gguf");
    fs::copy(fixture("model.gguf"), &path).unwrap();
    let located = hub::locate(path.to_str().unwrap(), &settings).unwrap();
    assert_eq!((located.folder.as_path(), located.name.as_str()), (path.as_path(), "Small-Q4"));
    let text = folder.path().join("notes.txt");
    fs::write(&text, "notes").unwrap();
    let refused = hub::locate(text.to_str().unwrap(), &settings).unwrap_err();
    assert_eq!(refused.code(), "base_model_not_found");
    assert!(refused.to_string().contains("is no .gguf file"), "{refused}");
}

#[test]
fn damaged_files_are_refused_and_what_is_not_computed_is_named() {
    let whole = fs::read(fixture("model.gguf")).unwrap();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = whole.clone();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let cut = whole[..whole.len() / 2].to_vec();
    for (bytes, code, words) in [
        (b"GGUF".to_vec(), "base_model_damaged", "cannot be read"),
        (b"no model at all".to_vec(), "base_model_damaged", "cannot be read"),
        (whole[..300].to_vec(), "base_model_damaged", "cannot be read"),
        (cut, "base_model_damaged", "cannot be read"),
        (replaced("blk.0.attn_q.weight", "blk.0.attn_x.weight"), "base_model_damaged", "self_attn.q_proj"),
        (replaced("llama.block_count", "llama.block_comnt"), "base_model_damaged", "llama.block_count"),
        (replaced("smollm", "smallm"), "unsupported_model", "tokenizer.ggml.pre \"smallm\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        let Err(refused) = load(&path) else { panic!("{words}") };
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

/// What the file has in few bits is read with the same numbers, however it is held.
#[test]
fn held_as_it_is_a_base_answers_with_the_same_bits() {
    let held = |held: Held| Base::load(&fixture("model.gguf"), "small", Arc::new(Cpu::best().holding(held))).unwrap();
    let [whole, as_is, rounded] = [Held::Whole, Held::AsIs, Held::Rounded(Form::Q8_0)].map(held);
    let logits = |base: &Base| {
        let ids = base.tokenizer().encode(TEXTS[0], None, 128).unwrap().ids;
        let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
        let rows = base.encode(&mut tape, &Batch::new([&Tokens::whole(ids)], Virtual::Nothing), &(), Wanted::All);
        let logits = base.language(&mut tape, rows.unwrap()).unwrap();
        tape.read(logits).unwrap().values.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert_eq!(logits(&as_is), logits(&whole));
    assert_eq!((&as_is.info().fingerprint, &as_is.info().kernels), (&whole.info().fingerprint, &whole.info().kernels));
    assert_ne!(logits(&rounded), logits(&whole));
    assert_eq!(rounded.info().kernels, "cpu-q8_0");
}

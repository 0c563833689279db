//! Base models against the models of `candle-transformers`: an oracle that shares no code with the golden numbers of PyTorch.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, llama, qwen2, qwen3};
use espalier_core::artifact::safetensors;
use espalier_core::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Recording, Tape};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Relative to the largest expected value.
const TOLERANCE: f32 = 1e-5;

/// Copies a fixture with other fields of `config.json`, and without the tensors that candle's model does not read.
fn variant(fixture: &str, fields: &[(&str, Value)], keeps: impl Fn(&str) -> bool) -> TempDir {
    let (source, folder) = (espalier_testing::jobs::fixture(fixture), tempfile::tempdir().unwrap());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config = espalier_testing::folders::read_json(&source.join("config.json"));
    for (name, value) in fields {
        config[*name] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors = safetensors::read(&fs::read(source.join("model.safetensors")).unwrap()).unwrap();
    tensors.retain(|name, _| keeps(name));
    fs::write(folder.path().join("model.safetensors"), safetensors::write(&tensors).unwrap()).unwrap();
    folder
}

fn config<T: serde::de::DeserializeOwned>(folder: &Path) -> T {
    serde_json::from_value(espalier_testing::folders::read_json(&folder.join("config.json"))).unwrap()
}

fn weights(folder: &Path) -> VarBuilder<'static> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap()
}

/// Token ids of three lengths.
fn sequences(vocabulary: u32) -> Vec<Vec<u32>> {
    let id = |index: u32| (index * index * 31 + index * 17 + 5) % vocabulary;
    [1, 7, 40].into_iter().map(|length| (length..2 * length).map(id).collect()).collect()
}

/// Hidden states of one sequence, or with `lm_head` the logits of its last token.
fn outputs(base: &BaseModel, ids: &[u32], lm_head: bool) -> Vec<f32> {
    let tokens = Tokens::from_ids(ids.to_vec());
    let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
    let required_rows = if lm_head { RequiredRows::Last } else { RequiredRows::All };
    let batch = Batch::new([&tokens], VirtualTokens::Disabled);
    let mut rows = base.encode(&mut tape, &batch, &(), required_rows).unwrap();
    if lm_head {
        rows = base.lm_logits(&mut tape, rows).unwrap();
    }
    tape.to_host(rows).unwrap().values
}

fn ids_tensor(ids: &[u32]) -> Tensor {
    Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
}

fn check(name: &str, folder: &Path, lm_head: bool, mut oracle: impl FnMut(&[u32]) -> candle_core::Result<Tensor>) {
    let base = BaseModel::load(folder, name, Arc::new(CpuBackend::detect())).unwrap();
    for ids in sequences(base.info().vocabulary_size as u32) {
        let expected: Vec<f32> = oracle(&ids).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let difference = espalier_testing::gradients::relative_error(&outputs(&base, &ids, lm_head), &expected);
        assert!(difference < TOLERANCE, "{name}, {} tokens: {difference}", ids.len());
    }
}

#[test]
fn bert_matches_candle_transformers() {
    let folder = espalier_testing::jobs::fixture("tiny-bert");
    let model = bert::BertModel::load(weights(&folder), &config(&folder)).unwrap();
    check("bert", &folder, false, |ids| {
        let ids = ids_tensor(ids);
        model.forward(&ids, &ids.zeros_like()?, None)
    });
}

#[test]
fn llama_matches_candle_transformers() {
    let rope = json!({"factor": 4.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                      "original_max_position_embeddings": 32, "rope_type": "llama3"});
    let fields = [
        ("attention_bias", json!(false)),
        ("rope_parameters", Value::Null),
        ("rope_theta", json!(500.0)),
        ("rope_scaling", rope),
    ];
    let folder = variant("decoders/llama", &fields, |name| !name.ends_with("bias"));
    let config = config::<llama::LlamaConfig>(folder.path()).into_config(false);
    let model = llama::Llama::load(weights(folder.path()), &config).unwrap();
    check("llama", folder.path(), true, |ids| {
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
        model.forward(&ids_tensor(ids), 0, &mut cache)
    });
}

#[test]
fn qwen2_matches_candle_transformers() {
    let fields = [
        ("rope_parameters", Value::Null),
        ("rope_theta", json!(1000.0)),
        ("use_sliding_window", json!(false)),
        // Candle's model applies the window in any case.
        ("sliding_window", json!(128)),
        ("layer_types", json!(["full_attention", "full_attention"])),
    ];
    let folder = variant("decoders/qwen2", &fields, |_| true);
    let mut model = qwen2::ModelForCausalLM::new(&config(folder.path()), weights(folder.path())).unwrap();
    check("qwen2", folder.path(), true, |ids| {
        model.clear_kv_cache();
        model.forward(&ids_tensor(ids), 0)
    });
}

#[test]
fn qwen3_matches_candle_transformers() {
    let fields = [("rope_parameters", Value::Null), ("rope_theta", json!(10_000.0))];
    let folder = variant("decoders/qwen3", &fields, |_| true);
    let mut model = qwen3::ModelForCausalLM::new(&config(folder.path()), weights(folder.path())).unwrap();
    check("qwen3", folder.path(), true, |ids| {
        model.clear_kv_cache();
        model.forward(&ids_tensor(ids), 0)?.i((0, 0))
    });
}

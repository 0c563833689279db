//! Every architecture against transformers: hidden states of the last layer of the small models of
//! `tests/golden/architectures.py`, on both backends, from checkpoints with and without a head.

use espalier_core::error::Result;
use espalier_core::model::{
    BaseModel, Batch, FirstTrainableLayer, Hooks, Pooling, RequiredRows, SUPPORTED_MODEL_TYPES, Tokens, VirtualTokens,
};
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Backend, RaggedLayout, Recording, Tape, Tensor, Var};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Relative to the largest hidden state of a text.
const TOLERANCE: f32 = 1e-4;

/// Config fields with unsupported values, as JSON.
type RejectedConfigs = [(&'static str, &'static str)];

/// `model_type`, prefix of the base model in a model with a head, path of one site, and unsupported config fields.
const ARCHITECTURES: [(&str, &str, &str, &RejectedConfigs); 12] = [
    ("roberta", "roberta", "roberta.encoder.layer.0.attention.self.query", &ABSOLUTE),
    ("xlm-roberta", "roberta", "roberta.encoder.layer.1.output.dense", &ABSOLUTE),
    ("camembert", "roberta", "roberta.encoder.layer.0.intermediate.dense", &ABSOLUTE),
    ("distilbert", "distilbert", "distilbert.transformer.layer.0.attention.q_lin", &[("activation", "\"relu\"")]),
    ("esm", "esm", "esm.encoder.emb_layer_norm_after", &ROTARY),
    ("modernbert", "model", "model.layers.0.attn.Wqkv", &LOCAL),
    ("mpnet", "mpnet", "mpnet.encoder.layer.0.attention.attn.q", &BUCKETS),
    ("llama", "model", "model.layers.1.self_attn.q_proj", &REJECTED_ROPE_SCALING),
    ("mistral", "model", "model.layers.0.mlp.gate_proj", &[("hidden_act", "\"gelu\""), ("sliding_window", "0")]),
    ("qwen2", "model", "model.layers.0.mlp.down_proj", &SLIDING),
    ("qwen3", "model", "model.layers.0.post_attention_layernorm", &[("num_key_value_heads", "3"), ("head_dim", "7")]),
    ("gpt2", "transformer", "transformer.h.1.attn.c_attn", &REJECTED_GPT2),
];

const REJECTED_GPT2: [(&str, &str); 5] = [
    ("activation_function", "\"tanh\""),
    ("scale_attn_weights", "false"),
    ("scale_attn_by_inverse_layer_idx", "true"),
    ("add_cross_attention", "true"),
    ("n_head", "5"),
];

const REJECTED_ROPE_SCALING: [(&str, &str); 3] = [
    ("rope_type", "{\"rope_type\": \"longrope\"}"),
    ("high_freq_factor", "{\"rope_type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 1}"),
    ("partial_rotary_factor", "{\"partial_rotary_factor\": 0.5}"),
];

const SLIDING: [(&str, &str); 3] = [
    ("layer_types", "[\"full_attention\", \"chunked_attention\"]"),
    ("layer_types", "[\"full_attention\"]"),
    ("use_sliding_window", "false"),
];

const BUCKETS: [(&str, &str); 2] = [("hidden_act", "\"relu\""), ("relative_attention_num_buckets", "64")];

const LOCAL: [(&str, &str); 4] = [
    ("hidden_activation", "\"silu\""),
    ("rope_scaling", "{\"rope_type\": \"yarn\"}"),
    ("rope_parameters", "{\"full_attention\": {\"rope_type\": \"linear\"}}"),
    ("layer_types", "[\"full_attention\", \"chunked_attention\"]"),
];

const ROTARY: [(&str, &str); 2] = [("position_embedding_type", "\"absolute\""), ("is_folding_model", "true")];

const ABSOLUTE: [(&str, &str); 3] =
    [("hidden_act", "\"relu\""), ("position_embedding_type", "\"relative_key\""), ("is_decoder", "true")];

fn fixture(model_type: &str) -> PathBuf {
    espalier_testing::workspace().join("tests/fixtures/architectures").join(model_type)
}

fn load(folder: &Path, backend: Arc<dyn Backend>) -> Arc<BaseModel> {
    Arc::new(BaseModel::load(folder, "golden", backend).unwrap())
}

fn numbers(view: &TensorView) -> Vec<f32> {
    view.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Ids and expected hidden states of each text.
fn expected(folder: &Path) -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let count = read.names().iter().filter(|name| name.starts_with("ids.")).count();
    let part = |name: String| numbers(&read.tensor(&name).unwrap());
    let one = |index: usize| {
        let ids = part(format!("ids.{index}")).into_iter().map(|id| id as u32).collect();
        (ids, part(format!("hidden.{index}")))
    };
    (0..count).map(one).collect()
}

/// Hidden states of some texts in one batch: `(tokens, hidden)`, or `(texts, hidden)` of the first or last tokens.
fn hidden_states(base: &BaseModel, texts: &[Vec<u32>], required_rows: RequiredRows) -> Vec<f32> {
    let tokens = |ids: &Vec<u32>| Tokens::from_ids(ids.clone());
    let tokens: Vec<Tokens> = texts.iter().map(tokens).collect();
    let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
    let rows = base.encode(&mut tape, &Batch::new(&tokens, VirtualTokens::Disabled), &(), required_rows).unwrap();
    tape.to_host(rows).unwrap().values
}

/// The largest difference, relative to the largest expected value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0f32, f32::max) / largest
}

/// Hooks with a constant soft prompt.
struct FixedVirtualTokens(Tensor);

impl Hooks for FixedVirtualTokens {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Embeddings
    }

    fn soft_prompts(&self, tape: &mut Tape, sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        let rows = tape.constant_from_host(&self.0, Arc::new(RaggedLayout::from_lengths([self.0.shape[0]])))?;
        Ok(vec![PrependedRows { sequences, rows }])
    }
}

#[test]
fn hidden_states_agree_behind_virtual_tokens() {
    for (model_type, ..) in ARCHITECTURES {
        let folder = fixture(model_type);
        let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let prompt = read.tensor("prompt").unwrap();
        let prompt = Tensor::new(prompt.shape(), numbers(&prompt));
        let virtual_tokens = VirtualTokens::Prompt(prompt.shape[0]);
        for backend in backends() {
            let base = load(&folder, backend);
            for (index, (ids, _)) in expected(&folder).into_iter().enumerate() {
                let tokens = Tokens::from_ids(ids);
                let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
                let batch = Batch::new([&tokens], virtual_tokens);
                let rows =
                    base.encode(&mut tape, &batch, &FixedVirtualTokens(prompt.clone()), RequiredRows::All).unwrap();
                let expected = numbers(&read.tensor(&format!("prompted.{index}")).unwrap());
                let worst = error(&tape.to_host(rows).unwrap().values, &expected);
                assert!(worst <= TOLERANCE, "{model_type} on {} differs by {worst}", base.info().backend);
            }
        }
    }
}

fn compare(base: &BaseModel, texts: &[(Vec<u32>, Vec<f32>)]) -> f32 {
    let ids: Vec<Vec<u32>> = texts.iter().map(|(ids, _)| ids.clone()).collect();
    let width = base.info().hidden_size;
    let one = if base.info().poolings.contains(&Pooling::Last) { RequiredRows::Last } else { RequiredRows::First };
    let (all, ones) = (hidden_states(base, &ids, RequiredRows::All), hidden_states(base, &ids, one));
    let (mut rest, mut worst) = (all.as_slice(), 0f32);
    for ((_, expected), found) in texts.iter().zip(ones.chunks_exact(width)) {
        let (own, after) = rest.split_at(expected.len());
        let same = if one == RequiredRows::Last { &expected[expected.len() - width..] } else { &expected[..width] };
        worst = worst.max(error(own, expected)).max(error(found, same));
        rest = after;
    }
    worst
}

fn backends() -> [Arc<dyn Backend>; 2] {
    [Arc::new(CpuBackend::detect()), Arc::new(CandleBackend::cpu())]
}

#[test]
fn hidden_states_agree_with_transformers() {
    for (model_type, ..) in ARCHITECTURES {
        let folder = fixture(model_type);
        for backend in backends() {
            let base = load(&folder, backend);
            let worst = compare(&base, &expected(&folder));
            println!("{model_type} on {}: largest relative error {worst:.2e}", base.info().backend);
            assert!(worst <= TOLERANCE, "{model_type} on {} differs by {worst}", base.info().backend);
            assert_eq!(base.info().model_type, model_type);
        }
    }
}

#[test]
fn text_is_bit_identical_alone_and_batched() {
    for (model_type, ..) in ARCHITECTURES {
        let folder = fixture(model_type);
        let base = load(&folder, Arc::new(CpuBackend::detect()));
        let texts: Vec<Vec<u32>> = expected(&folder).into_iter().map(|(ids, _)| ids).collect();
        let together = hidden_states(&base, &texts, RequiredRows::All);
        let alone: Vec<f32> =
            texts.iter().flat_map(|text| hidden_states(&base, std::slice::from_ref(text), RequiredRows::All)).collect();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&together) == bits(&alone), "{model_type}");
    }
}

/// A copy of the model's folder with renamed tensors and changed config fields.
fn modified_model(model_type: &str, rename: impl Fn(&str) -> String, fields: &[(&str, Value)]) -> tempfile::TempDir {
    let (from, to) = (fixture(model_type), tempfile::tempdir().unwrap());
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let renamed: BTreeMap<String, TensorView> = read.iter().map(|(name, view)| (rename(name), view)).collect();
    safetensors::serialize_to_file(&renamed, None, &to.path().join("model.safetensors")).unwrap();
    fs::copy(from.join("tokenizer.json"), to.path().join("tokenizer.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    for (field, value) in fields {
        config[field] = value.clone();
    }
    fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    to
}

#[test]
fn checkpoint_with_head_loads_the_same_base() {
    for (model_type, prefix, ..) in ARCHITECTURES {
        let bare = load(&fixture(model_type), Arc::new(CpuBackend::detect()));
        let folder = modified_model(model_type, |name| format!("{prefix}.{name}"), &[]);
        let headed = load(folder.path(), Arc::new(CpuBackend::detect()));
        assert_eq!(headed.info().fingerprint, bare.info().fingerprint, "{model_type}");
        assert_eq!(headed.weights_digest().unwrap(), bare.weights_digest().unwrap(), "{model_type}");
        assert_eq!(headed.info().parameters, bare.info().parameters, "{model_type}");
    }
}

#[test]
fn unsupported_config_is_rejected_by_name() {
    for (model_type, _, _, fields) in ARCHITECTURES {
        for (field, value) in fields {
            let value: Value = serde_json::from_str(value).unwrap();
            // Settings of rotary embeddings are in a field of their own.
            let config_field = if value.is_object() && model_type == "llama" { "rope_parameters" } else { field };
            let folder = modified_model(model_type, str::to_string, &[(config_field, value)]);
            let refused = BaseModel::load(folder.path(), "refused", Arc::new(CpuBackend::detect()));
            let Err(espalier_core::error::Error::Invalid(problem)) = refused else { panic!("{model_type} {field}") };
            assert_eq!(problem.code, "unsupported_model", "{problem:?}");
            assert!(problem.detail.contains(field), "{model_type}: {problem:?}");
        }
    }
    let folder = modified_model("roberta", str::to_string, &[("model_type", json!("big_bird"))]);
    let Err(refused) = BaseModel::load(folder.path(), "refused", Arc::new(CpuBackend::detect())) else {
        panic!("big_bird")
    };
    assert!(SUPPORTED_MODEL_TYPES.iter().all(|name| refused.to_string().contains(name)), "{refused}");
}

#[test]
fn unsupported_sentence_transformers_settings_are_rejected() {
    for (file, settings, words) in [
        ("1_Pooling/config.json", json!({"pooling_mode_max_tokens": true}), "pooling_mode_max_tokens is not supported"),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}),
            "pooling_mode_mean_tokens beside another",
        ),
        ("1_Pooling/config.json", json!({"pooling_mode_lasttoken": true}), "its pooling on this architecture"),
        ("modules.json", json!([{"type": "sentence_transformers.models.Dense"}]), "the module Dense"),
    ] {
        let folder = modified_model("roberta", str::to_string, &[]);
        fs::create_dir_all(folder.path().join("1_Pooling")).unwrap();
        fs::write(folder.path().join("1_Pooling/config.json"), json!({"pooling_mode_mean_tokens": true}).to_string())
            .unwrap();
        load(folder.path(), Arc::new(CpuBackend::detect()));
        fs::write(folder.path().join(file), settings.to_string()).unwrap();
        let Err(refused) = BaseModel::load(folder.path(), "refused", Arc::new(CpuBackend::detect())) else {
            panic!("{settings}")
        };
        assert_eq!(refused.code(), "unsupported_model");
        assert!(refused.to_string().contains(words) && refused.to_string().contains(file), "{refused}");
    }
}

#[test]
fn tokenizer_larger_than_the_embedding_is_rejected() {
    let folder = modified_model("roberta", str::to_string, &[]);
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let id = tokenizer["model"]["vocab"].as_object().unwrap().len();
    tokenizer["model"]["vocab"]["unheard"] = json!(id);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let Err(refused) = BaseModel::load(folder.path(), "refused", Arc::new(CpuBackend::detect())) else {
        panic!("{id}")
    };
    assert_eq!(refused.code(), "base_model_damaged");
    assert!(refused.to_string().contains("\"unheard\""), "{refused}");
}

#[test]
fn sites_have_the_paths_of_the_headed_model() {
    for (model_type, prefix, path, _) in ARCHITECTURES {
        let base = load(&fixture(model_type), Arc::new(CpuBackend::detect()));
        let pooling = if base.info().poolings.contains(&Pooling::Cls) { Pooling::Cls } else { Pooling::Mean };
        let sites = base.sites(pooling);
        assert!(sites.iter().any(|info| info.module_path == path), "{model_type}: {sites:?}");
        for info in &sites {
            assert!(info.module_path.starts_with(&format!("{prefix}.")), "{info:?}");
            match base.linear_at(info.site) {
                Some(linear) => {
                    assert_eq!(
                        (linear.in_features, linear.out_features),
                        (info.in_features, info.out_features),
                        "{info:?}"
                    );
                }
                None => {
                    assert_eq!(
                        base.norm_at(info.site).unwrap().unwrap()[0].values.len(),
                        info.out_features,
                        "{info:?}"
                    );
                }
            }
            assert!(!info.has_bias || base.bias_at(info.site).unwrap().is_some(), "{info:?}");
        }
    }
}

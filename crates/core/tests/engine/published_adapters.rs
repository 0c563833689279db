//! Adapters in forms that are published, saved by the real PEFT: the task that is inferred, and outputs equal to PEFT's. Then a table of
//! settings, each imported or refused with its reason. `tests/peft/make_published.py` writes the files.

use espalier_core::artifact::archive::ImportLimits;
use espalier_core::artifact::{self, Artifact, ImportRequest, LoadedAdapter};
use espalier_core::error::Result;
use espalier_core::model::{BaseModel, Batch, Pooling, RequiredRows, Tokens, VirtualTokens};
use espalier_core::task::Input;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Recording, Tape};
use espalier_testing::folders::{input_from_json, max_abs_difference, read_json, read_zip};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const TOLERANCE: f32 = 1e-4;

struct Case {
    path: PathBuf,
    expected: Value,
    base: BaseModel,
}

impl Case {
    fn open(path: PathBuf) -> Self {
        let expected = read_json(&path.join("expected.json"));
        let [folder, name] = ["model", "base"].map(|field| expected[field].as_str().unwrap().to_string());
        let base = BaseModel::load(&fixture(&folder), &name, Arc::new(CpuBackend::detect())).unwrap();
        Self { path, expected, base }
    }

    fn named(name: &str) -> Self {
        Self::open(fixture("peft-published").join(name))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn request(&self) -> ImportRequest {
        // A base without the files of sentence-transformers does not say how it pools.
        let is_embedding = self.expected["task"] == "embedding";
        ImportRequest {
            pooling: is_embedding.then_some(Pooling::Mean),
            max_length: self.expected["max_length"].as_u64().map(|length| length as usize),
            ..ImportRequest::default()
        }
    }

    fn import(&self, archive: &Path) -> Result<Artifact> {
        let temporary = tempfile::tempdir().unwrap();
        artifact::import(archive, &self.request(), &self.base, temporary.path(), &ImportLimits::default())
    }

    /// Outputs of the kind that the case expects.
    fn outputs(&self, artifact: &Artifact) -> Vec<f32> {
        let adapter = LoadedAdapter::load(artifact, &self.base).unwrap();
        if let Some(prompts) = self.expected["prompts"].as_array() {
            return prompts.iter().flat_map(|ids| self.next_token_logits(&adapter, ids)).collect();
        }
        let inputs: Vec<Input> = self.expected["inputs"].as_array().unwrap().iter().map(input_from_json).collect();
        adapter.forward(&self.base, &inputs).unwrap().concat()
    }

    fn next_token_logits(&self, adapter: &LoadedAdapter, ids: &Value) -> Vec<f32> {
        let tokens = Tokens::from_ids(serde_json::from_value(ids.clone()).unwrap());
        let mut tape = Tape::new(Arc::clone(self.base.backend()), Arc::clone(&adapter.parameters), Recording::Off);
        let batch = Batch::new([&tokens], VirtualTokens::Disabled);
        let rows = self.base.encode(&mut tape, &batch, adapter.hooks.as_ref(), RequiredRows::Last).unwrap();
        match &adapter.lm_head {
            Some(lm_head) => lm_head.logits(&self.base, &mut tape, rows).unwrap(),
            None => {
                let logits = self.base.lm_logits(&mut tape, rows).unwrap();
                tape.to_host(logits).unwrap().values
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(fixture("peft-published")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 16, "every form has its case");
    paths.into_iter().map(Case::open).collect()
}

#[test]
fn published_forms_reproduce_pefts_outputs() {
    for case in cases() {
        let artifact =
            case.import(&case.path.join("adapter.zip")).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        assert_eq!(artifact.manifest.task.type_name(), case.expected["task"], "{}", case.name());
        let expected: Vec<Vec<f32>> = serde_json::from_value(case.expected["logits"].clone()).unwrap();
        let difference = max_abs_difference(&case.outputs(&artifact), &expected.concat());
        println!("{}: {difference:.1e}", case.name());
        assert!(difference < TOLERANCE, "{}: an output differs by {difference}", case.name());
    }
}

#[test]
fn published_forms_are_stored_and_read_again() {
    for case in cases() {
        let artifact = case.import(&case.path.join("adapter.zip")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (root, temporary) = (folder.path().join("adapters"), folder.path().join("temporary"));
        let published = artifact::publish_artifact(&artifact, &case.base, &root, &temporary).unwrap();
        let loaded = artifact::load_published(&root, &published.version, &case.base).unwrap();
        assert_eq!(loaded, artifact, "{}", case.name());
        assert_eq!(case.outputs(&loaded), case.outputs(&artifact), "{}", case.name());
    }
}

#[test]
fn weights_of_the_base_are_not_stored_again() {
    let artifact = |name: &str| {
        let case = Case::named(name);
        case.import(&case.path.join("adapter.zip")).unwrap()
    };
    let saved_beside = artifact("llama-lora-of-embeddings-and-head");
    assert!(
        !saved_beside.manifest.vocabulary.embeddings.replaced
            && !saved_beside.weights.contains_key("embeddings.weight")
    );
    let trained = artifact("llama-embeddings-and-head");
    assert!(trained.manifest.vocabulary.embeddings.replaced && trained.manifest.vocabulary.lm_head.replaced);
}

/// Writes the adapter of a case with changed settings.
fn write_changed(case: &Case, changes: &Value, out: &Path) {
    let mut files: BTreeMap<String, Vec<u8>> = read_zip(&case.path.join("adapter.zip"));
    let mut config: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    files.insert("adapter_config.json".to_string(), config.to_string().into_bytes());
    let mut zip = ZipWriter::new(File::create(out).unwrap());
    for (name, bytes) in files {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// A case, changed settings of its `adapter_config.json` and, for those that are refused, words of the reason.
type Setting = (&'static str, Value, Option<&'static str>);

/// Settings of LoRA.
fn lora_settings() -> Vec<Setting> {
    let (llama, bert) = ("llama-layers", "bert-classifier-without-task");
    vec![
        (llama, json!({"use_rslora": true}), None),
        (llama, json!({"use_dora": true}), Some("lora_magnitude_vector is missing")),
        (llama, json!({"bias": "lora_only"}), Some("q_proj.base_layer.bias is missing")),
        (bert, json!({"bias": "lora_only"}), Some("query.base_layer.bias is missing")),
        (bert, json!({"bias": "all"}), Some("bias is \"all\"")),
        (llama, json!({"rank_pattern": {"q_proj": 2}}), Some("expected [2, ")),
        (llama, json!({"alpha_pattern": {"q_proj": 2}}), None),
        (llama, json!({"layers_to_transform": [0]}), Some("a module that target_modules does not name")),
        (llama, json!({"exclude_modules": ["q_proj", "up_proj"]}), Some("a module that target_modules does not name")),
        (llama, json!({"target_modules": r".*layers\.1\.self_attn\.(q|o)_proj", "layers_to_transform": null}), None),
        (llama, json!({"target_modules": "(?!x).*"}), Some("regular expression in target_modules")),
        (llama, json!({"fan_in_fan_out": true}), Some("fan_in_fan_out is set")),
        (llama, json!({"init_lora_weights": "gaussian"}), None),
        (llama, json!({"init_lora_weights": "pissa"}), Some("path_initial_model_for_weight_conversion")),
        (llama, json!({"init_lora_weights": "olora"}), Some("init_lora_weights is \"olora\"")),
        (llama, json!({"init_lora_weights": "loftq"}), Some("init_lora_weights is \"loftq\"")),
    ]
}

/// Modules that are saved whole, trainable tokens, and fields of every method.
fn other_settings() -> Vec<Setting> {
    let (llama, bert) = ("llama-layers", "bert-classifier-without-task");
    vec![
        (llama, json!({"modules_to_save": ["lm_head"]}), Some("lm_head.weight is missing")),
        (llama, json!({"modules_to_save": ["embed_tokens"]}), Some("embed_tokens.weight is missing")),
        (llama, json!({"modules_to_save": ["norm"]}), Some("modules_to_save holds \"norm\", which is not applied")),
        (llama, json!({"modules_to_save": "lm_head"}), Some("modules_to_save must be a list")),
        (llama, json!({"trainable_token_indices": [1]}), Some("token_adapter.trainable_tokens_delta is missing")),
        (llama, json!({"trainable_token_indices": [1, 1]}), Some("a list of different token ids")),
        (llama, json!({"trainable_token_indices": {"norm": [1]}}), Some("holds \"norm\"")),
        (llama, json!({"ensure_weight_tying": true}), Some("ensure_weight_tying=False")),
        (llama, json!({"layer_replication": [[0, 1]]}), Some("layer_replication is set")),
        (llama, json!({"target_parameters": ["experts"]}), Some("target_parameters is set")),
        (llama, json!({"alora_invocation_tokens": [1]}), Some("alora_invocation_tokens is set")),
        (llama, json!({"lora_bias": true}), Some("lora_bias=False")),
        (llama, json!({"new_setting": 1}), Some("new_setting is set and not known here")),
        (llama, json!({"new_setting": null}), None),
        (llama, json!({"peft_type": "LOHA"}), Some("peft_type is \"LOHA\"")),
        (llama, json!({"peft_type": "TRAINABLE_TOKENS"}), Some("this server takes LORA")),
        (llama, json!({"task_type": "CAUSAL_LM"}), None),
        (llama, json!({"task_type": "SEQ_CLS"}), Some("score.weight is missing")),
        (llama, json!({"task_type": "TOKEN_CLS"}), Some("its task_type is TOKEN_CLS")),
        (llama, json!({"base_model_name_or_path": "example/decoders-llama.Q8_0.gguf"}), None),
        (llama, json!({"base_model_name_or_path": "/models/Decoders-LLaMA-GGUF/"}), None),
        (
            llama,
            json!({"base_model_name_or_path": "example/decoders-llama-7b"}),
            Some("names \"example/decoders-llama-7b\""),
        ),
        (bert, json!({"modules_to_save": ["classifier", "pooler"]}), Some("holds \"pooler\"")),
        (bert, json!({"modules_to_save": ["classifier", "lm_head"]}), Some("does not use it: leave lm_head out")),
        (
            bert,
            json!({"modules_to_save": ["classifier", "word_embeddings"]}),
            Some("word_embeddings.weight is missing"),
        ),
        ("llama-lora-of-embeddings-and-head", json!({"use_dora": true}), Some("use_dora is not applied to lm_head")),
        (
            "llama-lora-of-embeddings-and-head",
            json!({"target_modules": ["q_proj"]}),
            Some("embed_tokens.lora_embedding_A is not a tensor"),
        ),
        ("qwen2-head", json!({"modules_to_save": null}), None),
        (
            "qwen2-trainable-tokens",
            json!({"trainable_token_indices": {"embed_tokens": [5, 60]}}),
            Some("trainable_tokens_delta has the shape [3, 32], expected [2, 32]"),
        ),
        ("qwen2-trainable-tokens", json!({"trainable_token_indices": [5, 60, 320]}), Some("320")),
    ]
}

#[test]
fn settings_are_applied_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("adapter.zip");
    let mut wrong = Vec::new();
    for (name, changes, refusal) in lora_settings().into_iter().chain(other_settings()) {
        let case = Case::named(name);
        write_changed(&case, &changes, &archive);
        match (case.import(&archive), refusal) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) if error.to_string().contains(words) => {}
            (found, expected) => {
                wrong.push(format!("{name} {changes}: {:?}, expected {expected:?}", found.map(|_| "imported")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

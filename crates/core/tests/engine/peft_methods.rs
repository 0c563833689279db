//! Every method of PEFT compared with PEFT: its adapters reproduce its logits and gradients, and exports hold the same tensors under
//! the same keys. `tests/peft/make_methods.py` writes the files; `ESPALIER_PEFT_METHODS` and `ESPALIER_PEFT_MODEL` point to files for
//! another base.

use espalier_core::adapter::peft::ModuleNaming;
use espalier_core::artifact::folder::AdapterFiles;
use espalier_core::artifact::peft::head::HeadLayout;
use espalier_core::artifact::peft::weights;
use espalier_core::artifact::{self, Artifact, BaseSummary, ImportLimits, ImportRequest, LoadedAdapter, safetensors};
use espalier_core::model::{BaseModel, Pooling};
use espalier_core::task::Input;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Tensor;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_testing::folders::{input_from_json, max_abs_difference, read_json, read_zip};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tolerance of a logit, and of a gradient relative to the largest value of its tensor.
const TOLERANCE: f32 = 1e-4;

fn folder(variable: &str, committed: &str) -> PathBuf {
    let committed = || espalier_testing::workspace().join("tests/fixtures").join(committed);
    std::env::var_os(variable).map_or_else(committed, PathBuf::from)
}

/// Folders of cases, and their bases.
const BASES: [(&str, &str); 6] = [
    ("peft-methods", "tiny-bert"),
    ("peft-methods-roberta", "architectures/roberta"),
    ("peft-methods-distilbert", "architectures/distilbert"),
    ("peft-methods-esm", "architectures/esm"),
    ("peft-methods-gpt2", "architectures/gpt2"),
    ("peft-methods-llama", "architectures/llama"),
];

struct Case {
    path: PathBuf,
    model: PathBuf,
    expected: Value,
    /// The two files of PEFT's folder, by name.
    files: BTreeMap<String, Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (methods, model) in BASES {
        let root = folder("ESPALIER_PEFT_METHODS", methods);
        let mut paths: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 4, "every method has its case");
        cases.extend(paths.into_iter().map(|path| case(path, folder("ESPALIER_PEFT_MODEL", model))));
    }
    cases
}

fn case(path: PathBuf, model: PathBuf) -> Case {
    let expected = read_json(&path.join("expected.json"));
    Case { files: read_zip(&path.join("adapter.zip")), path, model, expected }
}

impl Case {
    fn config(&self) -> Value {
        serde_json::from_slice(&self.files["adapter_config.json"]).unwrap()
    }

    fn base(&self) -> Arc<BaseModel> {
        let name = self.config()["base_model_name_or_path"].as_str().unwrap().to_string();
        Arc::new(BaseModel::load(&self.model, &name, Arc::new(CpuBackend::detect())).unwrap())
    }

    fn import(&self, base: &BaseModel) -> Artifact {
        let temporary = tempfile::tempdir().unwrap();
        let max_length = Some(self.expected["max_length"].as_u64().unwrap() as usize);
        let request = ImportRequest { max_length, ..ImportRequest::default() };
        artifact::import(&self.path.join("adapter.zip"), &request, base, temporary.path(), &ImportLimits::default())
            .unwrap()
    }

    /// The names of base and method.
    fn name(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
        format!("{} {}", name(&self.model), name(&self.path))
    }
}

#[test]
fn peft_adapter_reproduces_its_logits() {
    for case in cases() {
        let base = case.base();
        let adapted = LoadedAdapter::load(&case.import(&base), &base).unwrap();
        let inputs: Vec<Input> = case.expected["inputs"].as_array().unwrap().iter().map(input_from_json).collect();
        let found = adapted.forward(&base, &inputs).unwrap().concat();
        let expected: Vec<Vec<f32>> = serde_json::from_value(case.expected["logits"].clone()).unwrap();
        let difference = max_abs_difference(&found, &expected.concat());
        assert!(difference < TOLERANCE, "{}: a logit differs by {difference}", case.name());
    }
}

#[test]
fn gradients_agree_with_pytorch() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case.path.join("gradients.safetensors").exists()) {
        let base = case.base();
        let artifact = case.import(&base);
        let sites = base.sites(Pooling::Cls);
        let theirs = safetensors::read(&fs::read(case.path.join("gradients.safetensors")).unwrap()).unwrap();
        let head =
            HeadLayout::for_writing(&artifact.manifest.task, ModuleNaming::WithHead, base.info().classification_head());
        let theirs =
            weights::from_peft(theirs, &artifact.manifest.method, &sites, Some(head), base.info().hidden_size).unwrap();
        // In transformers the heads of decoders have no bias.
        let is_theirs = |name: &String| name != "head.bias" || base.info().classification_head().output_has_bias;
        for (name, ours) in gradients(case, &base, &artifact).into_iter().filter(|(name, _)| is_theirs(name)) {
            let difference = espalier_testing::gradients::relative_error(&ours, &theirs[&name].values);
            assert!(difference < TOLERANCE, "{}: the gradient by {name} differs by {difference}", case.name());
            compared += 1;
        }
    }
    assert!(compared > 180, "{compared} tensors were compared");
}

/// Gradients of the summed cross entropy over the case's texts, by name.
fn gradients(case: &Case, base: &Arc<BaseModel>, artifact: &Artifact) -> BTreeMap<String, Vec<f32>> {
    let (spec, _) =
        espalier_testing::jobs::spec_and_data(base, artifact.manifest.method.clone(), Hyperparameters::default(), 12);
    let spec = Spec { task: artifact.manifest.task.clone(), method: artifact.manifest.method.clone(), ..spec };
    let texts = case.expected["texts"].as_array().unwrap();
    espalier_testing::gradients::cross_entropy_gradients(
        base,
        &spec,
        artifact.weights.clone(),
        texts,
        artifact.manifest.max_length,
    )
}

#[test]
fn peft_export_round_trips() {
    for case in cases() {
        let base = case.base();
        let files = AdapterFiles::from_artifact(&case.import(&base), &BaseSummary::from_base(&base)).unwrap();
        let read = |bytes: &[u8]| safetensors::read(bytes).unwrap();
        let theirs: BTreeMap<String, Tensor> = read(&case.files["adapter_model.safetensors"]);
        assert_eq!(read(&files.weights), theirs, "{}", case.name());
        let (ours, theirs): (Value, Value) = (serde_json::from_slice(&files.config).unwrap(), case.config());
        // The fields from which PEFT builds the adapter. Equivalent rules for target modules may differ.
        for field in [
            "peft_type",
            "task_type",
            "r",
            "lora_alpha",
            "use_dora",
            "use_rslora",
            "bias",
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "fan_in_fan_out",
            "prefix_projection",
            "save_projection",
            "d_initial",
        ] {
            let is_projection = case.path.ends_with("prefix-projected") && field == "prefix_projection";
            if ours.get(field).is_some() && theirs.get(field).is_some() && !is_projection {
                assert_eq!(ours[field], theirs[field], "{}: {field}", case.name());
            }
        }
    }
}

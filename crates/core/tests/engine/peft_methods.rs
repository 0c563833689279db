//! Every method that PEFT has, against the real PEFT: what it saved is read, answers with its logits, has its gradients, and
//! is written again number by number under its keys. The files are made by `tests/peft/make_methods.py`;
//! `ESPALIER_PEFT_METHODS` and `ESPALIER_PEFT_MODEL` name others, made for another base.

use espalier_core::artifact::folder::Files;
use espalier_core::artifact::peft::head::Head;
use espalier_core::artifact::peft::keys::Form;
use espalier_core::artifact::peft::weights;
use espalier_core::artifact::{self, Adapted, Artifact, ImportRequest, Outline, Settings, safetensors};
use espalier_core::model::{Base, Pooling};
use espalier_core::task::Input;
use espalier_core::training::{Hyperparameters, Spec};
use espalier_tensor::Tensor;
use espalier_tensor::cpu::Cpu;
use espalier_testing::folders::{input, json_file, largest_difference, unzipped};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of a logit, and of a gradient relative to the largest of its tensor.
const TOLERANCE: f32 = 1e-4;

fn folder(variable: &str, committed: &str) -> PathBuf {
    let committed = || espalier_testing::workspace().join("tests/fixtures").join(committed);
    std::env::var_os(variable).map_or_else(committed, PathBuf::from)
}

/// Folders of cases, and the base that they were made for.
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
    /// By name: the two files of PEFT's folder.
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
    let expected = json_file(&path.join("expected.json"));
    Case { files: unzipped(&path.join("adapter.zip")), path, model, expected }
}

impl Case {
    fn config(&self) -> Value {
        serde_json::from_slice(&self.files["adapter_config.json"]).unwrap()
    }

    fn base(&self) -> Arc<Base> {
        let name = self.config()["base_model_name_or_path"].as_str().unwrap().to_string();
        Arc::new(Base::load(&self.model, &name, Arc::new(Cpu::best())).unwrap())
    }

    fn import(&self, base: &Base) -> Artifact {
        let temporary = tempfile::tempdir().unwrap();
        let max_length = Some(self.expected["max_length"].as_u64().unwrap() as usize);
        let request = ImportRequest { max_length, ..ImportRequest::default() };
        artifact::import(&self.path.join("adapter.zip"), &request, base, temporary.path(), &Settings::default())
            .unwrap()
    }

    /// The base's and the method's.
    fn name(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
        format!("{} {}", name(&self.model), name(&self.path))
    }
}

#[test]
fn what_peft_saved_answers_with_its_logits() {
    for case in cases() {
        let base = case.base();
        let adapted = Adapted::load(&case.import(&base), &base).unwrap();
        let inputs: Vec<Input> = case.expected["inputs"].as_array().unwrap().iter().map(input).collect();
        let found = adapted.outputs(&base, &inputs).unwrap().concat();
        let expected: Vec<Vec<f32>> = serde_json::from_value(case.expected["logits"].clone()).unwrap();
        let difference = largest_difference(&found, &expected.concat());
        assert!(difference < TOLERANCE, "{}: a logit differs by {difference}", case.name());
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case.path.join("gradients.safetensors").exists()) {
        let base = case.base();
        let artifact = case.import(&base);
        let sites = base.sites(Pooling::Cls);
        let theirs = safetensors::read(&fs::read(case.path.join("gradients.safetensors")).unwrap()).unwrap();
        let head = Head::of(&artifact.card.task, Form::Headed, base.info().head());
        let theirs =
            weights::from_peft(theirs, &artifact.card.method, &sites, Some(head), base.info().hidden_size).unwrap();
        // The heads of transformers' decoders have no bias.
        let is_theirs = |name: &String| name != "head.bias" || base.info().head().has_bias;
        for (name, ours) in gradients(case, &base, &artifact).into_iter().filter(|(name, _)| is_theirs(name)) {
            let difference = espalier_testing::gradients::difference(&ours, &theirs[&name].values);
            assert!(difference < TOLERANCE, "{}: the gradient by {name} differs by {difference}", case.name());
            compared += 1;
        }
    }
    assert!(compared > 180, "{compared} tensors were compared");
}

/// Of the summed cross entropy over the case's texts, by name.
fn gradients(case: &Case, base: &Arc<Base>, artifact: &Artifact) -> BTreeMap<String, Vec<f32>> {
    let (spec, _) = espalier_testing::jobs::job(base, artifact.card.method.clone(), Hyperparameters::default(), 12);
    let spec = Spec { task: artifact.card.task.clone(), method: artifact.card.method.clone(), ..spec };
    let texts = case.expected["texts"].as_array().unwrap();
    espalier_testing::gradients::of(base, &spec, artifact.weights.clone(), texts, artifact.card.max_length)
}

#[test]
fn what_is_written_again_is_what_peft_wrote() {
    for case in cases() {
        let base = case.base();
        let files = Files::of(&case.import(&base), &Outline::of(&base)).unwrap();
        let read = |bytes: &[u8]| safetensors::read(bytes).unwrap();
        let theirs: BTreeMap<String, Tensor> = read(&case.files["adapter_model.safetensors"]);
        assert_eq!(read(&files.tensors), theirs, "{}", case.name());
        let (ours, theirs): (Value, Value) = (serde_json::from_slice(&files.config).unwrap(), case.config());
        // What decides how PEFT builds the adapter. Rules of modules may be worded otherwise; the tensors show what they mean.
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

//! Every method that PEFT has, against the real PEFT: what it saved is read, answers with its logits, has its gradients, and
//! is written again number by number under its keys. The files are made by `tests/peft/make_methods.py`;
//! `ESPALIER_PEFT_METHODS` and `ESPALIER_PEFT_MODEL` name others, made for another base.

mod support;

use espalier::adapter::Parameters;
use espalier::artifact::folder::Files;
use espalier::artifact::peft::weights;
use espalier::artifact::{self, Adapted, Artifact, ImportRequest, Outline, Settings, safetensors};
use espalier::compute::cpu::Cpu;
use espalier::compute::{Dropout, Tensor};
use espalier::model::{Base, Pooling};
use espalier::task::Input;
use espalier::task::targets::Targets;
use espalier::training::network::{Network, Source};
use espalier::training::{Hyperparameters, Spec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// Of a logit, and of a gradient relative to the largest of its tensor.
const TOLERANCE: f32 = 1e-4;

fn folder(variable: &str, committed: &str) -> PathBuf {
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(committed);
    std::env::var_os(variable).map_or_else(committed, PathBuf::from)
}

struct Case {
    path: PathBuf,
    expected: Value,
    /// By name: the two files of PEFT's folder.
    files: BTreeMap<String, Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let root = folder("ESPALIER_PEFT_METHODS", "peft-methods");
    let mut paths: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "every method has its case");
    paths.into_iter().map(case).collect()
}

fn case(path: PathBuf) -> Case {
    let expected = serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap();
    let mut archive = ::zip::ZipArchive::new(File::open(path.join("adapter.zip")).unwrap()).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        (name.to_string(), bytes)
    };
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(&mut read);
    Case { files: files.into(), path, expected }
}

impl Case {
    fn config(&self) -> Value {
        serde_json::from_slice(&self.files["adapter_config.json"]).unwrap()
    }

    fn base(&self) -> Arc<Base> {
        let name = self.config()["base_model_name_or_path"].as_str().unwrap().to_string();
        Arc::new(Base::load(&folder("ESPALIER_PEFT_MODEL", "tiny-bert"), &name, Arc::new(Cpu::best())).unwrap())
    }

    fn import(&self, base: &Base) -> Artifact {
        let temporary = tempfile::tempdir().unwrap();
        let max_length = Some(self.expected["max_length"].as_u64().unwrap() as usize);
        let request = ImportRequest { max_length, ..ImportRequest::default() };
        artifact::import(&self.path.join("adapter.zip"), &request, base, temporary.path(), &Settings::default())
            .unwrap()
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

fn input(item: &Value) -> Input {
    let text = |index: usize| item[index].as_str().map(str::to_string);
    Input { text: text(0).unwrap(), text_pair: text(1), tokens: None }
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
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
        let theirs = weights::from_peft(theirs, &artifact.card.method, &sites, base.info().hidden_size).unwrap();
        for (name, ours) in gradients(case, &base, &artifact) {
            let largest = theirs[&name].values.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
            let difference = largest_difference(&ours, &theirs[&name].values) / largest;
            assert!(difference < TOLERANCE, "{}: the gradient by {name} differs by {difference}", case.name());
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared} tensors were compared");
}

/// Of the summed cross entropy over the case's texts, by name.
fn gradients(case: &Case, base: &Arc<Base>, artifact: &Artifact) -> BTreeMap<String, Vec<f32>> {
    let (spec, _) = support::jobs::job(base, artifact.card.method.clone(), Hyperparameters::default(), 12);
    let spec = Spec { task: artifact.card.task.clone(), method: artifact.card.method.clone(), ..spec };
    let (network, built) = Network::build(base, &spec, Parameters::restore(artifact.weights.clone())).unwrap();
    let texts = case.expected["texts"].as_array().unwrap();
    let length = artifact.card.max_length;
    let token = |text: &Value| base.tokenizer().encode(text[0].as_str().unwrap(), None, length).map(Arc::new).unwrap();
    let labels: Vec<u32> = texts.iter().map(|text| text[1].as_u64().unwrap() as u32).collect();
    let dropout = Dropout { seed: 1, step: 0, examples: (0..labels.len() as u64).collect() };
    let targets = Targets::Classes { classes: labels, count: 3 };
    let parameters = network.upload(&built.tensors).unwrap();
    let source = Source::tokens(texts.iter().map(token).collect());
    let part = network.gradients(&parameters, &source, &targets, 1.0, dropout).unwrap();
    built.names.into_iter().zip(part.gradients).collect()
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
            "prefix_projection",
            "save_projection",
            "d_initial",
        ] {
            let is_projection = case.name() == "prefix-projected" && field == "prefix_projection";
            if ours.get(field).is_some() && theirs.get(field).is_some() && !is_projection {
                assert_eq!(ours[field], theirs[field], "{}: {field}", case.name());
            }
        }
    }
}

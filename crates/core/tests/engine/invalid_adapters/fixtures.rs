//! Valid adapter folders, the bases they were made for, and functions that damage them.

use espalier_core::artifact::{self, Artifact, ImportLimits, ImportRequest, safetensors, zip};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::Tensor;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_testing::folders::{read_zip, write_zip};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

pub type Files = BTreeMap<String, Vec<u8>>;

/// The folder that a case damages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Written by PEFT for the tiny BERT, by method.
    Peft(&'static str),
    /// PEFT's LoRA with RoBERTa's head.
    Roberta,
    /// PEFT's LoRA with DistilBERT's head.
    Distilbert,
    /// Written by AdapterHub, by case.
    AdapterHub(&'static str),
    /// A LoRA exported by this software.
    Native,
}

pub const SOURCES: [Source; 12] = [
    Source::Peft("lora-patterns"),
    Source::Peft("ia3"),
    Source::Peft("layer-norm"),
    Source::Peft("vera"),
    Source::Peft("prompt-tuning"),
    Source::Peft("p-tuning"),
    Source::Peft("prefix-tuning"),
    Source::Roberta,
    Source::Distilbert,
    Source::AdapterHub("houlsby"),
    Source::AdapterHub("upper"),
    Source::Native,
];

/// One way to damage a folder.
#[derive(Clone)]
pub struct Case {
    pub what: &'static str,
    pub source: Source,
    pub damage: fn(&mut Files),
    pub code: &'static str,
    /// Text that the error contains: the field or the tensor.
    pub expected_text: &'static str,
}

pub const fn case(
    what: &'static str,
    source: Source,
    damage: fn(&mut Files),
    code: &'static str,
    expected_text: &'static str,
) -> Case {
    Case { what, source, damage, code, expected_text }
}

pub struct Importers {
    bert: BaseModel,
    roberta: BaseModel,
    distilbert: BaseModel,
    native: Files,
}

impl Importers {
    pub fn new() -> Self {
        let load =
            |folder: &str, name: &str| BaseModel::load(&fixture(folder), name, Arc::new(CpuBackend::detect())).unwrap();
        let bert = load("tiny-bert", "example/tiny-bert");
        let native = exported(&bert);
        Self {
            bert,
            roberta: load("architectures/roberta", "example/tiny-roberta"),
            distilbert: load("architectures/distilbert", "example/tiny-distilbert"),
            native,
        }
    }

    pub fn files(&self, source: Source) -> Files {
        let open = |folder: String| read_zip(&fixture(&folder).join("adapter.zip"));
        match source {
            Source::Peft(method) => open(format!("peft-methods/{method}")),
            Source::Roberta => open("peft-methods-roberta/lora-patterns".to_string()),
            Source::Distilbert => open("peft-methods-distilbert/lora-patterns".to_string()),
            Source::AdapterHub(case) => open(format!("adapterhub/{case}")),
            Source::Native => self.native.clone(),
        }
    }

    pub fn import(&self, source: Source, files: &Files) -> Result<Artifact> {
        let base = match source {
            Source::Roberta => &self.roberta,
            Source::Distilbert => &self.distilbert,
            Source::Peft(_) | Source::AdapterHub(_) | Source::Native => &self.bert,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upload.zip");
        write_zip(files, &path);
        import(&path, base)
    }

    /// How the outcome of a case differs from the expected error.
    pub fn mismatch(&self, case: &Case) -> Option<String> {
        let mut files = self.files(case.source);
        (case.damage)(&mut files);
        if files == self.files(case.source) {
            return Some(format!("{}: nothing was damaged", case.what));
        }
        match self.import(case.source, &files) {
            Ok(_) => Some(format!("{}: it was accepted", case.what)),
            Err(Error::Invalid(problem))
                if problem.code == case.code && problem.detail.contains(case.expected_text) =>
            {
                None
            }
            Err(error) => Some(format!(
                "{}: {} {error}\n    expected {}: {}",
                case.what,
                error.code(),
                case.code,
                case.expected_text
            )),
        }
    }
}

fn import(path: &Path, base: &BaseModel) -> Result<Artifact> {
    let temporary = tempfile::tempdir().unwrap();
    artifact::import(path, &ImportRequest::default(), base, temporary.path(), &ImportLimits::default())
}

/// PEFT's LoRA, exported by this software.
fn exported(base: &BaseModel) -> Files {
    let mut artifact = import(&fixture("peft-tiny/adapter.zip"), base).unwrap();
    artifact.manifest.base.fingerprint = Some(base.info().fingerprint.clone());
    let folder = tempfile::tempdir().unwrap();
    let version =
        artifact::publish_artifact(&artifact, base, folder.path(), &folder.path().join("temporary")).unwrap().version;
    let path = folder.path().join("export.zip");
    zip::write_peft_zip(&folder.path().join(&version), &version, &json!({}), File::create(&path).unwrap()).unwrap();
    read_zip(&path)
}

/// Sets a field of a JSON file. `path` is separated by dots.
pub fn set(files: &mut Files, file: &str, path: &str, value: Value) {
    let mut root: Value = serde_json::from_slice(&files[file]).unwrap();
    let mut field = &mut root;
    for segment in path.split('.') {
        field = match segment.parse::<usize>() {
            Ok(index) => &mut field[index],
            Err(_) => &mut field[segment],
        };
    }
    *field = value;
    files.insert(file.to_string(), root.to_string().into_bytes());
}

/// Sets a field of `adapter_config.json`.
pub fn config(files: &mut Files, field: &str, value: Value) {
    set(files, "adapter_config.json", field, value);
}

/// Replaces every tensor whose key contains `part`.
pub fn tensors(files: &mut Files, part: &str, change: impl Fn(&str, Tensor) -> Vec<(String, Tensor)>) {
    let is_tensors = |name: &&String| name.ends_with(".safetensors");
    for file in files.keys().filter(is_tensors).cloned().collect::<Vec<_>>() {
        let all = safetensors::read(&files[&file]).unwrap();
        let changed = all.into_iter().flat_map(|(name, tensor)| match name.contains(part) {
            true => change(&name, tensor),
            false => vec![(name, tensor)],
        });
        files.insert(file, safetensors::write(&changed.collect()).unwrap());
    }
}

/// Removes every tensor whose key contains `part`.
pub fn remove(files: &mut Files, part: &str) {
    tensors(files, part, |_, _| Vec::new());
}

/// Removes the last row of every tensor whose key contains `part`.
pub fn shorten(files: &mut Files, part: &str) {
    tensors(files, part, |name, mut tensor| {
        let row = tensor.values.len() / tensor.shape[0];
        tensor.shape[0] -= 1;
        tensor.values.truncate(tensor.shape[0] * row);
        vec![(name.to_string(), tensor)]
    });
}

/// Adds a copy of every tensor whose key contains `part`, under another key.
pub fn add(files: &mut Files, part: &str, rename: impl Fn(&str) -> String) {
    tensors(files, part, |name, tensor| vec![(name.to_string(), tensor.clone()), (rename(name), tensor)]);
}

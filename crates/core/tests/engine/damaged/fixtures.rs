//! Whole folders, the bases they were made for, and tools to damage them.

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

/// What a folder was before it was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// PEFT's, of the tiny BERT, by method.
    Peft(&'static str),
    /// PEFT's LoRA with a head of the base's own.
    Roberta,
    Distilbert,
    /// AdapterHub's.
    Hub(&'static str),
    /// What this software wrote: a LoRA.
    Ours,
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
    Source::Hub("houlsby"),
    Source::Hub("upper"),
    Source::Ours,
];

/// One way to be wrong.
#[derive(Clone)]
pub struct Case {
    pub what: &'static str,
    pub source: Source,
    pub damage: fn(&mut Files),
    pub code: &'static str,
    /// The refusal must hold them: the field or the tensor.
    pub expected_text: &'static str,
}

pub const fn case(
    what: &'static str,
    from: Source,
    damage: fn(&mut Files),
    code: &'static str,
    words: &'static str,
) -> Case {
    Case { what, source: from, damage, code, expected_text: words }
}

pub struct Importers {
    bert: BaseModel,
    roberta: BaseModel,
    distilbert: BaseModel,
    ours: Files,
}

impl Importers {
    pub fn new() -> Self {
        let load =
            |folder: &str, name: &str| BaseModel::load(&fixture(folder), name, Arc::new(CpuBackend::detect())).unwrap();
        let bert = load("tiny-bert", "example/tiny-bert");
        let ours = exported(&bert);
        Self {
            bert,
            roberta: load("architectures/roberta", "example/tiny-roberta"),
            distilbert: load("architectures/distilbert", "example/tiny-distilbert"),
            ours,
        }
    }

    pub fn files(&self, source: Source) -> Files {
        let open = |folder: String| read_zip(&fixture(&folder).join("adapter.zip"));
        match source {
            Source::Peft(method) => open(format!("peft-methods/{method}")),
            Source::Roberta => open("peft-methods-roberta/lora-patterns".to_string()),
            Source::Distilbert => open("peft-methods-distilbert/lora-patterns".to_string()),
            Source::Hub(case) => open(format!("adapterhub/{case}")),
            Source::Ours => self.ours.clone(),
        }
    }

    pub fn import(&self, source: Source, files: &Files) -> Result<Artifact> {
        let base = match source {
            Source::Roberta => &self.roberta,
            Source::Distilbert => &self.distilbert,
            _ => &self.bert,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upload.zip");
        write_zip(files, &path);
        import(&path, base)
    }

    /// What is wrong with the refusal of a row.
    pub fn mismatch(&self, row: &Case) -> Option<String> {
        let mut files = self.files(row.source);
        (row.damage)(&mut files);
        if files == self.files(row.source) {
            return Some(format!("{}: nothing was damaged", row.what));
        }
        match self.import(row.source, &files) {
            Ok(_) => Some(format!("{}: it was accepted", row.what)),
            Err(Error::Invalid(problem)) if problem.code == row.code && problem.detail.contains(row.expected_text) => {
                None
            }
            Err(error) => Some(format!(
                "{}: {} {error}\n    expected {}: {}",
                row.what,
                error.code(),
                row.code,
                row.expected_text
            )),
        }
    }
}

fn import(path: &Path, base: &BaseModel) -> Result<Artifact> {
    let temporary = tempfile::tempdir().unwrap();
    artifact::import(path, &ImportRequest::default(), base, temporary.path(), &ImportLimits::default())
}

/// A LoRA of PEFT's as this software writes it, verified.
fn exported(base: &BaseModel) -> Files {
    let mut artifact = import(&fixture("peft-tiny/adapter.zip"), base).unwrap();
    artifact.manifest.base.fingerprint = Some(base.info().fingerprint.clone());
    let place = tempfile::tempdir().unwrap();
    let version =
        artifact::publish_artifact(&artifact, base, place.path(), &place.path().join("temporary")).unwrap().version;
    let path = place.path().join("export.zip");
    zip::write_peft_zip(&place.path().join(&version), &version, &json!({}), File::create(&path).unwrap()).unwrap();
    read_zip(&path)
}

/// Another value for a field of a JSON file; the path's parts are separated by dots.
pub fn set(files: &mut Files, file: &str, path: &str, value: Value) {
    let mut root: Value = serde_json::from_slice(&files[file]).unwrap();
    let mut place = &mut root;
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    files.insert(file.to_string(), root.to_string().into_bytes());
}

pub fn config(files: &mut Files, field: &str, value: Value) {
    set(files, "adapter_config.json", field, value);
}

/// Changes the tensors of the file that holds those whose keys contain `part`, each of them.
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

pub fn remove(files: &mut Files, part: &str) {
    tensors(files, part, |_, _| Vec::new());
}

/// One row or number fewer.
pub fn shorten(files: &mut Files, part: &str) {
    tensors(files, part, |name, mut tensor| {
        let row = tensor.values.len() / tensor.shape[0];
        tensor.shape[0] -= 1;
        tensor.values.truncate(tensor.shape[0] * row);
        vec![(name.to_string(), tensor)]
    });
}

/// Another tensor, beside those whose keys contain `part`.
pub fn add(files: &mut Files, part: &str, rename: impl Fn(&str) -> String) {
    tensors(files, part, |name, tensor| vec![(name.to_string(), tensor.clone()), (rename(name), tensor)]);
}

//! Cases: each file of the folder without settings, and some files with settings or on another base.

use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Base model that a file is checked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Encoder,
    Protein,
    Decoder,
    /// Decoder whose chat template has a place for tools, and which reads longer texts.
    DecoderWithTools,
}

pub struct Case {
    /// Place in the table.
    pub number: usize,
    pub file: String,
    /// Whether it is the first case of its file.
    pub is_first: bool,
    pub options: Value,
    pub base: Base,
}

/// Settings of further cases.
const SETTINGS: &[(&str, &str)] = &[
    ("01-excel-semicolon/decimal-comma-tab.tsv", r#"{"decimal": ","}"#),
    ("01-excel-semicolon/decimal-comma.csv", r#"{"decimal": ","}"#),
    ("02-encodings/cp1252.csv", r#"{"encoding": "windows-1252"}"#),
    ("02-encodings/latin1.csv", r#"{"encoding": "windows-1252"}"#),
    ("06-multi-label-forms/comma-in-label.csv", r#"{"columns": {"label": "label"}}"#),
    ("06-multi-label-forms/comma-in-label.csv", r#"{"columns": {"labels": "label"}}"#),
    ("02-encodings/shift-jis.csv", r#"{"encoding": "shift_jis"}"#),
    ("03-header-names/v1-v2.csv", r#"{"columns": {"text": "v2", "label": "v1"}}"#),
    ("06-multi-label-forms/integers-list.jsonl", r#"{"label_names": ["light", "heavy", "loud"]}"#),
    ("06-multi-label-forms/true-false-columns.csv", r#"{"label_names": ["a", "b", "c"]}"#),
    ("06-multi-label-forms/zeros-ones-list.jsonl", r#"{"label_names": ["light", "heavy", "loud"]}"#),
    ("06-multi-label-forms/one-hot-columns.csv", r#"{"label_names": ["billing", "delivery", "returns"]}"#),
    ("07-labels-column-of-ints/train.csv", r#"{"label_names": ["negative", "positive"]}"#),
    ("08-doccano/overlap-one-row.jsonl", r#"{"on_bad_rows": "skip"}"#),
    ("11-conll/hf-ner-tags-ints.jsonl", r#"{"label_names": ["O", "B-city", "I-city", "B-day"]}"#),
    ("13-na-labels/nan.jsonl", r#"{"on_bad_rows": "skip"}"#),
    ("17-sts/comma.tsv", r#"{"decimal": ","}"#),
    ("17-sts/hf-label.jsonl", r#"{"columns": {"score": "label"}}"#),
    ("18-regression/decimal-comma-semicolon.csv", r#"{"decimal": ","}"#),
    ("18-regression/dollar.csv", r#"{"decimal": "."}"#),
    ("18-regression/european-thousands.csv", r#"{"decimal": ","}"#),
    ("18-regression/european.csv", r#"{"decimal": ","}"#),
    ("18-regression/label-floats.csv", r#"{"columns": {"value": "label"}}"#),
    ("18-regression/percent.csv", r#"{"decimal": "."}"#),
    ("18-regression/stars.csv", r#"{"columns": {"text": "review", "value": "stars"}}"#),
    ("19-tsv-quotes/swallow.tsv", r#"{"quoting": "doubled"}"#),
    ("18-regression/euro.csv", r#"{"decimal": ","}"#),
    ("22-alpaca/text-only.jsonl", r#"{"task": {"type": "causal_language_model"}}"#),
    ("26-proteins/flip.csv", r#"{"split": "validation"}"#),
    ("29-other-files/kaggle-title-body.csv", r#"{"columns": {"text": "body"}}"#),
    ("29-other-files/split-column.csv", r#"{"split": "test"}"#),
];

/// Conversations that call tools: cases on a decoder whose template has a place for them.
const TOOLS: &[&str] = &[
    "21-sharegpt/tools.jsonl",
    "23-tool-calls/function-call-legacy.jsonl",
    "23-tool-calls/null-content.jsonl",
    "23-tool-calls/only-call-absent-content.jsonl",
    "23-tool-calls/only-call.jsonl",
    "23-tool-calls/tools-as-string.jsonl",
    "25-preference/openai-tools.jsonl",
];

/// Files of the folder that are no datasets.
const NO_DATASETS: [&str; 2] = ["make.py", "expected.md"];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/user-files")
}

/// Every file of the folder, with the cases that have settings.
pub fn all_cases() -> Vec<Case> {
    let files = files();
    let listed = SETTINGS.iter().map(|(file, _)| file).chain(TOOLS);
    listed.for_each(|file| assert!(files.contains(*file), "{file} is not in {}", folder().display()));
    let mut cases = Vec::new();
    for file in files {
        let base = Base::of(&file);
        let settings = SETTINGS.iter().filter(|(name, _)| *name == file).map(|(_, settings)| *settings);
        let with_settings = settings.map(|settings| (serde_json::from_str(settings).unwrap(), base));
        let with_tools = TOOLS.contains(&file.as_str()).then_some((json!({}), Base::DecoderWithTools));
        for (options, base) in [(json!({}), base)].into_iter().chain(with_settings).chain(with_tools) {
            let is_first = cases.last().is_none_or(|case: &Case| case.file != file);
            cases.push(Case { number: cases.len(), file: file.clone(), is_first, options, base });
        }
    }
    cases
}

/// Names of the files, with their folders.
fn files() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !entry.path().is_dir() {
            assert!(NO_DATASETS.contains(&name.as_str()), "{name} stands outside of the folders of files");
            continue;
        }
        for file in std::fs::read_dir(entry.path()).unwrap().map(Result::unwrap) {
            names.insert(format!("{name}/{}", file.file_name().into_string().unwrap()));
        }
    }
    names
}

impl Base {
    fn of(file: &str) -> Self {
        match file.split('-').next() {
            Some("21" | "22" | "23" | "25") => Self::Decoder,
            Some("26") => Self::Protein,
            _ => Self::Encoder,
        }
    }

    /// Folder of the base model; one that is made is written into `temporary`.
    pub fn folder(self, temporary: &Path) -> PathBuf {
        match self {
            Self::Encoder => fixture("tiny-bert"),
            Self::Protein => fixture("architectures").join("esm"),
            Self::Decoder => fixture("decoders").join("qwen3"),
            Self::DecoderWithTools => {
                write_decoder_with_template(&fixture("decoders").join("qwen3"), temporary, TEMPLATE);
                temporary.to_path_buf()
            }
        }
    }
}

/// Renders tools, and calls of tools.
const TEMPLATE: &str = "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}\
    {% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}\
    {% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Copies a decoder, with another chat template and room for long prompts.
pub fn write_decoder_with_template(source: &Path, target: &Path, template: &str) {
    for file in std::fs::read_dir(source).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
    }
    for (name, field, value) in [
        ("tokenizer_config.json", "chat_template", json!(template)),
        ("config.json", "max_position_embeddings", json!(2048)),
    ] {
        let path = target.join(name);
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[field] = value;
        std::fs::write(&path, config.to_string()).unwrap();
    }
}

impl Case {
    pub fn path(&self) -> PathBuf {
        folder().join(&self.file)
    }

    pub fn name(&self) -> &str {
        self.file.split_once('/').map_or(self.file.as_str(), |(_, name)| name)
    }

    pub fn has_settings(&self) -> bool {
        self.options != json!({})
    }

    /// Settings as they stand in the table.
    pub fn settings(&self) -> String {
        match (self.base, self.has_settings()) {
            (Base::DecoderWithTools, _) => "base with a template for tools".to_string(),
            (_, false) => String::new(),
            (_, true) => format!("`{}`", self.options),
        }
    }

    /// The settings as flags of the command line.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for (name, value) in self.options.as_object().unwrap() {
            let flag = format!("--{}", name.replace('_', "-"));
            let text = |value: &Value| value.as_str().unwrap().to_string();
            match name.as_str() {
                "columns" => flags.extend(value.as_object().unwrap().iter().flat_map(|(field, column)| {
                    ["--column".to_string(), format!("{field}={}", column.as_str().unwrap())]
                })),
                "label_names" => {
                    let names: Vec<String> = value.as_array().unwrap().iter().map(text).collect();
                    flags.extend([flag, names.join(",")]);
                }
                "task" => flags.extend([flag, text(&value["type"])]),
                _ => flags.extend([flag, text(value)]),
            }
        }
        flags
    }
}

//! Converts the flags of `train` into a job request. Flags that are not given are left out, so that the server's defaults apply.

use super::error::{CliError, CliResult};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Args)]
#[group(skip)]
#[command(next_help_heading = "Job")]
pub struct JobFlags {
    /// Name that refers to the newest adapter trained with it
    #[arg(long)]
    pub name: Option<String>,

    /// Adapter method: lora, ia3, prompt_tuning, p_tuning, prefix_tuning, bottleneck, bias, layer_norm, vera, head (only a head on
    /// the frozen features) or auto (successive halving over several methods) [default: chosen by the server]
    #[arg(long, value_name = "TYPE")]
    pub method: Option<String>,

    /// Adapter to initialize from: an id, a name or name@version; the job uses its method
    #[arg(long, value_name = "ADAPTER")]
    pub from_adapter: Option<String>,

    /// Rank of the adapter method
    #[arg(long)]
    pub rank: Option<u64>,

    /// Number of passes over the training examples
    #[arg(long)]
    pub epochs: Option<u64>,

    /// Learning rate of the optimizer
    #[arg(long)]
    pub learning_rate: Option<f64>,

    /// Number of examples per optimizer step
    #[arg(long)]
    pub batch_size: Option<u64>,

    /// Random seed; equal data, settings and seed give the same adapter, byte for byte
    #[arg(long)]
    pub seed: Option<u64>,

    /// Task: sequence_classification, regression, token_classification, embedding, masked_language_model,
    /// causal_language_model or preference [default: derived from the file's fields]
    #[arg(long, value_name = "TYPE")]
    pub task: Option<String>,

    /// Weights of the labels of a classification in the loss: balanced gives rare labels more
    #[arg(long, value_name = "WEIGHTS", value_parser = ["balanced"])]
    pub class_weights: Option<String>,

    /// Column of a field of the task, such as positive=duplicate; can be repeated
    #[arg(long = "column", value_name = "FIELD=COLUMN", value_parser = parse_column)]
    pub column_mappings: Vec<(String, String)>,

    /// Text column [default: text]
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,

    /// Label column [default: label]
    #[arg(long, value_name = "COLUMN")]
    pub label_column: Option<String>,

    /// Column of label sets, separated by semicolons; makes the task a multi-label classification
    #[arg(long, value_name = "COLUMN", conflicts_with = "label_column")]
    pub labels_column: Option<String>,

    /// Column of numbers; makes the task a regression
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["label_column", "labels_column"])]
    pub value_column: Option<String>,

    /// Names of the labels or tags that the file gives as numbers, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub label_names: Vec<String>,

    /// Character between the labels of a text with several [default: ";", or "|" or "," where parts of labels repeat]
    #[arg(long, value_name = "CHARACTER")]
    pub label_separator: Option<String>,

    /// Character before the fraction of the file's numbers
    #[arg(long, value_name = "CHARACTER", value_parser = [".", ","])]
    pub decimal: Option<String>,

    /// Rows to read of a file with a column split or set [default: train]
    #[arg(long, value_parser = ["train", "validation", "test"])]
    pub split: Option<String>,

    /// Share of the rows that is held out for validation, from 0 to 0.5; 0 trains on all of them [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub validation_fraction: Option<f64>,

    /// Prompt that the adapter continues after every epoch, for generative tasks; can be repeated
    #[arg(long = "sample", value_name = "PROMPT")]
    pub sample_prompts: Vec<String>,

    /// Format of the file, and of a validation file [default: found in its content]
    #[arg(long, value_parser = ["csv", "tsv", "jsonl", "json", "parquet", "xlsx", "conll", "fasta", "fasttext"])]
    pub format: Option<String>,

    /// Character between two columns, such as ";" or tab [default: found in the header]
    #[arg(long, value_name = "CHARACTER")]
    pub separator: Option<String>,

    /// Meaning of double quotes in a file with columns [default: found in the content]
    #[arg(long, value_parser = ["doubled", "backslash", "none"])]
    pub quoting: Option<String>,

    /// Encoding of the text, such as windows-1252 [default: utf-8, or utf-16 where the content shows it]
    #[arg(long, value_name = "NAME")]
    pub encoding: Option<String>,

    /// Handling of invalid rows [default: refuse]
    #[arg(long, value_enum)]
    pub on_bad_rows: Option<OnBadRows>,

    /// Place among your queued jobs, from -100 to 100: the job of the highest priority starts first [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub priority: Option<i32>,

    /// File with a job as JSON, as for POST /jobs; other flags override it
    #[arg(long = "job", value_name = "FILE")]
    pub job_file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OnBadRows {
    /// Reject the file and name every invalid row
    Refuse,
    /// Leave invalid rows out and count them
    Skip,
}

fn parse_column(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(field, column)| !field.is_empty() && !column.is_empty());
    let (field, column) = parts.ok_or("give the task's field and the file's column, as in positive=duplicate")?;
    Ok((field.to_string(), column.to_string()))
}

impl JobFlags {
    /// # Errors
    /// `InvalidInput` if the job file is not a JSON object.
    pub fn to_job_json(&self) -> CliResult<Map<String, Value>> {
        let mut job = self.read_job_file()?;
        set_path(&mut job, &["name"], self.name.as_ref().map(|name| json!(name)))?;
        if let Some(method) = &self.method {
            // Settings of another method would be unknown fields of this method.
            let is_same_method = job.get("method").is_some_and(|given| given["type"] == json!(method));
            if !is_same_method {
                job.insert("method".to_string(), json!({"type": method}));
            }
        }
        set_path(&mut job, &["task", "type"], self.task.as_ref().map(|task| json!(task)))?;
        if let Some(weights) = &self.class_weights {
            job.entry("task").or_insert_with(|| json!({"type": "sequence_classification"}));
            set_path(&mut job, &["task", "class_weights"], Some(json!(weights)))?;
        }
        for (field, column) in &self.column_mappings {
            set_path(&mut job, &["columns", field], Some(json!(column)))?;
        }
        set_path(&mut job, &["from_adapter"], self.from_adapter.as_ref().map(|adapter| json!(adapter)))?;
        if let Some(rank) = self.rank {
            job.entry("method").or_insert_with(|| json!({"type": "lora"}));
            set_path(&mut job, &["method", "rank"], Some(json!(rank)))?;
        }
        let integer = |value: Option<u64>| value.map(|value| json!(value));
        set_path(&mut job, &["hyperparameters", "epochs"], integer(self.epochs))?;
        set_path(&mut job, &["hyperparameters", "batch_size"], integer(self.batch_size))?;
        set_path(&mut job, &["hyperparameters", "seed"], integer(self.seed))?;
        set_path(&mut job, &["hyperparameters", "learning_rate"], self.learning_rate.map(|rate| json!(rate)))?;
        set_path(&mut job, &["columns", "text"], self.text_column.as_ref().map(|column| json!(column)))?;
        for (field, column) in
            [("label", &self.label_column), ("labels", &self.labels_column), ("value", &self.value_column)]
        {
            set_path(&mut job, &["columns", field], column.as_ref().map(|column| json!(column)))?;
        }
        let validation = self.validation_fraction.map(|share| json!({"fraction": share}));
        set_path(&mut job, &["validation"], validation)?;
        let label_names = Some(&self.label_names).filter(|names| !names.is_empty());
        set_path(&mut job, &["label_names"], label_names.map(|names| json!(names)))?;
        let samples = Some(&self.sample_prompts).filter(|samples| !samples.is_empty());
        set_path(&mut job, &["samples", "inputs"], samples.map(|samples| json!(samples)))?;
        for (field, value) in [
            ("format", &self.format),
            ("separator", &self.separator),
            ("quoting", &self.quoting),
            ("encoding", &self.encoding),
            ("label_separator", &self.label_separator),
            ("decimal", &self.decimal),
            ("split", &self.split),
        ] {
            set_path(&mut job, &[field], value.as_ref().map(|value| json!(value)))?;
        }
        let on_bad_rows = self.on_bad_rows.map(|choice| match choice {
            OnBadRows::Refuse => json!("refuse"),
            OnBadRows::Skip => json!("skip"),
        });
        set_path(&mut job, &["on_bad_rows"], on_bad_rows)?;
        set_path(&mut job, &["priority"], self.priority.map(|priority| json!(priority)))?;
        Ok(job)
    }

    fn read_job_file(&self) -> CliResult<Map<String, Value>> {
        let Some(path) = &self.job_file else { return Ok(Map::new()) };
        let file_error = |reason: String| CliError::invalid_input(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(job)) => Ok(job),
            Ok(_) => Err(file_error("this is not a JSON object, as POST /jobs takes it".to_string())),
            Err(error) => Err(file_error(format!("this is not JSON: {error}"))),
        }
    }
}

/// Sets a value at a path and creates missing objects on the way.
fn set_path(job: &mut Map<String, Value>, path: &[&str], value: Option<Value>) -> CliResult {
    let (Some(value), [name, rest @ ..]) = (value, path) else { return Ok(()) };
    if rest.is_empty() {
        job.insert(name.to_string(), value);
        return Ok(());
    }
    match job.entry(name.to_string()).or_insert_with(|| json!({})) {
        Value::Object(inner) => set_path(inner, rest, Some(value)),
        _ => Err(CliError::invalid_input(format!("\"{name}\" in the job's file is not an object"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        flags: JobFlags,
    }

    fn parse_job(flags: &[&str]) -> CliResult<Value> {
        TestCli::parse_from(["train"].iter().chain(flags)).flags.to_job_json().map(Value::Object)
    }

    fn temp_file_with(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn omitted_flags_are_left_to_the_server() {
        assert_eq!(parse_job(&[]).unwrap(), json!({}));
        let flags = ["--rank", "4", "--epochs", "2", "--label-column", "category", "--on-bad-rows", "skip"];
        let expected = json!({"method": {"type": "lora", "rank": 4}, "hyperparameters": {"epochs": 2},
            "columns": {"label": "category"}, "on_bad_rows": "skip"});
        assert_eq!(parse_job(&flags).unwrap(), expected);
        let flags = ["--task", "embedding", "--column", "positive=twin", "--column", "text=a=b"];
        let expected = json!({"task": {"type": "embedding"}, "columns": {"positive": "twin", "text": "a=b"}});
        assert_eq!(parse_job(&flags).unwrap(), expected);
        let flags = ["--format", "csv", "--separator", ";", "--quoting", "none", "--encoding", "windows-1252"];
        let expected = json!({"format": "csv", "separator": ";", "quoting": "none", "encoding": "windows-1252"});
        assert_eq!(parse_job(&flags).unwrap(), expected);
        let expected = json!({"samples": {"inputs": ["a", "b c"]}});
        assert_eq!(parse_job(&["--sample", "a", "--sample", "b c"]).unwrap(), expected);
        let flags = ["--label-names", "neg,pos", "--label-separator", "/", "--decimal", ",", "--split", "test"];
        let expected = json!({"label_names": ["neg", "pos"], "label_separator": "/", "decimal": ",", "split": "test"});
        assert_eq!(parse_job(&flags).unwrap(), expected);
        let expected = json!({"task": {"type": "sequence_classification", "class_weights": "balanced"}});
        assert_eq!(parse_job(&["--class-weights", "balanced"]).unwrap(), expected);
        let expected = json!({"validation": {"fraction": 0.25}});
        assert_eq!(parse_job(&["--validation-fraction", "0.25"]).unwrap(), expected);
        assert_eq!(parse_job(&["--priority", "-5"]).unwrap(), json!({"priority": -5}));
        assert_eq!(parse_job(&["--from-adapter", "a@01234567"]).unwrap(), json!({"from_adapter": "a@01234567"}));
    }

    #[test]
    fn flags_override_the_job_file() {
        let file =
            temp_file_with(r#"{"name": "a", "method": {"type": "lora", "alpha": 32}, "hyperparameters": {"seed": 1}}"#);
        let path = file.path().to_str().unwrap();
        let expected = json!({"name": "b", "method": {"type": "lora", "alpha": 32, "rank": 2},
            "hyperparameters": {"seed": 1, "epochs": 3}});
        assert_eq!(parse_job(&["--job", path, "--name", "b", "--rank", "2", "--epochs", "3"]).unwrap(), expected);
        assert_eq!(parse_job(&["--job", path, "--method", "head"]).unwrap()["method"], json!({"type": "head"}));
    }

    #[test]
    fn job_file_must_be_a_json_object() {
        for text in ["[]", "{", r#"{"hyperparameters": 3}"#] {
            let file = temp_file_with(text);
            let error = parse_job(&["--job", file.path().to_str().unwrap(), "--epochs", "1"]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }
}

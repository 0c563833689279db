//! `espalier predict`: predictions for texts, and their accuracy if the true labels are given.

mod inputs;
mod threshold;

use super::client::{Client, ClientArgs, encode_path_segment};
use super::error::{CliError, CliResult};
use super::output::Output;
use clap::Args;
use inputs::{ColumnNames, Input};
use serde_json::{Value, json};
use std::path::PathBuf;
use ureq::http::Uri;

/// Inputs per request, below the default limit of the server.
const BATCH_SIZE: usize = 128;
/// Number of embedding values shown.
const SHOWN_FEATURES: usize = 4;

#[derive(Args)]
pub struct PredictArgs {
    /// Texts to predict for
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    texts: Vec<String>,

    /// Adapter: an id, a name or name@version; by default the base model computes embeddings
    #[arg(long)]
    adapter: Option<String>,

    /// File of texts: .csv, .tsv or .jsonl with a text column, otherwise one text per line; - reads standard input
    #[arg(long)]
    file: Option<PathBuf>,

    /// Text column of the file
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    text_column: String,

    /// Column of the true labels; prints the accuracy instead of the predictions
    #[arg(long, value_name = "COLUMN", requires = "file")]
    label_column: Option<String>,

    /// Number of labels per text, most probable first
    #[arg(long, value_name = "N", default_value = "1")]
    top_k: u32,

    /// Probability from which labels are predicted, LABEL=PROBABILITY for that of one label (may be repeated), or "suggested" for the adapter's own; for adapters that choose one of two labels or any number of labels
    #[arg(long, value_name = "PROBABILITY")]
    threshold: Vec<String>,

    #[command(flatten)]
    remote: ClientArgs,
}

pub fn run(args: &PredictArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    let columns = ColumnNames { text: args.text_column.clone(), label: args.label_column.clone() };
    let inputs = match &args.file {
        Some(file) => inputs::read_inputs(file, &columns)?,
        None => args.texts.iter().map(Input::from_text).collect(),
    };
    let response = request_predictions(&client, args, &inputs)?;
    output.write_json(&response)?;
    let predictions = response["predictions"].as_array().map(Vec::as_slice).unwrap_or_default();
    match args.label_column {
        Some(_) => print_accuracy(&inputs, predictions, &mut output),
        None => predictions.iter().flat_map(format_prediction).try_for_each(|line| output.write_line(line)),
    }
}

/// Predicts in batches and merges the responses, in the order of the inputs.
fn request_predictions(client: &Client, args: &PredictArgs, inputs: &[Input]) -> CliResult<Value> {
    let path = predict_path(args.adapter.as_deref())?;
    let threshold = threshold::to_json(&args.threshold)?;
    let (mut adapter, mut predictions) = (Value::Null, Vec::with_capacity(inputs.len()));
    let mut batch_path = path.clone();
    for batch in inputs.chunks(BATCH_SIZE) {
        let texts: Vec<&str> = batch.iter().map(|input| input.text.as_str()).collect();
        let mut body = json!({"inputs": texts, "top_k": args.top_k});
        if let Some(threshold) = &threshold {
            body["threshold"] = threshold.clone();
        }
        let mut response = client.post(&batch_path, &body)?;
        match response["predictions"].take() {
            Value::Array(batch_predictions) if batch_predictions.len() == batch.len() => {
                predictions.extend(batch_predictions);
            }
            _ => return Err(CliError::failed("the server did not answer with one prediction per text")),
        }
        // Later batches use the version that answered the first, because the name may refer to another version by then.
        if let Some(id) = response["adapter"]["id"].as_str() {
            batch_path = format!("/predict?adapter={id}");
        }
        adapter = response["adapter"].take();
    }
    Ok(json!({"adapter": adapter, "predictions": predictions}))
}

fn predict_path(adapter: Option<&str>) -> CliResult<String> {
    let Some(adapter) = adapter else { return Ok("/predict".to_string()) };
    let path = format!("/predict?adapter={}", encode_path_segment(adapter));
    let is_valid = path.parse::<Uri>().is_ok() && !adapter.is_empty();
    is_valid
        .then_some(path)
        .ok_or_else(|| CliError::invalid_input(format!("\"{adapter}\" is not an adapter: give an id or a name")))
}

/// Formats a prediction as lines: `label <tab> score`, entities, a value, or the first values of an embedding.
fn format_prediction(prediction: &Value) -> Vec<String> {
    if let Some(features) = prediction["embedding"].as_array() {
        let leading: Vec<String> = features
            .iter()
            .take(SHOWN_FEATURES)
            .map(|feature| format!("{:.4}", feature.as_f64().unwrap_or(0.0)))
            .collect();
        return vec![format!("[{}, …] {} features", leading.join(", "), features.len())];
    }
    if let Some(value) = prediction["value"].as_f64() {
        return vec![format!("{value}")];
    }
    if let Some(entities) = prediction["entities"].as_array() {
        let formatted: Vec<String> = entities.iter().filter_map(format_entity).collect();
        return if formatted.is_empty() { vec!["(no entity)".to_string()] } else { formatted };
    }
    if let Some(fills) = prediction["fills"].as_array() {
        return fills.iter().map(format_mask_fill).collect();
    }
    let format_scored_label = |scored: &Value| {
        let (label, score) = (scored["label"].as_str()?, scored["score"].as_f64()?);
        Some(format!("{label}\t{score:.4}"))
    };
    if let Some(labels) = prediction["labels"].as_array() {
        let labels: Vec<String> = labels.iter().filter_map(format_scored_label).collect();
        return if labels.is_empty() { vec!["(no label)".to_string()] } else { labels };
    }
    let top = prediction["top"].as_array().map(Vec::as_slice).unwrap_or_default();
    let top_labels: Vec<String> = top.iter().filter_map(format_scored_label).collect();
    match top_labels.len() {
        0 | 1 => vec![format_scored_label(prediction).unwrap_or_else(|| prediction.to_string())],
        _ => top_labels,
    }
}

fn format_entity(entity: &Value) -> Option<String> {
    let (label, text, score) = (entity["label"].as_str()?, entity["text"].as_str()?, entity["score"].as_f64()?);
    Some(format!("{label}\t{text}\t{}-{}\t{score:.4}", entity["start"], entity["end"]))
}

/// Formats the tokens for one mask.
fn format_mask_fill(tokens: &Value) -> String {
    let format_token =
        |scored: &Value| Some(format!("{}\t{:.4}", scored["token"].as_str()?, scored["score"].as_f64()?));
    tokens.as_array().into_iter().flatten().filter_map(format_token).collect::<Vec<_>>().join("\t")
}

fn print_accuracy(inputs: &[Input], predictions: &[Value], output: &mut Output) -> CliResult {
    let is_correct = |(input, prediction): &(&Input, &Value)| prediction["label"].as_str() == input.label.as_deref();
    let correct = inputs.iter().zip(predictions).filter(is_correct).count();
    output.write_line(format!(
        "{correct} of {} labels are right: accuracy {:.4}",
        inputs.len(),
        correct as f64 / inputs.len() as f64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputFormat;
    use crate::cli::output::tests::captured_output;

    #[test]
    fn labels_are_formatted_with_scores() {
        let one = |label: &str, score: f64| json!({"label": label, "score": score});
        let mut prediction = one("card_arrival", 0.97125);
        assert_eq!(format_prediction(&prediction), ["card_arrival\t0.9712"]);
        prediction["top"] = json!([one("card_arrival", 0.97), one("pin", 0.02)]);
        assert_eq!(format_prediction(&prediction), ["card_arrival\t0.9700", "pin\t0.0200"]);
    }

    #[test]
    fn values_and_multi_labels_are_formatted() {
        assert_eq!(format_prediction(&json!({"value": 3.5})), ["3.5"]);
        assert_eq!(
            format_prediction(&json!({"labels": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.625}]})).len(),
            2
        );
        assert_eq!(format_prediction(&json!({"labels": []})), ["(no label)"]);
    }

    #[test]
    fn entities_are_shown_with_offsets() {
        let one = json!({"label": "city", "text": "Łódź", "start": 3, "end": 7, "score": 0.5});
        assert_eq!(format_prediction(&json!({"entities": [one]})), ["city\tŁódź\t3-7\t0.5000"]);
        assert_eq!(format_prediction(&json!({"entities": []})), ["(no entity)"]);
        let words = json!({"fills": [[{"token": "lost", "score": 0.5}, {"token": "new", "score": 0.25}], []]});
        assert_eq!(format_prediction(&words), ["lost\t0.5000\tnew\t0.2500", ""]);
    }

    #[test]
    fn embeddings_are_truncated() {
        let prediction = json!({"embedding": vec![0.125; 384]});
        assert_eq!(format_prediction(&prediction), ["[0.1250, 0.1250, 0.1250, 0.1250, …] 384 features"]);
    }

    #[test]
    fn accuracy_is_the_fraction_of_correct_labels() {
        let input = |label: &str| Input { text: String::new(), label: Some(label.to_string()) };
        let predictions = [json!({"label": "a"}), json!({"label": "b"})];
        let (mut output, people, _) = captured_output(OutputFormat::Human);
        print_accuracy(&[input("a"), input("a")], &predictions, &mut output).unwrap();
        assert_eq!(people.text(), "1 of 2 labels are right: accuracy 0.5000\n");
    }
}

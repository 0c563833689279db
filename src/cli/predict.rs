//! `espalier predict`: texts in, labels or features out; with the right labels at hand, how many were met.

use super::client::{Client, Remote};
use super::failure::{Failure, Outcome};
use super::inputs::{self, Columns, Input};
use super::output::Output;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use ureq::http::Uri;

/// Inputs of one request: fewer than any server's limit by default.
const BATCH: usize = 128;
/// Features of an embedding that are shown.
const SHOWN: usize = 4;

#[derive(Args)]
pub struct Predict {
    /// Texts to predict for
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    texts: Vec<String>,

    /// Adapter: an id, a name or name@version; without one the base answers with features
    #[arg(long)]
    adapter: Option<String>,

    /// File of texts: a column of .csv or .tsv, a field of .jsonl, else one a line; - is standard input
    #[arg(long)]
    file: Option<PathBuf>,

    /// Column of the texts in the file
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    text_column: String,

    /// Column of the right labels in the file: shows how many predictions agree
    #[arg(long, value_name = "COLUMN", requires = "file")]
    label_column: Option<String>,

    /// Labels per text, the most probable first
    #[arg(long, value_name = "N", default_value = "1")]
    top_k: u32,

    #[command(flatten)]
    remote: Remote,
}

pub fn run(predict: &Predict) -> Outcome {
    let (client, mut output) = (predict.remote.client()?, predict.remote.output());
    let columns = Columns { text: predict.text_column.clone(), label: predict.label_column.clone() };
    let inputs = match &predict.file {
        Some(file) => inputs::read(file, &columns)?,
        None => predict.texts.iter().map(Input::text).collect(),
    };
    let answer = ask(&client, predict, &inputs)?;
    output.result(&answer)?;
    let predictions = answer["predictions"].as_array().map(Vec::as_slice).unwrap_or_default();
    match predict.label_column {
        Some(_) => compare(&inputs, predictions, &mut output),
        None => predictions.iter().flat_map(lines).try_for_each(|line| output.line(line)),
    }
}

/// All answers as one, in the order of the inputs.
fn ask(client: &Client, predict: &Predict, inputs: &[Input]) -> Outcome<Value> {
    let path = path(predict.adapter.as_deref())?;
    let (mut adapter, mut predictions) = (Value::Null, Vec::with_capacity(inputs.len()));
    let mut reference = path.clone();
    for batch in inputs.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|input| input.text.as_str()).collect();
        let mut answer = client.post(&reference, &json!({"inputs": texts, "top_k": predict.top_k}))?;
        match answer["predictions"].take() {
            Value::Array(more) if more.len() == batch.len() => predictions.extend(more),
            _ => return Err(Failure::failed("the server did not answer with one prediction per text")),
        }
        // Later batches ask for the version that answered the first, though the name may point elsewhere by then.
        if let Some(id) = answer["adapter"]["id"].as_str() {
            reference = format!("/predict?adapter={id}");
        }
        adapter = answer["adapter"].take();
    }
    Ok(json!({"adapter": adapter, "predictions": predictions}))
}

fn path(adapter: Option<&str>) -> Outcome<String> {
    let Some(adapter) = adapter else { return Ok("/predict".to_string()) };
    let path = format!("/predict?adapter={}", super::client::segment(adapter));
    let known = path.parse::<Uri>().is_ok() && !adapter.is_empty();
    known
        .then_some(path)
        .ok_or_else(|| Failure::bad_input(format!("\"{adapter}\" is not an adapter: give an id or a name")))
}

/// A prediction as `label <tab> score` lines, entities, a value, or the first features of an embedding.
fn lines(prediction: &Value) -> Vec<String> {
    if let Some(features) = prediction["embedding"].as_array() {
        let first: Vec<String> =
            features.iter().take(SHOWN).map(|feature| format!("{:.4}", feature.as_f64().unwrap_or(0.0))).collect();
        return vec![format!("[{}, …] {} features", first.join(", "), features.len())];
    }
    if let Some(value) = prediction["value"].as_f64() {
        return vec![format!("{value}")];
    }
    if let Some(entities) = prediction["entities"].as_array() {
        let found: Vec<String> = entities.iter().filter_map(entity).collect();
        return if found.is_empty() { vec!["(no entity)".to_string()] } else { found };
    }
    if let Some(fills) = prediction["fills"].as_array() {
        return fills.iter().map(fill).collect();
    }
    let scored = |one: &Value| {
        let (label, score) = (one["label"].as_str()?, one["score"].as_f64()?);
        Some(format!("{label}\t{score:.4}"))
    };
    if let Some(labels) = prediction["labels"].as_array() {
        let labels: Vec<String> = labels.iter().filter_map(scored).collect();
        return if labels.is_empty() { vec!["(no label)".to_string()] } else { labels };
    }
    let top = prediction["top"].as_array().map(Vec::as_slice).unwrap_or_default();
    let several: Vec<String> = top.iter().filter_map(scored).collect();
    match several.len() {
        0 | 1 => vec![scored(prediction).unwrap_or_else(|| prediction.to_string())],
        _ => several,
    }
}

fn entity(one: &Value) -> Option<String> {
    let (label, text, score) = (one["label"].as_str()?, one["text"].as_str()?, one["score"].as_f64()?);
    Some(format!("{label}\t{text}\t{}-{}\t{score:.4}", one["start"], one["end"]))
}

/// The words for one mask.
fn fill(words: &Value) -> String {
    let word = |one: &Value| Some(format!("{}\t{:.4}", one["token"].as_str()?, one["score"].as_f64()?));
    words.as_array().into_iter().flatten().filter_map(word).collect::<Vec<_>>().join("\t")
}

fn compare(inputs: &[Input], predictions: &[Value], output: &mut Output) -> Outcome {
    let met = |(input, prediction): &(&Input, &Value)| prediction["label"].as_str() == input.label.as_deref();
    let met = inputs.iter().zip(predictions).filter(met).count();
    output.line(format!("{met} of {} labels are right: accuracy {:.4}", inputs.len(), met as f64 / inputs.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Form;
    use crate::cli::output::tests::kept;

    #[test]
    fn a_prediction_is_a_label_and_a_score_per_line() {
        let one = |label: &str, score: f64| json!({"label": label, "score": score});
        let mut prediction = one("card_arrival", 0.97125);
        assert_eq!(lines(&prediction), ["card_arrival\t0.9712"]);
        prediction["top"] = json!([one("card_arrival", 0.97), one("pin", 0.02)]);
        assert_eq!(lines(&prediction), ["card_arrival\t0.9700", "pin\t0.0200"]);
    }

    #[test]
    fn values_and_sets_of_labels_are_shown_as_they_are() {
        assert_eq!(lines(&json!({"value": 3.5})), ["3.5"]);
        assert_eq!(lines(&json!({"labels": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.625}]})).len(), 2);
        assert_eq!(lines(&json!({"labels": []})), ["(no label)"]);
    }

    #[test]
    fn entities_are_shown_with_their_places() {
        let one = json!({"label": "city", "text": "Łódź", "start": 3, "end": 7, "score": 0.5});
        assert_eq!(lines(&json!({"entities": [one]})), ["city\tŁódź\t3-7\t0.5000"]);
        assert_eq!(lines(&json!({"entities": []})), ["(no entity)"]);
        let words = json!({"fills": [[{"token": "lost", "score": 0.5}, {"token": "new", "score": 0.25}], []]});
        assert_eq!(lines(&words), ["lost\t0.5000\tnew\t0.2500", ""]);
    }

    #[test]
    fn features_are_shortened() {
        let prediction = json!({"embedding": vec![0.125; 384]});
        assert_eq!(lines(&prediction), ["[0.1250, 0.1250, 0.1250, 0.1250, …] 384 features"]);
    }

    #[test]
    fn accuracy_is_the_share_of_labels_that_agree() {
        let input = |label: &str| Input { text: String::new(), label: Some(label.to_string()) };
        let predictions = [json!({"label": "a"}), json!({"label": "b"})];
        let (mut output, people, _) = kept(Form::People);
        compare(&[input("a"), input("a")], &predictions, &mut output).unwrap();
        assert_eq!(people.text(), "1 of 2 labels are right: accuracy 0.5000\n");
    }
}

//! Files as users have them: what each is read as, what the report says of it, or why it is refused.

use super::*;
use crate::task::{Example, RowSchema, Target};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Counts each example as one token.
struct OneToken;

impl CountTokens for OneToken {
    fn count_tokens(&self, _example: &Example) -> Result<Vec<TokenCount>> {
        Ok(vec![TokenCount { tokens: 1, truncated: false }])
    }
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/user-files").join(file)
}

fn check(file: &str, settings: &Value) -> ValidatedDataset {
    let path = path(file);
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => "csv",
        Some("tsv") => "tsv",
        _ => "jsonl",
    };
    let mut options = json!({"format": format});
    options.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let options: Options = serde_json::from_value(options).unwrap();
    let limits = Limits { max_bytes: 1 << 24, max_rows: 1 << 20, max_record_bytes: 1 << 20, max_labels: 1000 };
    let schema = infer_schema(&path, &options, &RowSchema::DETECTABLE, &limits).unwrap();
    validate(&path, &options, &schema.default_task(), &OneToken, &limits).unwrap()
}

/// Checks that a file is read: as rows of a schema, this number of examples, and a report with these sentences.
#[track_caller]
fn assert_read(file: &str, settings: Value, schema: RowSchema, examples: u64, sentences: &[&str]) -> ValidatedDataset {
    let dataset = check(file, &settings);
    let report = &dataset.report;
    assert_eq!(report.error_count, 0, "{file}: {:?}", report.errors);
    assert_eq!(
        (report.target, report.examples),
        (schema, examples),
        "{file}: {:?} {:?}",
        report.mapping,
        report.left_out
    );
    for sentence in sentences {
        assert!(report.mapping.iter().any(|note| note.contains(sentence)), "{file}: {:?}", report.mapping);
    }
    dataset
}

/// Checks that a file is refused with one error for the file as a whole, or in `count` rows.
#[track_caller]
fn assert_refused(file: &str, settings: Value, count: u64, message: &str) {
    let report = check(file, &settings).report;
    assert_eq!(report.error_count, count, "{file}: {:?} {:?}", report.errors, report.mapping);
    assert!(report.errors[0].message.contains(message), "{file}: {}", report.errors[0].message);
}

fn label_names(dataset: &ValidatedDataset) -> Vec<&str> {
    dataset.report.labels.iter().map(|count| count.label.as_str()).collect()
}

fn messages(example: &Example) -> Value {
    match &example.target {
        Target::Conversation(conversation) => serde_json::to_value(&conversation.messages).unwrap(),
        Target::ConversationPreference { chosen, .. } => serde_json::to_value(&chosen.messages).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_of_columns() {
    for file in ["capital", "upper", "nbsp", "zero-width", "index", "unnamed-index"] {
        let dataset = assert_read(&format!("03-header-names/{file}.csv"), json!({}), RowSchema::Label, 20, &[]);
        assert_eq!(label_names(&dataset), ["neg", "pos"], "{file}");
    }
    let dataset = assert_read("03-header-names/unnamed-index.csv", json!({}), RowSchema::Label, 20, &[]);
    assert_eq!(dataset.report.unread_columns, ["Unnamed: 0.1", "Unnamed: 0"]);
    let sentences = ["`text` is read from \"sentence\"", "`label` is read from \"target\""];
    assert_read("03-header-names/sentence-target.csv", json!({}), RowSchema::Label, 20, &sentences);
    let mapped = json!({"columns": {"label": "TARGET "}});
    assert_read("03-header-names/sentence-target.csv", mapped, RowSchema::Label, 20, &sentences[..1]);
    let message =
        "the columns \"title\", \"body\" may each hold the text: choose one with `\"columns\": {\"text\": \"title\"}`";
    assert_refused("29-other-files/kaggle-title-body.csv", json!({}), 1, message);
    let message = "the first line seems to be a row";
    assert_refused("03-header-names/no-header.csv", json!({}), 1, message);
    assert_refused("03-header-names/no-header-numeric.csv", json!({}), 1, message);
    let message = "Likely is one of `\"columns\": {\"text\": \"review\", \"value\": \"stars\"}` (regression), `\"columns\": {\"text\": \
                   \"review\", \"label\": \"stars\"}` (classification)";
    assert_refused("18-regression/stars.csv", json!({}), 1, message);
    assert_read("15-tiny/few-shot-20x2.csv", json!({}), RowSchema::Label, 40, &[]);
    assert_refused("15-tiny/header-only.csv", json!({}), 1, "the file has no rows");
}

#[test]
fn several_labels() {
    for (file, sentence) in [
        ("good.jsonl", None),
        ("json-list-string.jsonl", None),
        ("python-list.csv", None),
        ("pipe.csv", Some("the labels in \"labels\" are separated by '|'")),
        ("comma.csv", Some("the labels in \"labels\" are separated by ','")),
    ] {
        let file = format!("06-multi-label-forms/{file}");
        let dataset = assert_read(&file, json!({}), RowSchema::Labels, 40, sentence.as_slice());
        let mut names = label_names(&dataset);
        names.sort_unstable();
        assert_eq!(names, ["billing", "delivery", "returns"], "{file}");
    }
    let joined = "06-multi-label-forms/comma-in-label.csv";
    assert_refused(
        joined,
        json!({}),
        1,
        "labels such as \"billing, delivery\" seem to be several labels, separated by ','",
    );
    assert_read(joined, json!({"columns": {"labels": "label"}}), RowSchema::Labels, 40, &["separated by ','"]);
    assert_read(joined, json!({"columns": {"label": "label"}}), RowSchema::Label, 40, &[]);
    let one_hot = "06-multi-label-forms/one-hot-columns.csv";
    assert_refused(one_hot, json!({}), 1, "`\"label_names\": [\"billing\", \"delivery\", \"returns\"]`");
    let names = json!({"label_names": ["billing", "delivery", "returns"]});
    let sentences =
        ["`text` is read from \"comment_text\"", "the labels of a row are those of the columns \"billing\""];
    let dataset = assert_read(one_hot, names, RowSchema::Labels, 40, &sentences);
    assert_eq!(dataset.report.unread_columns, ["id"]);
    assert_eq!(dataset.examples[0].target, Target::MultiLabel(vec!["billing".to_string(), "delivery".to_string()]));
}

#[test]
fn labels_that_are_numbers() {
    for file in ["train.csv", "train.jsonl"] {
        let file = format!("07-labels-column-of-ints/{file}");
        assert_read(&file, json!({}), RowSchema::Label, 40, &["`label` is read from \"labels\""]);
        let dataset = assert_read(&file, json!({"label_names": ["neg", "pos"]}), RowSchema::Label, 40, &[]);
        assert_eq!(label_names(&dataset), ["neg", "pos"]);
    }
    for (file, warnings) in
        [("case-variants.csv", 2), ("unicode-forms.csv", 2), ("mixed-kind.jsonl", 4), ("floats.csv", 0)]
    {
        let dataset = check(&format!("07-labels-column-of-ints/{file}"), &json!({}));
        let count = dataset.report.warning_counts.get("similar_labels").copied().unwrap_or_default();
        assert_eq!((dataset.report.error_count, count), (0, warnings), "{file}: {:?}", dataset.report.labels);
    }
    let unique = "so they hardly repeat, and a classifier cannot learn them: are they ";
    assert_refused("18-regression/label-floats.csv", json!({}), 1, &format!("{unique}values?"));
    assert_refused("18-regression/label-floats.jsonl", json!({}), 1, &format!("{unique}values?"));
    assert_refused("15-tiny/ids-as-labels.csv", json!({}), 1, &format!("{unique}ids?"));
    assert_refused("17-sts/hf-label.jsonl", json!({}), 1, "the labels are numbers such as \"3.8\"");
    let score = json!({"columns": {"score": "label"}});
    assert_read("17-sts/hf-label.jsonl", score, RowSchema::Score, 36, &["`text_pair` is read from \"sentence2\""]);
}

#[test]
fn exports_of_annotation_tools() {
    let offsets = [
        "entities-offsets",
        "entities-triples",
        "good",
        "label-triples",
        "labels-triples",
        "spacy",
        "spans-with-space",
    ];
    let expected = assert_read("08-doccano/good.jsonl", json!({}), RowSchema::Entities, 48, &[]).examples;
    for file in offsets {
        let dataset = assert_read(&format!("08-doccano/{file}.jsonl"), json!({}), RowSchema::Entities, 48, &[]);
        assert_eq!(dataset.examples, expected, "{file}");
    }
    let sentence = "`entities` is read from \"label\"";
    assert_read("09-label-studio/json-min.jsonl", json!({}), RowSchema::Entities, 48, &[sentence]);
    let csv =
        assert_read("09-label-studio/choices-csv.csv", json!({}), RowSchema::Label, 24, &["read from \"sentiment\""]);
    assert_eq!(csv.report.unread_columns, ["id", "annotator", "lead_time"]);
    let ner =
        assert_read("10-prodigy/ner.jsonl", json!({}), RowSchema::Entities, 0, &["`entities` is read from \"spans\""]);
    assert!(ner.report.left_out.contains_key("answer: reject"), "{:?}", ner.report.left_out);
    let binary =
        assert_read("10-prodigy/textcat-binary.jsonl", json!({}), RowSchema::Label, 40, &["\"not COMPLAINT\""]);
    assert_eq!(label_names(&binary), ["COMPLAINT", "not COMPLAINT"]);
    let choice =
        assert_read("10-prodigy/textcat-choice.jsonl", json!({}), RowSchema::Label, 40, &["read from \"accept\""]);
    assert_eq!(label_names(&choice), ["neg", "pos"]);
}

#[test]
fn tags_of_words() {
    let strings =
        assert_read("11-conll/hf-ner-tags-strings.jsonl", json!({}), RowSchema::Tags, 48, &["read from \"ner_tags\""]);
    let message = "`tags` holds numbers up to 3 in \"ner_tags\", and needs names: give the 4 names in their order";
    assert_refused("11-conll/hf-ner-tags-ints.jsonl", json!({}), 1, message);
    let names = json!({"label_names": ["O", "B-city", "I-city", "B-day"]});
    let integers = assert_read("11-conll/hf-ner-tags-ints.jsonl", names, RowSchema::Tags, 48, &[]);
    assert_eq!(integers.examples, strings.examples);
    let lists = assert_read("11-conll/stringified-lists.csv", json!({}), RowSchema::Tags, 48, &[]);
    assert_eq!(lists.examples[0].target, strings.examples[0].target);
}

#[test]
fn numbers() {
    for file in ["value.csv", "outlier.csv"] {
        assert_read(&format!("18-regression/{file}"), json!({}), RowSchema::Value, 240, &[]);
    }
    for (file, guess, decimal, first) in [
        ("dollar.csv", "`\"decimal\": \".\"` reads \"$588,523\" as 588523", ".", 588_523.0),
        ("european.csv", "`\"decimal\": \",\"` reads \"588.523,00\" as 588523", ",", 588_523.0),
        ("european-thousands.csv", "`\"decimal\": \",\"` reads \"588.523\" as 588523", ",", 588_523.0),
        ("european-thousands.csv", "`\"decimal\": \".\"` reads \"588.523\" as 588.523", ".", 588.523),
        ("percent.csv", "reads \"59%\" as 59", ".", 59.0),
    ] {
        let file = format!("18-regression/{file}");
        assert_refused(&file, json!({}), 1, guess);
        let dataset = assert_read(&file, json!({"decimal": decimal}), RowSchema::Value, 240, &[]);
        assert_eq!(dataset.examples[0].target, Target::Value(first), "{file}");
    }
    assert_refused("17-sts/comma.tsv", json!({}), 1, "`\"decimal\": \",\"` reads \"3,8\" as 3.8");
    assert_read("17-sts/comma.tsv", json!({"decimal": ","}), RowSchema::Score, 36, &[]);
    assert_read("17-sts/hf.csv", json!({}), RowSchema::Score, 36, &["`text` is read from \"sentence1\""]);
}

#[test]
fn pairs_of_texts() {
    assert_read(
        "17-sts/anchor-positive.jsonl",
        json!({}),
        RowSchema::Positive,
        24,
        &["`text` is read from \"anchor\""],
    );
    let pairs = assert_read(
        "17-sts/pair-label.csv",
        json!({}),
        RowSchema::Label,
        36,
        &["`text_pair` is read from \"sentence2\""],
    );
    assert_eq!(label_names(&pairs).len(), 2);
    let sentences =
        ["`text` is read from \"query\"", "`negative` is read from \"neg\"", "`positive` is read from \"pos\""];
    let lists = assert_read("17-sts/query-pos-neg-lists.jsonl", json!({}), RowSchema::Positive, 24, &sentences);
    let Target::Positive { positive, negative } = &lists.examples[0].target else { panic!() };
    assert_eq!(
        (positive.as_str(), negative.as_deref()),
        ("Someone is playing an instrument", Some("something unrelated"))
    );
    assert_refused("17-sts/stsb-no-header.tsv", json!({}), 1, "the first line seems to be a row");
}

#[test]
fn splits() {
    let file = "29-other-files/split-column.csv";
    let train = assert_read(
        file,
        json!({}),
        RowSchema::Label,
        30,
        &["\"split\" divides the rows: those of the split train are read"],
    );
    assert_eq!(train.report.left_out, [("split: test".to_string(), 10)].into());
    assert_read(file, json!({"split": "test"}), RowSchema::Label, 10, &["those of the split test are read"]);
    assert_refused(
        file,
        json!({"split": "validation"}),
        1,
        "rows are left out for split: test (10), split: train (30)",
    );
    assert_refused("15-tiny/few-shot-20x2.csv", json!({"split": "train"}), 1, "a split is requested, and no column");
    let sentences =
        ["`text` is read from \"sequence\"", "`value` is read from \"target\"", "\"set\" with \"validation\" divides"];
    let flip = assert_read("26-proteins/flip.csv", json!({}), RowSchema::Value, 39, &sentences);
    assert_eq!(flip.report.left_out, [("split: test".to_string(), 12), ("split: validation".to_string(), 9)].into());
    assert_read("26-proteins/flip.csv", json!({"split": "validation"}), RowSchema::Value, 9, &[]);
}

#[test]
fn conversations() {
    let good = assert_read("21-sharegpt/good.jsonl", json!({}), RowSchema::Messages, 12, &[]);
    let sharegpt =
        assert_read("21-sharegpt/train.jsonl", json!({}), RowSchema::Messages, 12, &["read from \"conversations\""]);
    assert_eq!(messages(&sharegpt.examples[0]), messages(&good.examples[0]));
    assert_eq!(sharegpt.report.unread_columns, ["id"]);
    for file in ["conversation-roles.jsonl", "messages-as-string.jsonl", "messages-in.csv"] {
        let dataset = assert_read(&format!("21-sharegpt/{file}"), json!({}), RowSchema::Messages, 3, &[]);
        assert_eq!(messages(&dataset.examples[0])[1]["role"], "assistant", "{file}");
    }
    let tools = assert_read("21-sharegpt/tools.jsonl", json!({}), RowSchema::Messages, 3, &[]);
    let calls = messages(&tools.examples[0])[1]["tool_calls"].clone();
    assert_eq!(calls, json!([{"type": "function", "function": {"name": "look", "arguments": {}}}]));
    for file in [
        "developer-role",
        "function-call-legacy",
        "null-content",
        "only-call",
        "only-call-absent-content",
        "tools-as-string",
        "weights",
    ] {
        assert_read(&format!("23-tool-calls/{file}.jsonl"), json!({}), RowSchema::Messages, 3, &[]);
    }
    assert_read("23-tool-calls/text-parts.jsonl", json!({}), RowSchema::Messages, 2, &[]);
    let odd = assert_read("23-tool-calls/odd-role.jsonl", json!({}), RowSchema::Messages, 3, &[]);
    assert_eq!(messages(&odd.examples[0])[1]["role"], "assistant");
    assert_refused(
        "23-tool-calls/image-part.jsonl",
        json!({}),
        2,
        "a part of the type \"image_url\": only text is read",
    );
    assert_refused("23-tool-calls/plain-null.jsonl", json!({}), 1, "message 2 has no content");
    assert_refused("23-tool-calls/weight-half.jsonl", json!({}), 3, "the `weight` of message 2 has to be 0 or 1");
}

#[test]
fn instructions() {
    let sentences = [
        "`prompt` is read from \"instruction\"",
        "`completion` is read from \"output\"",
        "\"input\" follows the prompt of its row, after a blank line",
    ];
    let alpaca = assert_read("22-alpaca/spell.jsonl", json!({}), RowSchema::Completion, 8, &sentences);
    assert_eq!(alpaca.examples[0].text, "Spell the word backwards.\n\nlamp");
    let mapped = json!({"columns": {"prompt": "instruction", "completion": "output"}});
    assert_read("22-alpaca/spell.jsonl", mapped, RowSchema::Completion, 8, &sentences[2..]);
    let alpaca = assert_read("22-alpaca/train.jsonl", json!({}), RowSchema::Completion, 5, &sentences);
    assert_eq!(alpaca.examples[0].text, "What does the tide table show?");
    assert_read(
        "22-alpaca/question-answer.csv",
        json!({}),
        RowSchema::Completion,
        3,
        &["`prompt` is read from \"question\""],
    );
    assert_refused("22-alpaca/null-output.jsonl", json!({}), 1, "a null for \"completion\"");
    assert_refused("22-alpaca/text-only.jsonl", json!({}), 1, "no object has a field \"label\"");
    let system = assert_read(
        "25-preference/system-column.jsonl",
        json!({}),
        RowSchema::Completion,
        3,
        &["\"system\" is the system message"],
    );
    let expected = json!([{"role": "system", "content": "Answer like a pirate.", "weight": 0},
        {"role": "user", "content": "What does the tide table show?", "weight": 0},
        {"role": "assistant", "content": "High and low water for each day."}]);
    assert_eq!(messages(&system.examples[0]), expected);
}

#[test]
fn preferences() {
    let openai = assert_read(
        "25-preference/openai.jsonl",
        json!({}),
        RowSchema::Chosen,
        3,
        &["`chosen` is read from \"preferred_output\""],
    );
    let expected = json!([{"role": "user", "content": "What does the tide table show?", "weight": 0},
        {"role": "assistant", "content": "High and low water for each day."}]);
    assert_eq!(messages(&openai.examples[0]), expected);
    let orca =
        assert_read("25-preference/orca.jsonl", json!({}), RowSchema::Chosen, 3, &["\"system\" is the system message"]);
    assert_eq!(messages(&orca.examples[0])[0]["content"], "Be brief.");
    let scores = assert_read("25-preference/ultrafeedback.jsonl", json!({}), RowSchema::Chosen, 3, &[]);
    assert_eq!(scores.report.unread_columns, ["prompt_id", "score_chosen", "score_rejected"]);
}

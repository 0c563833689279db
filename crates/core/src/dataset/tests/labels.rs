//! Labels, tags and entities of users' files.

use super::*;

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
    let codes = "06-multi-label-forms/icd-codes.csv";
    assert_refused(
        codes,
        json!({}),
        1,
        "`\"label_separator\": \",\"` reads \"J18.9, R05\" as 2 labels, `\"label_separator\": \";\"` as one",
    );
    for (separator, expected) in
        [(",", &["J18.9", "R05", "R91.1", "Z00.0"][..]), (";", &["J18.9, R05", "R91.1", "Z00.0"])]
    {
        let dataset = assert_read(codes, json!({"label_separator": separator}), RowSchema::Labels, 24, &[]);
        let mut names = label_names(&dataset);
        names.sort_unstable();
        assert_eq!(names, expected);
    }
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
        [("case-variants.csv", 1), ("unicode-forms.csv", 1), ("mixed-kind.jsonl", 1), ("floats.csv", 0)]
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
    let offsets = ["entities-offsets", "entities-triples", "good", "label-triples", "labels-triples", "spacy"];
    let expected = assert_read("08-doccano/good.jsonl", json!({}), RowSchema::Entities, 48, &[]).examples;
    for file in offsets {
        let dataset = assert_read(&format!("08-doccano/{file}.jsonl"), json!({}), RowSchema::Entities, 48, &[]);
        assert_eq!(dataset.examples, expected, "{file}");
    }
    assert_read("08-doccano/spans-with-space.jsonl", json!({}), RowSchema::Entities, 48, &[]);
    assert_refused("08-doccano/overlap-one-row.jsonl", json!({}), 1, "has a word in common with another");
    let sentence = "`entities` is read from \"label\"";
    for (file, sentence) in
        [("json-min.jsonl", sentence), ("json-min.json", sentence), ("full.json", "read from \"result\"")]
    {
        let dataset = assert_read(&format!("09-label-studio/{file}"), json!({}), RowSchema::Entities, 48, &[sentence]);
        assert_eq!(dataset.examples, expected, "{file}");
    }
    let csv =
        assert_read("09-label-studio/choices-csv.csv", json!({}), RowSchema::Label, 24, &["read from \"sentiment\""]);
    assert_eq!(csv.report.unread_columns, ["id", "annotator", "lead_time"]);
    let ner =
        assert_read("10-prodigy/ner.jsonl", json!({}), RowSchema::Entities, 36, &["`entities` is read from \"spans\""]);
    assert!(ner.report.left_out.contains_key("answer: reject"), "{:?}", ner.report.left_out);
    let without =
        "{\"text\": \"Book Riga\", \"spans\": [{\"start\": 5, \"end\": 9, \"label\": \"CITY\"}]}\n{\"text\": \"a\"}\n";
    assert_eq!(outcome("jsonl", without, json!({})), (2, vec![], vec![]));
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
fn lists_of_numbers_need_names() {
    // A number that is larger than any index.
    let report = check_text("jsonl", "{\"tokens\": [\"a\"], \"tags\": [1e300]}\n", &json!({})).report;
    assert_eq!(report.errors[0].code, "label_names");
    let indicators = "{\"text\": \"a\", \"labels\": [1, 0]}\n{\"text\": \"b\", \"labels\": [1, 1]}\n";
    let (_, errors, _) = outcome("jsonl", indicators, json!({}));
    assert!(errors[0].contains("holds lists of 2 zeros and ones in \"labels\", and needs names"), "{errors:?}");
    let dataset = check_text("jsonl", indicators, &json!({"label_names": ["x", "y"]}));
    assert_eq!(dataset.examples[1].target, Target::MultiLabel(vec!["x".to_string(), "y".to_string()]));
    let indices = "text,label\na,0\nb,1\nc,2\n";
    let (examples, errors, _) = outcome("csv", indices, json!({"label_names": ["x", "y"]}));
    assert_eq!((examples, errors.len()), (2, 1));
    assert!(errors[0].contains("`label_names` has 2 names, for the numbers from 0 to 1"), "{errors:?}");
    let (_, errors, _) = outcome("csv", "text,value\na,1\nb,2\n", json!({"label_names": ["x"]}));
    assert!(errors[0].contains("`label_names` is for labels and tags"), "{errors:?}");
    let (_, errors, _) = outcome("csv", indices, json!({"label_names": ["x", "x"]}));
    assert!(errors[0].contains("has \"x\" twice"), "{errors:?}");
}

#[test]
fn sets_of_one_label_are_noted() {
    let lists = "{\"text\": \"a\", \"labels\": [\"x\"]}\n{\"text\": \"b\", \"labels\": [\"y\"]}\n";
    let report = check_text("jsonl", lists, &json!({})).report;
    assert!(
        report.mapping[0].starts_with("every row has exactly one label: `\"columns\": {\"label\": \"labels\"}`"),
        "{report:?}"
    );
    let single = check_text("jsonl", lists, &json!({"columns": {"label": "labels"}}));
    assert_eq!(single.examples[0].target, Target::Label("x".to_string()));
    let several = lists.replace("[\"y\"]", "[\"y\", \"z\"]");
    let (examples, errors, _) = outcome("jsonl", &several, json!({"columns": {"label": "labels"}}));
    assert!(examples == 1 && errors.iter().any(|error| error.contains("`label` is a list of 2 labels")), "{errors:?}");
}

//! Names of columns, numbers, pairs of texts and splits of users' files.

use super::*;

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
    let message = "The first line seems to be a row";
    assert_refused("03-header-names/no-header.csv", json!({}), 1, message);
    assert_refused("03-header-names/no-header-numeric.csv", json!({}), 1, message);
    let message = "Likely is one of `\"columns\": {\"text\": \"review\", \"value\": \"stars\"}` (regression), `\"columns\": {\"text\": \
                   \"review\", \"label\": \"stars\"}` (classification)";
    assert_refused("18-regression/stars.csv", json!({}), 1, message);
    assert_read("15-tiny/few-shot-20x2.csv", json!({}), RowSchema::Label, 40, &[]);
    assert_refused("15-tiny/header-only.csv", json!({}), 1, "the file has no rows");
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
    assert_refused("17-sts/stsb-no-header.tsv", json!({}), 1, "The first line seems to be a row");
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
    assert_read(file, json!({"split": "test"}), RowSchema::Label, 10, &[]);
    assert_refused(
        file,
        json!({"split": "validation"}),
        1,
        "rows are left out for split: test (10), split: train (30)",
    );
    assert_refused("15-tiny/few-shot-20x2.csv", json!({"split": "train"}), 1, "a split is requested, and no column");
    let sentences =
        ["`text` is read from \"sequence\"", "`value` is read from \"target\"", "\"set\" with \"validation\" divides"];
    let flip = assert_read("26-proteins/flip.csv", json!({}), RowSchema::Value, 41, &sentences);
    assert_eq!(flip.report.left_out, [("split: test".to_string(), 12), ("split: validation".to_string(), 7)].into());
    assert_read("26-proteins/flip.csv", json!({"split": "validation"}), RowSchema::Value, 7, &[]);
}

#[test]
fn columns_that_leave_rows_out() {
    let left_out = |reason: &str, count: u64| vec![(reason.to_string(), count)];
    let kto = r#"{"prompt": "a", "completion": "b", "label": true}
{"prompt": "a", "completion": "c", "label": false}"#;
    assert_eq!(outcome("jsonl", kto, json!({})), (1, vec![], left_out("label: false", 1)));
    let weighted = "text,label,weight\na,x,1\nb,y,0\nc,y,1.0\n";
    assert_eq!(outcome("csv", weighted, json!({})), (2, vec![], left_out("weight: 0", 1)));
    let (_, errors, _) = outcome("csv", "text,label,sample_weight\na,x,0.5\nb,y,2\n", json!({}));
    assert!(errors.len() == 1 && errors[0].contains("\"sample_weight\" seems to weigh the rows"), "{errors:?}");
    let answers = "text,label,answer\na,x,accept\nb,y,reject\nc,y,accept\nd,x,ignore\n";
    let reasons = vec![("answer: ignore".to_string(), 1), ("answer: reject".to_string(), 1)];
    assert_eq!(outcome("csv", answers, json!({})), (2, vec![], reasons));
    // Columns of these names with other values are only listed.
    let other = "text,label,split,answer\na,x,left,yes\nb,y,right,no\n";
    assert_eq!(check_text("csv", other, &json!({})).report.unread_columns, ["split", "answer"]);
    // A row without a split after rows with one is an error.
    let rows: String = (0..1001).map(|row| format!("text {row},{},train\n", row % 2)).collect();
    let (examples, errors, _) = outcome("csv", &format!("text,label,split\n{rows}last,1,maybe\n"), json!({}));
    assert_eq!((examples, errors.len()), (1001, 1));
    assert!(errors[0].contains("the split is \"maybe\""), "{errors:?}");
}

#[test]
fn unsupported_columns_are_refused_by_name() {
    let history = r#"{"instruction": "a", "output": "b", "history": [["c", "d"]]}"#;
    let (_, errors, _) = outcome("jsonl", history, json!({}));
    assert!(errors[0].contains("the column \"history\" is not supported"), "{errors:?}");
    let empty = r#"{"instruction": "a", "output": "b", "history": []}"#;
    assert_eq!(outcome("jsonl", empty, json!({})).0, 1);
    let images = r#"{"messages": [{"role": "user", "content": "a"}], "images": ["a.png"]}"#;
    let (_, errors, _) = outcome("jsonl", images, json!({}));
    assert!(errors[0].contains("\"images\" is not supported: only text is read"), "{errors:?}");
    assert_refused("11-conll/word-per-row.csv", json!({}), 1, "the file seems to have a row for each word");
}

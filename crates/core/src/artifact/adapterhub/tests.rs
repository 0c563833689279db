//! What AdapterHub has no word for stays with PEFT's form; settings that are not computed are named. The numbers against the
//! real package are in `tests/adapterhub.rs`.

use super::*;
use crate::adapter::bottleneck;
use crate::artifact::testing;
use crate::model::Pooling;
use crate::task::{self, regression, sequence_classification};

/// A bottleneck of four numbers with its head.
fn bottleneck(pooling: Pooling) -> Artifact {
    let outline = testing::outline();
    let method = bottleneck::Config { reduction_factor: Some(8.0), ..bottleneck::Config::default() };
    let method = method.resolve(outline.sites(pooling)).unwrap();
    let mut artifact = testing::head(pooling);
    for entry in keys::of(&method, outline.sites(pooling), "one") {
        let count = entry.shape.iter().product();
        artifact.weights.insert(entry.name, Tensor::new(entry.shape, vec![0.5; count]));
    }
    artifact.card.method = adapter::Config::Bottleneck(method);
    artifact
}

fn written() -> Files {
    Files::of(&bottleneck(Pooling::First), &testing::outline(), "one").unwrap()
}

fn refusal(files: &Files) -> (&'static str, String) {
    let Err(error) = files.open(&testing::outline()) else { panic!("it should be refused") };
    (error.code(), error.to_string())
}

/// With another value under `config`.
fn with(bytes: &[u8], field: &str, value: Value) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(bytes).unwrap();
    file["config"][field] = value;
    file.to_string().into_bytes()
}

#[test]
fn what_is_written_is_read_again() {
    for pooling in [Pooling::First, Pooling::Cls] {
        let artifact = bottleneck(pooling);
        let opened = Files::of(&artifact, &testing::outline(), "one").unwrap().open(&testing::outline()).unwrap();
        assert_eq!(opened.weights, artifact.weights);
        assert_eq!((opened.head.task(), opened.head.labels), (artifact.card.task, Some(artifact.card.labels)));
        assert_eq!(adapter::Config::Bottleneck(opened.config.method), artifact.card.method);
    }
}

#[test]
fn what_adapterhub_has_no_word_for_is_not_written() {
    let outline = testing::outline();
    let mut regression = bottleneck(Pooling::First);
    regression.card.task = task::Config::Regression(regression::Config { pooling: Some(Pooling::First), head: None });
    let mut distilbert = outline.clone();
    distilbert.info.model_type = "distilbert".to_string();
    let cases = [
        (bottleneck(Pooling::Mean), &outline, "the mean of a sequence"),
        (testing::lora(Pooling::First), &outline, "the method lora"),
        (regression, &outline, "the task regression"),
        (bottleneck(Pooling::First), &distilbert, "distilbert"),
    ];
    for (artifact, outline, words) in cases {
        let error = Files::of(&artifact, outline, "one").unwrap_err();
        assert_eq!(error.code(), "unsupported_format");
        assert!(error.to_string().contains(words), "{error} should say {words}");
    }
}

#[test]
fn every_setting_that_is_not_computed_is_named() {
    let cases = [
        ("ln_before", json!(true), "config.ln_before is true, expected false"),
        ("ln_after", json!(true), "config.ln_after is true, expected false"),
        ("original_ln_after", json!(false), "config.original_ln_after is false, expected true"),
        ("adapter_residual_before_ln", json!(true), "config.adapter_residual_before_ln"),
        ("residual_before_ln", json!(false), "config.residual_before_ln is false"),
        ("residual_before_ln", json!("post_add"), "config.residual_before_ln is \"post_add\""),
        ("cross_adapter", json!(true), "config.cross_adapter"),
        ("use_gating", json!(true), "config.use_gating"),
        ("phm_layer", json!(true), "config.phm_layer"),
        ("inv_adapter", json!("nice"), "config.inv_adapter is \"nice\""),
        ("stochastic_depth", json!(0.1), "config.stochastic_depth is 0.1"),
        ("output_adapter", json!(false), "config.output_adapter"),
        ("mh_adapter", json!(true), "config.mh_adapter true"),
        ("original_ln_before", json!(false), "config.original_ln_before false"),
        ("non_linearity", json!("leakyrelu"), "config.non_linearity is \"leakyrelu\""),
        ("scaling", json!("learned"), "config.scaling is \"learned\""),
        ("reduction_factor", json!({"0": 8, "default": 16}), "config.reduction_factor must be one number"),
        ("leave_out", json!([0, 1]), "config.leave_out leaves no layer"),
        ("architecture", json!("lora"), "config.architecture is \"lora\""),
        ("x_new", json!(1), "config.x_new is not known here"),
    ];
    for (field, value, words) in cases {
        let files = Files { config: with(&written().config, field, value), ..written() };
        let (code, detail) = refusal(&files);
        assert_eq!(code, "unsupported_adapter", "{field}");
        assert!(detail.contains(words), "{detail} should say {words}");
    }
}

#[test]
fn heads_that_are_not_computed_are_named() {
    let cases = [
        ("head_type", json!("tagging"), "unsupported_adapter", "config.head_type is \"tagging\""),
        ("layers", json!(3), "unsupported_adapter", "config.layers must be 1 or 2"),
        ("bias", json!(false), "unsupported_adapter", "config.bias is false"),
        ("num_labels", json!(1), "unsupported_adapter", "config.num_labels"),
        (
            "label2id",
            json!({"a": 1, "b": 2, "c": 3}),
            "unreadable_adapter",
            "config.label2id must name the numbers 0 to 2",
        ),
        ("x_new", json!(1), "unsupported_adapter", "config.x_new is not known here"),
    ];
    for (field, value, code, words) in cases {
        let files = Files { head_config: with(&written().head_config, field, value), ..written() };
        let (found, detail) = refusal(&files);
        assert_eq!(found, code, "{field}");
        assert!(detail.contains(words), "{detail} should say {words}");
    }
    let mut roberta = testing::outline();
    roberta.info.model_type = "roberta".to_string();
    let theirs = Files::of(&bottleneck(Pooling::First), &roberta, "one").unwrap();
    let pooled = Files { head_config: with(&theirs.head_config, "use_pooler", json!(true)), ..theirs };
    assert!(pooled.open(&roberta).err().unwrap().to_string().contains("config.use_pooler is true"));
    let two = with(&with(&written().head_config, "layers", json!(2)), "activation_function", json!("mish"));
    assert!(refusal(&Files { head_config: two, ..written() }).1.contains("config.activation_function is \"mish\""));
    let sets = with(&written().head_config, "head_type", json!("multilabel_classification"));
    let opened = Files { head_config: sets, ..written() }.open(&testing::outline()).unwrap();
    let task::Config::SequenceClassification(sequence_classification::Config { multi_label, .. }) = opened.head.task()
    else {
        panic!("a classification was expected")
    };
    assert!(multi_label);
}

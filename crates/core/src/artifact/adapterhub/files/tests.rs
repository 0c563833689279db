//! Adapters that AdapterHub cannot express are not exported; settings that are not implemented are reported by name. The comparison
//! with the `adapters` package is in `tests/engine/adapterhub.rs`.

use super::*;
use crate::adapter::bottleneck;
use crate::adapter::method::Method;
use crate::artifact::testing;
use crate::model::Pooling;
use crate::task::{self, regression, sequence_classification};
use espalier_tensor::Tensor;

/// A bottleneck of width 4 with its head.
fn bottleneck_artifact(pooling: Pooling) -> Artifact {
    let summary = testing::base_summary();
    let method = bottleneck::Config { reduction_factor: Some(8.0), ..bottleneck::Config::default() };
    let method = method.resolve(&summary.info, summary.sites_for(pooling)).unwrap();
    let mut artifact = testing::head_artifact(pooling);
    for spec in method.adapterhub_tensor_specs(summary.sites_for(pooling), "one") {
        let count = spec.shape.iter().product();
        artifact.weights.insert(spec.slices[0].name.clone(), Tensor::new(spec.shape, vec![0.5; count]));
    }
    artifact.manifest.method = adapter::Config::Bottleneck(method);
    artifact
}

fn adapterhub_files() -> AdapterHubFiles {
    AdapterHubFiles::from_artifact(&bottleneck_artifact(Pooling::First), &testing::base_summary(), "one").unwrap()
}

fn parse_error(files: &AdapterHubFiles) -> (&'static str, String) {
    let Err(error) = files.parse(&testing::base_summary()) else { panic!("it should be refused") };
    (error.code(), error.to_string())
}

/// The file with another value under `config`.
fn config_with(bytes: &[u8], field: &str, value: Value) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(bytes).unwrap();
    file["config"][field] = value;
    file.to_string().into_bytes()
}

#[test]
fn files_round_trip() {
    for pooling in [Pooling::First, Pooling::Cls] {
        let artifact = bottleneck_artifact(pooling);
        let parsed = AdapterHubFiles::from_artifact(&artifact, &testing::base_summary(), "one")
            .unwrap()
            .parse(&testing::base_summary())
            .unwrap();
        assert_eq!(parsed.weights, artifact.weights);
        assert_eq!(
            (parsed.head.to_task(), parsed.head.labels),
            (artifact.manifest.task, Some(artifact.manifest.labels))
        );
        assert_eq!(adapter::Config::Bottleneck(parsed.config.method), artifact.manifest.method);
    }
}

#[test]
fn unsupported_adapters_are_not_exported() {
    let summary = testing::base_summary();
    let mut regression = bottleneck_artifact(Pooling::First);
    regression.manifest.task =
        task::Config::Regression(regression::Config { pooling: Some(Pooling::First), head: None });
    let mut distilbert = summary.clone();
    distilbert.info.model_type = "distilbert".to_string();
    let cases = [
        (bottleneck_artifact(Pooling::Mean), &summary, "the mean of a sequence"),
        (testing::lora_artifact(Pooling::First), &summary, "the method lora"),
        (regression, &summary, "the task regression"),
        (bottleneck_artifact(Pooling::First), &distilbert, "distilbert"),
    ];
    for (artifact, summary, words) in cases {
        let error = AdapterHubFiles::from_artifact(&artifact, summary, "one").unwrap_err();
        assert_eq!(error.code(), "unsupported_format");
        assert!(error.to_string().contains(words), "{error} should say {words}");
    }
}

#[test]
fn unsupported_settings_are_reported() {
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
        let files =
            AdapterHubFiles { config: config_with(&adapterhub_files().config, field, value), ..adapterhub_files() };
        let (code, detail) = parse_error(&files);
        assert_eq!(code, "unsupported_adapter", "{field}");
        assert!(detail.contains(words), "{detail} should say {words}");
    }
}

#[test]
fn unsupported_heads_are_reported() {
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
        let files = AdapterHubFiles {
            head_config: config_with(&adapterhub_files().head_config, field, value),
            ..adapterhub_files()
        };
        let (found, detail) = parse_error(&files);
        assert_eq!(found, code, "{field}");
        assert!(detail.contains(words), "{detail} should say {words}");
    }
    let mut roberta = testing::base_summary();
    roberta.info.model_type = "roberta".to_string();
    let roberta_files = AdapterHubFiles::from_artifact(&bottleneck_artifact(Pooling::First), &roberta, "one").unwrap();
    let with_pooler = AdapterHubFiles {
        head_config: config_with(&roberta_files.head_config, "use_pooler", json!(true)),
        ..roberta_files
    };
    assert!(with_pooler.parse(&roberta).err().unwrap().to_string().contains("config.use_pooler is true"));
    let two_layers = config_with(
        &config_with(&adapterhub_files().head_config, "layers", json!(2)),
        "activation_function",
        json!("mish"),
    );
    assert!(
        parse_error(&AdapterHubFiles { head_config: two_layers, ..adapterhub_files() })
            .1
            .contains("config.activation_function is \"mish\"")
    );
    let multi_label_config =
        config_with(&adapterhub_files().head_config, "head_type", json!("multilabel_classification"));
    let parsed = AdapterHubFiles { head_config: multi_label_config, ..adapterhub_files() }
        .parse(&testing::base_summary())
        .unwrap();
    let task::Config::SequenceClassification(sequence_classification::Config { multi_label, .. }) =
        parsed.head.to_task()
    else {
        panic!("a classification was expected")
    };
    assert!(multi_label);
}

//! Masked language models against transformers: logits of the small models of `tests/golden/language.py`, on both backends; and the
//! conditions under which a base model has a mask token.

use espalier_core::model::{BaseModel, Batch, RequiredRows, SUPPORTED_MODEL_TYPES, Tokens, VirtualTokens};
use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::{Backend, Recording, Tape};
use safetensors::SafeTensors;
use std::sync::Arc;

/// Relative to the largest logit of a text.
const TOLERANCE: f32 = 1e-4;

#[test]
fn mlm_logits_agree_with_transformers() {
    let folder = |model_type: &str| espalier_testing::jobs::fixture("language").join(model_type);
    let encoders: Vec<&str> =
        SUPPORTED_MODEL_TYPES.into_iter().filter(|model_type| folder(model_type).is_dir()).collect();
    assert_eq!(encoders.len(), 8, "every encoder has a fixture: {encoders:?}");
    for model_type in encoders {
        let folder = folder(model_type);
        let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| -> Vec<f32> {
            let tensor = read.tensor(name).unwrap();
            tensor.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
        };
        let backends: [Arc<dyn Backend>; 2] = [Arc::new(CpuBackend::detect()), Arc::new(CandleBackend::cpu())];
        for backend in backends {
            let base = BaseModel::load(&folder, model_type, backend).unwrap();
            let mut worst = 0f32;
            for index in 0..3 {
                let ids = numbers(&format!("ids.{index}")).into_iter().map(|id| id as u32).collect();
                let tokens = Tokens::from_ids(ids);
                let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
                let batch = Batch::new([&tokens], VirtualTokens::Disabled);
                let rows = base.encode(&mut tape, &batch, &(), RequiredRows::All).unwrap();
                let logits = base.lm_logits(&mut tape, rows).unwrap();
                let (found, expected) = (tape.to_host(logits).unwrap().values, numbers(&format!("logits.{index}")));
                assert_eq!(found.len(), expected.len());
                let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
                worst = differences.fold(worst, |worst, difference| worst.max(difference / largest));
            }
            assert!(worst <= TOLERANCE, "{model_type} on {} differs by {worst}", base.info().backend);
            println!("{model_type} on {}: {worst:.1e}", base.info().backend);
        }
    }
}

#[test]
fn mask_token_is_reported_only_with_an_mlm_head() {
    assert_eq!(espalier_testing::tasks::bert_base().info().mask_token.as_deref(), Some("[MASK]"));
    assert_eq!(espalier_testing::tasks::base_of_architecture("roberta").info().mask_token.as_deref(), Some("<mask>"));
    let without = espalier_testing::jobs::tiny_base();
    assert_eq!(without.info().mask_token, None);
    let tokens = Tokens::from_ids(vec![2, 7, 3]);
    let mut tape = Tape::new(Arc::clone(without.backend()), Arc::from([]), Recording::Off);
    let batch = Batch::new([&tokens], VirtualTokens::Disabled);
    let rows = without.encode(&mut tape, &batch, &(), RequiredRows::All).unwrap();
    assert_eq!(without.lm_logits(&mut tape, rows).unwrap_err().code(), "no_language_head");
}

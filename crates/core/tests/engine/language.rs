//! Masked language models against transformers: the logits of the small models that `tests/golden/language.py` makes, on both
//! kernel sets; and what hiding words needs of a base.

use espalier_core::model::{Base, Batch, SUPPORTED, Tokens, Virtual, Wanted};
use espalier_tensor::candle::Candle;
use espalier_tensor::cpu::Cpu;
use espalier_tensor::{Kernels, Recording, Tape};
use safetensors::SafeTensors;
use std::sync::Arc;

/// Relative to the largest logit of a text.
const TOLERANCE: f32 = 1e-4;

#[test]
fn logits_of_all_words_agree_with_transformers() {
    let folder = |model_type: &str| espalier_testing::jobs::fixture("language").join(model_type);
    let encoders: Vec<&str> = SUPPORTED.into_iter().filter(|model_type| folder(model_type).is_dir()).collect();
    assert_eq!(encoders.len(), 8, "every encoder is there: {encoders:?}");
    for model_type in encoders {
        let folder = folder(model_type);
        let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| -> Vec<f32> {
            let tensor = read.tensor(name).unwrap();
            tensor.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
        };
        let kernel_sets: [Arc<dyn Kernels>; 2] = [Arc::new(Cpu::best()), Arc::new(Candle::cpu())];
        for kernels in kernel_sets {
            let base = Base::load(&folder, model_type, kernels).unwrap();
            let mut worst = 0f32;
            for index in 0..3 {
                let ids = numbers(&format!("ids.{index}")).into_iter().map(|id| id as u32).collect();
                let tokens = Tokens::whole(ids);
                let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
                let batch = Batch::new([&tokens], Virtual::Nothing);
                let rows = base.encode(&mut tape, &batch, &(), Wanted::All).unwrap();
                let logits = base.language(&mut tape, rows).unwrap();
                let (found, expected) = (tape.read(logits).unwrap().values, numbers(&format!("logits.{index}")));
                assert_eq!(found.len(), expected.len());
                let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
                worst = differences.fold(worst, |worst, difference| worst.max(difference / largest));
            }
            assert!(worst <= TOLERANCE, "{model_type} on {} differs by {worst}", base.info().kernels);
            println!("{model_type} on {}: {worst:.1e}", base.info().kernels);
        }
    }
}

#[test]
fn a_base_says_whether_it_can_tell_hidden_words() {
    assert_eq!(espalier_testing::tasks::base().info().mask_token.as_deref(), Some("[MASK]"));
    assert_eq!(espalier_testing::tasks::language_base("roberta").info().mask_token.as_deref(), Some("<mask>"));
    let without = espalier_testing::jobs::tiny_base();
    assert_eq!(without.info().mask_token, None);
    let tokens = Tokens::whole(vec![2, 7, 3]);
    let mut tape = Tape::new(Arc::clone(without.kernels()), Arc::from([]), Recording::Off);
    let batch = Batch::new([&tokens], Virtual::Nothing);
    let rows = without.encode(&mut tape, &batch, &(), Wanted::All).unwrap();
    assert_eq!(without.language(&mut tape, rows).unwrap_err().code(), "no_language_head");
}

//! Load-time verification: the outputs of an adapter are recorded when it is made and compared at each load.
//!
//! Without it, a LoRA whose B is zero, a file that lost tensors or a wrong base would produce plausible outputs without an error.

use super::folder;
use super::loaded_adapter::LoadedAdapter;
use super::manifest::{Artifact, Probe};
use crate::adapter;
use crate::error::{Error, Result};
use crate::model::BaseModel;
use crate::task::Input;
use crate::task::head::OUTPUT_BIAS;
use std::path::Path;

/// Tolerance on the same backend, relative to `max(1, |x|)`.
const SAME_KERNELS_TOLERANCE: f32 = 1e-4;
/// Tolerance on another backend or device.
const CROSS_KERNELS_TOLERANCE: f32 = 2e-2;

/// Runs the adapter on `inputs` and records its outputs. The probe in its manifest is ignored.
///
/// # Errors
/// `Invalid` (`adapter_without_effect`) if the outputs are not finite, are all equal, or equal those of the same head without the
/// adapter (for `head`: those of the bias alone).
pub fn record_probe(artifact: &Artifact, base: &BaseModel, inputs: Vec<Input>) -> Result<Probe> {
    let adapter = LoadedAdapter::load(artifact, base)?;
    let outputs = adapter.forward(base, &inputs)?;
    let bias = artifact.weights.get(OUTPUT_BIAS);
    let base_outputs = if let (adapter::Config::Head(_), Some(bias)) = (&artifact.manifest.method, bias) {
        outputs.iter().map(|row| bias.values.iter().copied().cycle().take(row.len()).collect()).collect()
    } else {
        adapter.forward_base(base, &inputs)?
    };
    // The probe does not reach the head of a language model.
    if adapter.lm_head.is_none() || outputs != base_outputs {
        check_effect(&outputs, &base_outputs)?;
    }
    Ok(Probe { inputs, outputs, kernels: base.info().backend.clone() })
}

/// Reads a published folder and verifies its probe.
///
/// # Errors
/// `Conflict` with the reason.
pub fn load_verified(root: &Path, version: &str, base: &BaseModel) -> Result<(Artifact, LoadedAdapter)> {
    let artifact = folder::load_published(root, version, base)?;
    let adapter = LoadedAdapter::load(&artifact, base)?;
    verify_probe(&adapter, base, &artifact.manifest.probe)?;
    Ok((artifact, adapter))
}

/// Runs the adapter on the inputs of a probe and compares the outputs.
///
/// # Errors
/// `Conflict` (`probe_failed`) with the largest difference.
pub fn verify_probe(adapter: &LoadedAdapter, base: &BaseModel, probe: &Probe) -> Result<()> {
    compare_outputs(probe, &adapter.forward(base, &probe.inputs)?, &base.info().backend)
}

fn check_effect(outputs: &[Vec<f32>], base_outputs: &[Vec<f32>]) -> Result<()> {
    let rejection = |what: &str| {
        let advice = "train it (further) and save it again";
        Err(Error::invalid("adapter_without_effect", format!("the adapter {what}: {advice}")))
    };
    if !outputs.iter().flatten().all(|value| value.is_finite()) {
        return rejection("answers with values that are not finite");
    }
    let mut values = outputs.iter().flatten();
    let first_value = values.next();
    // One output of one input is trivially equal.
    if outputs.iter().map(Vec::len).sum::<usize>() > 1 && values.all(|value| Some(value) == first_value) {
        return rejection("gives every number the same value, whatever the input");
    }
    // Exactly: both come from the same backend, and a short training may change little.
    if outputs == base_outputs {
        return rejection("changes nothing: the base answers the same without it");
    }
    Ok(())
}

fn compare_outputs(probe: &Probe, actual: &[Vec<f32>], kernels: &str) -> Result<()> {
    let tolerance = if probe.kernels == kernels { SAME_KERNELS_TOLERANCE } else { CROSS_KERNELS_TOLERANCE };
    let row_lengths = |rows: &[Vec<f32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
    let mismatch = |what: String| {
        let advice = "its files or the base's are not those that it was made with; train or import it again";
        Error::conflict("probe_failed", format!("the adapter does not answer its probe as it did: {what}; {advice}"))
    };
    if row_lengths(&probe.outputs) != row_lengths(actual) {
        return Err(mismatch("it gives another number of outputs".to_string()));
    }
    match worst_mismatch(&probe.outputs, actual, tolerance) {
        None => Ok(()),
        Some((expected, actual_value)) => Err(mismatch(format!(
            "an output is {actual_value}, expected {expected} within {tolerance} (made on {}, replayed on {kernels})",
            probe.kernels
        ))),
    }
}

/// The expected and actual value with the largest difference above the tolerance; NaN is above every tolerance.
fn worst_mismatch(expected: &[Vec<f32>], actual: &[Vec<f32>], tolerance: f32) -> Option<(f32, f32)> {
    let value_pairs = expected.iter().flatten().copied().zip(actual.iter().flatten().copied());
    let relative_error = |(expected, actual): (f32, f32)| (actual - expected).abs() / expected.abs().max(1.0);
    let above_tolerance =
        value_pairs.filter(|pair| relative_error(*pair).partial_cmp(&tolerance).is_none_or(std::cmp::Ordering::is_gt));
    above_tolerance.max_by(|one, other| relative_error(*one).total_cmp(&relative_error(*other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;
    use crate::model::Pooling;

    fn probe() -> Probe {
        testing::lora_artifact(Pooling::Cls).manifest.probe
    }

    fn effect_error_code(outputs: &[[f32; 3]], base_outputs: &[[f32; 3]]) -> Option<&'static str> {
        let rows = |rows: &[[f32; 3]]| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        check_effect(&rows(outputs), &rows(base_outputs)).err().map(|error| error.code())
    }

    #[test]
    fn changed_outputs_pass() {
        assert_eq!(effect_error_code(&[[0.1, 0.2, 0.3], [0.1, 0.2, 0.5]], &[[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]), None);
    }

    #[test]
    fn unchanged_outputs_are_rejected() {
        let same = [[0.1, 0.2, 0.3]];
        assert_eq!(effect_error_code(&same, &same), Some("adapter_without_effect"));
        assert_eq!(effect_error_code(&[[0.1, 0.2, 0.300_000_1]], &same), None, "a small difference is an effect");
    }

    #[test]
    fn constant_or_nan_outputs_are_rejected() {
        assert_eq!(effect_error_code(&[[f32::NAN, 0.2, 0.3]], &[[0.0; 3]]), Some("adapter_without_effect"));
        assert_eq!(effect_error_code(&[[0.5; 3], [0.5; 3]], &[[0.0; 3], [0.0; 3]]), Some("adapter_without_effect"));
    }

    #[test]
    fn tolerance_depends_on_kernels() {
        let within_tolerance = vec![vec![0.1, -2.500_1, 1.0 / 3.0]];
        compare_outputs(&probe(), &within_tolerance, "candle-cpu").unwrap();
        let above_tolerance = vec![vec![0.1, -2.51, 1.0 / 3.0]];
        compare_outputs(&probe(), &above_tolerance, "candle-cuda").unwrap();
        let error = compare_outputs(&probe(), &above_tolerance, "candle-cpu").unwrap_err();
        assert!(matches!(&error, Error::Conflict(problem) if problem.code == "probe_failed"));
        assert!(error.to_string().contains("an output is -2.51, expected -2.5 within 0.0001"), "{error}");
    }

    #[test]
    fn nan_or_wrong_shape_fails() {
        for actual in [vec![vec![0.1, f32::NAN, 1.0 / 3.0]], vec![vec![0.1, -2.5]], vec![]] {
            assert_eq!(compare_outputs(&probe(), &actual, "candle-cpu").unwrap_err().code(), "probe_failed");
        }
    }
}

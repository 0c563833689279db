//! Proof of effect: what an adapter answered when it was made, replayed when it is loaded.
//!
//! A LoRA whose B is zero, a file that lost its tensors on the way, a base that is not the one it was trained on: each
//! would answer something, and nobody would notice. Knows nothing of files.

use super::adapted::Adapted;
use super::{Artifact, Probe, folder};
use crate::adapter;
use crate::error::{Error, Result};
use crate::model::Base;
use crate::task::Input;
use std::path::Path;

/// How far answers may differ on the same kernel set, by `max(1, |x|)`.
const SAME_KERNELS: f32 = 1e-4;
/// The same across kernel sets and devices.
const OTHER_KERNELS: f32 = 2e-2;

/// Asks the adapter, and keeps what it answers. Its card's own probe is not looked at.
///
/// # Errors
/// `Invalid` (`adapter_without_effect`) where the answers are not finite, are all equal, or are those that the same
/// head would give without the adapter (for a bare head: those that its bias would give alone).
pub fn make(artifact: &Artifact, base: &Base, inputs: Vec<Input>) -> Result<Probe> {
    let adapted = Adapted::load(artifact, base)?;
    let outputs = adapted.outputs(base, &inputs)?;
    let without = match (&artifact.card.method, artifact.weights.get("head.bias")) {
        (adapter::Config::Head(_), Some(bias)) => {
            outputs.iter().map(|row| bias.values.iter().copied().cycle().take(row.len()).collect()).collect()
        }
        _ => adapted.outputs_without_effect(base, &inputs)?,
    };
    check_effect(&outputs, &without)?;
    Ok(Probe { inputs, outputs, kernels: base.info().kernels.clone() })
}

/// Reads a published folder strictly and replays its probe: an adapter that does not answer as when it was made is never
/// used.
///
/// # Errors
/// `Conflict` with the reason.
pub fn proven(root: &Path, version: &str, base: &Base) -> Result<(Artifact, Adapted)> {
    let artifact = folder::read(root, version, base)?;
    let adapted = Adapted::load(&artifact, base)?;
    check(&adapted, base, &artifact.card.probe)?;
    Ok((artifact, adapted))
}

/// Replays the probe.
///
/// # Errors
/// `Conflict` (`probe_failed`) with the largest difference.
pub fn check(adapted: &Adapted, base: &Base, probe: &Probe) -> Result<()> {
    compare(probe, &adapted.outputs(base, &probe.inputs)?, &base.info().kernels)
}

fn check_effect(outputs: &[Vec<f32>], without: &[Vec<f32>]) -> Result<()> {
    let refused = |what: &str| {
        let advice = "train it (further) and save it again";
        Err(Error::invalid("adapter_without_effect", format!("the adapter {what}: {advice}")))
    };
    if !outputs.iter().flatten().all(|value| value.is_finite()) {
        return refused("answers with values that are not finite");
    }
    let mut values = outputs.iter().flatten();
    let first = values.next();
    // A single number, of one text, is equal to itself.
    if outputs.iter().map(Vec::len).sum::<usize>() > 1 && values.all(|value| Some(value) == first) {
        return refused("gives every number the same value, whatever the input");
    }
    // To the last bit: both were computed just now, in the same way, and a short training may change little.
    if outputs == without {
        return refused("changes nothing: the base answers the same without it");
    }
    Ok(())
}

fn compare(probe: &Probe, answers: &[Vec<f32>], kernels: &str) -> Result<()> {
    let tolerance = if probe.kernels == kernels { SAME_KERNELS } else { OTHER_KERNELS };
    let lengths = |rows: &[Vec<f32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
    let failed = |what: String| {
        let advice = "its files or the base's are not those that it was made with; train or import it again";
        Error::conflict("probe_failed", format!("the adapter does not answer its probe as it did: {what}; {advice}"))
    };
    if lengths(&probe.outputs) != lengths(answers) {
        return Err(failed("it gives another number of outputs".to_string()));
    }
    match largest_excess(&probe.outputs, answers, tolerance) {
        None => Ok(()),
        Some((expected, answer)) => Err(failed(format!(
            "an output is {answer}, expected {expected} within {tolerance} (made on {}, replayed on {kernels})",
            probe.kernels
        ))),
    }
}

/// The pair that differs most beyond the tolerance, if any does. NaN is beyond every tolerance.
fn largest_excess(expected: &[Vec<f32>], answers: &[Vec<f32>], tolerance: f32) -> Option<(f32, f32)> {
    let pairs = expected.iter().flatten().copied().zip(answers.iter().flatten().copied());
    let excess = |(expected, answer): (f32, f32)| (answer - expected).abs() / expected.abs().max(1.0);
    let beyond = pairs.filter(|pair| excess(*pair).partial_cmp(&tolerance).is_none_or(std::cmp::Ordering::is_gt));
    beyond.max_by(|one, other| excess(*one).total_cmp(&excess(*other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;
    use crate::model::Pooling;

    fn probe() -> Probe {
        testing::lora(Pooling::Cls).card.probe
    }

    fn code(outputs: &[[f32; 3]], without: &[[f32; 3]]) -> Option<&'static str> {
        let rows = |rows: &[[f32; 3]]| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        check_effect(&rows(outputs), &rows(without)).err().map(|error| error.code())
    }

    #[test]
    fn an_adapter_that_changes_the_answer_has_an_effect() {
        assert_eq!(code(&[[0.1, 0.2, 0.3], [0.1, 0.2, 0.5]], &[[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]), None);
    }

    #[test]
    fn an_adapter_that_changes_nothing_is_refused() {
        let same = [[0.1, 0.2, 0.3]];
        assert_eq!(code(&same, &same), Some("adapter_without_effect"));
        assert_eq!(code(&[[0.1, 0.2, 0.300_000_1]], &same), None, "a little is not nothing");
    }

    #[test]
    fn answers_that_say_nothing_are_refused() {
        assert_eq!(code(&[[f32::NAN, 0.2, 0.3]], &[[0.0; 3]]), Some("adapter_without_effect"));
        assert_eq!(code(&[[0.5; 3], [0.5; 3]], &[[0.0; 3], [0.0; 3]]), Some("adapter_without_effect"));
    }

    #[test]
    fn a_replay_may_differ_by_the_tolerance_of_its_kernels() {
        let near = vec![vec![0.1, -2.500_1, 1.0 / 3.0]];
        compare(&probe(), &near, "candle-cpu").unwrap();
        let far = vec![vec![0.1, -2.51, 1.0 / 3.0]];
        compare(&probe(), &far, "candle-cuda").unwrap();
        let error = compare(&probe(), &far, "candle-cpu").unwrap_err();
        assert!(matches!(&error, Error::Conflict(problem) if problem.code == "probe_failed"));
        assert!(error.to_string().contains("an output is -2.51, expected -2.5 within 0.0001"), "{error}");
    }

    #[test]
    fn a_replay_that_is_no_number_or_of_another_shape_fails() {
        for answers in [vec![vec![0.1, f32::NAN, 1.0 / 3.0]], vec![vec![0.1, -2.5]], vec![]] {
            assert_eq!(compare(&probe(), &answers, "candle-cpu").unwrap_err().code(), "probe_failed");
        }
    }
}

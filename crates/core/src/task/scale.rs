//! Affine scale between the unit of a dataset's values and the unit of training.

/// Scale of values: the training unit is `(value - mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub mean: f32,
    pub deviation: f32,
}

impl Scale {
    pub const IDENTITY: Self = Self { mean: 0.0, deviation: 1.0 };

    /// Scale to mean 0 and standard deviation 1.
    pub fn standardize(values: impl Iterator<Item = f32> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let deviation = if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 };
        Self { mean: mean as f32, deviation }
    }

    /// Scale of similarity scores to cosines: the identity where all scores are cosines, else to the range 0 to 1.
    pub fn cosine_range(scores: impl Iterator<Item = f32> + Clone) -> Self {
        let (min, max) =
            scores.fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), score| (least.min(score), most.max(score)));
        match min >= -1.0 && max <= 1.0 || min >= max {
            true => Self::IDENTITY,
            false => Self { mean: min, deviation: max - min },
        }
    }

    pub fn normalize(self, value: f32) -> f64 {
        f64::from((value - self.mean) / self.deviation)
    }

    pub fn denormalize(self, output: f32) -> f32 {
        output * self.deviation + self.mean
    }
}

//! The unit in which values and scores are learned.

/// The head learns values with mean 0 and deviation 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub mean: f32,
    pub deviation: f32,
}

impl Scale {
    /// That of values as they are.
    pub const IDENTITY: Self = Self { mean: 0.0, deviation: 1.0 };

    /// That of some values.
    pub fn standardize(values: impl Iterator<Item = f32> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let deviation = if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 };
        Self { mean: mean as f32, deviation }
    }

    /// What cosines are to be, given scores: themselves where they could be cosines, else from 0 to 1.
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

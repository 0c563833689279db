//! Checks for divergence: a loss or a gradient that is not finite ends the run before the parameters change.

use crate::error::{Error, Result};

/// # Errors
/// `Invalid` (`training_diverged`) where the loss is not finite.
pub fn check_finite_loss(loss: f64) -> Result<f64> {
    check_finite("the loss", loss)
}

/// # Errors
/// `Invalid` (`training_diverged`) where the norm of the gradients is not finite, so at least one of them is not.
pub fn check_finite_gradient_norm(norm: f64) -> Result<f64> {
    check_finite("the gradient", norm)
}

fn check_finite(quantity: &str, value: f64) -> Result<f64> {
    match value.is_finite() {
        true => Ok(value),
        false => {
            let detail =
                format!("training diverged: {quantity} is no longer a finite number ({value}); lower learning_rate");
            Err(Error::invalid("training_diverged", detail))
        }
    }
}

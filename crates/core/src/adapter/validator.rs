//! Validation of a method's settings against the base.

use super::target_modules::{Layers, TargetModules, num_layers, present_modules, selected_sites};
use crate::error::{Error, FieldError, Problem, Result};
use crate::model::SiteInfo;

/// Collects the errors of a method's settings, one per wrong value.
pub struct MethodValidator {
    errors: Vec<FieldError>,
    num_layers: usize,
}

impl MethodValidator {
    pub fn new(sites: &[SiteInfo]) -> Self {
        Self { errors: Vec::new(), num_layers: num_layers(sites) }
    }

    /// Records an error at the setting `field` unless the condition holds.
    pub fn require(&mut self, condition: bool, field: &str, message: impl Into<String>) {
        if !condition {
            self.errors.push(FieldError::at_pointer(format!("/method/{field}"), message));
        }
    }

    pub fn check_dropout(&mut self, dropout: f64) {
        self.require((0.0..1.0).contains(&dropout), "dropout", "dropout must be at least 0 and below 1");
    }

    pub fn check_layers(&mut self, layers: Layers) {
        if let Some(message) = layers.error(self.num_layers) {
            self.require(false, "layers", message);
        }
    }

    /// Resolves target modules. `sites` are those that the method can adapt.
    pub fn resolve_modules(&mut self, field: &str, modules: &TargetModules, sites: &[SiteInfo]) -> TargetModules {
        match modules.resolve(sites) {
            Ok(names) => TargetModules::Names(names),
            Err(message) => {
                self.require(false, field, message);
                TargetModules::Names(Vec::new())
            }
        }
    }

    /// Resolves the target modules of a method that adapts every trainable site by default, and finishes the validation.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve_modules_or_all(
        mut self,
        requested: Option<&TargetModules>,
        layers: Layers,
        trainable_sites: &[SiteInfo],
        sites: &[SiteInfo],
    ) -> Result<TargetModules> {
        self.check_layers(layers);
        let all_modules =
            || TargetModules::Names(present_modules(trainable_sites).map(|module| module.name().to_string()).collect());
        let modules =
            self.resolve_modules("target_modules", &requested.cloned().unwrap_or_else(all_modules), trainable_sites);
        self.finish(|| !selected_sites(&modules, layers, sites).is_empty())?;
        Ok(modules)
    }

    /// Fails if any error was recorded, or if the method adapts no site.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn finish(mut self, has_targets: impl FnOnce() -> bool) -> Result<()> {
        if self.errors.is_empty() && !has_targets() {
            self.require(false, "layers", "no target module lies in the chosen layers");
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        let error_messages: Vec<&str> = self.errors.iter().map(|error| error.message.as_str()).collect();
        let detail = format!("the method's settings do not fit this base: {}", error_messages.join("; "));
        Err(Error::Invalid(Problem::new("invalid_method", detail).with_errors(self.errors)))
    }
}

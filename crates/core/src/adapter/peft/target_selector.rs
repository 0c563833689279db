//! PEFT's rules for target modules.
//!
//! A list matches a path that equals a name or ends with it after a dot; a string is a regular expression for the whole
//! path; `layers_to_transform` selects layers by the first number in the path.

use super::mapping::invalid_config;
use super::naming::ModuleNaming;
use crate::adapter::target_modules::{TargetModules, has_module_suffix};
use crate::adapter::tensor_spec::{CONFIG_FILE, unsupported_file};
use crate::error::Result;
use crate::model::{Module, SiteInfo};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The rules of one `adapter_config.json`.
#[derive(Debug, Clone)]
pub struct TargetSelector {
    include: ModuleMatcher,
    exclude: Option<ModuleMatcher>,
    layers_to_transform: Option<Vec<u64>>,
    /// Patterns of the name before a layer's number; empty: any name.
    layers_pattern: Vec<Regex>,
}

/// One rule: a list of names, a regular expression for the whole path, or every linear map.
#[derive(Debug, Clone)]
pub enum ModuleMatcher {
    Names(Vec<String>),
    Pattern(Regex),
    AllLinear,
}

impl TargetSelector {
    /// # Errors
    /// `Invalid` (`unsupported_adapter`, `unreadable_adapter`) naming the field.
    pub fn from_fields(config: &Map<String, Value>) -> Result<Self> {
        let include = ModuleMatcher::from_field(config, "target_modules")?.ok_or_else(|| {
            invalid_config("target_modules names nothing: list the modules, for example [\"query\", \"value\"]")
        })?;
        Ok(Self {
            include,
            exclude: ModuleMatcher::from_field(config, "exclude_modules")?,
            layers_to_transform: parse_layers_to_transform(config)?,
            layers_pattern: parse_layers_pattern(config)?,
        })
    }

    /// Whether the rules select the path.
    pub fn matches(&self, path: &str) -> bool {
        if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(path)) || !self.include.matches(path) {
            return false;
        }
        match (&self.layers_to_transform, self.include.lists_path(path)) {
            // A path that is listed as a whole is selected in any layer.
            (Some(layers), false) => self.layer_index(path).is_some_and(|layer| layers.contains(&layer)),
            (Some(_), true) | (None, _) => true,
        }
    }

    /// Whether the rules select the site and it is a linear map.
    pub fn selects_linear(&self, info: &SiteInfo, naming: ModuleNaming) -> bool {
        info.site.module.is_linear() && self.matches(naming.module_path(info))
    }

    /// Whether the rules select a module outside of the layers, such as the embeddings. `all-linear` selects none of them.
    pub fn selects_module_outside_layers(&self, path: &str) -> bool {
        !matches!(self.include, ModuleMatcher::AllLinear) && self.matches(path)
    }

    /// The linear maps that the rules select.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_adapter`) if there is none.
    pub fn linear_modules(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<TargetModules> {
        required_modules(sites, |info| self.selects_linear(info, naming))
    }

    fn layer_index(&self, path: &str) -> Option<u64> {
        if self.layers_pattern.is_empty() {
            let segments: Vec<&str> = path.split('.').collect();
            let (_, parent_segments) = segments.split_last()?;
            return parent_segments.iter().skip(2).find_map(|segment| segment.parse().ok());
        }
        let captures = self.layers_pattern.iter().find_map(|pattern| pattern.captures(path))?;
        captures.name("layer")?.as_str().parse().ok()
    }
}

impl ModuleMatcher {
    /// Parses a field; `None` if it is absent, null or empty.
    pub fn from_field(config: &Map<String, Value>, field: &str) -> Result<Option<Self>> {
        match config.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(keyword)) if keyword == "all-linear" => Ok(Some(Self::AllLinear)),
            Some(Value::String(pattern)) => Ok(Some(Self::Pattern(anchored_regex(field, pattern)?))),
            Some(value) => {
                let names =
                    string_list(value).ok_or_else(|| invalid_config(format!("{field} must be a list of names")))?;
                Ok((!names.is_empty()).then_some(Self::Names(names)))
            }
        }
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| has_module_suffix(path, name)),
            Self::Pattern(pattern) => pattern.is_match(path),
            Self::AllLinear => true,
        }
    }

    /// Whether the list contains the whole path.
    fn lists_path(&self, path: &str) -> bool {
        matches!(self, Self::Names(names) if names.iter().any(|name| name == path))
    }
}

/// As [`selected_modules`].
///
/// # Errors
/// `Invalid` (`unsupported_adapter`) if no site is selected.
pub fn required_modules(sites: &[SiteInfo], is_target: impl Fn(&SiteInfo) -> bool) -> Result<TargetModules> {
    match sites.iter().any(&is_target) {
        true => Ok(selected_modules(sites, is_target)),
        false => {
            Err(unsupported_file(CONFIG_FILE, "target_modules means no module of this base that the method changes"))
        }
    }
}

/// The selected sites: names of modules if every site of these modules is selected, otherwise whole paths.
pub fn selected_modules(sites: &[SiteInfo], is_target: impl Fn(&SiteInfo) -> bool) -> TargetModules {
    let modules: BTreeSet<Module> = sites.iter().filter(|info| is_target(info)).map(|info| info.site.module).collect();
    TargetModules::Names(match sites.iter().filter(|info| modules.contains(&info.site.module)).all(&is_target) {
        true => modules.into_iter().map(|module| module.name().to_string()).collect(),
        false => sites.iter().filter(|info| is_target(info)).map(|info| info.module_path.clone()).collect(),
    })
}

fn parse_layers_to_transform(config: &Map<String, Value>) -> Result<Option<Vec<u64>>> {
    let invalid_layers = || invalid_config("layers_to_transform must be a layer's number or a list of them");
    match config.get("layers_to_transform") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.is_empty() => Ok(None),
        Some(Value::Array(items)) => {
            items.iter().map(Value::as_u64).collect::<Option<_>>().map(Some).ok_or_else(invalid_layers)
        }
        Some(value) => value.as_u64().map(|layer| Some(vec![layer])).ok_or_else(invalid_layers),
    }
}

fn parse_layers_pattern(config: &Map<String, Value>) -> Result<Vec<Regex>> {
    let names = match config.get("layers_pattern") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(pattern)) => vec![pattern.clone()],
        Some(value) => {
            string_list(value).ok_or_else(|| invalid_config("layers_pattern must be a name or a list of names"))?
        }
    };
    let compile_layer_pattern =
        |name: &String| compile_regex("layers_pattern", &format!(r"^(?:|.*?\.)(?:{name})\.(?P<layer>\d+)\."));
    names.iter().map(compile_layer_pattern).collect()
}

pub(super) fn anchored_regex(field: &str, pattern: &str) -> Result<Regex> {
    compile_regex(field, &format!("^(?:{pattern})$"))
}

fn compile_regex(field: &str, pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|_| {
        unsupported_file(
            CONFIG_FILE,
            format!(
                "the regular expression in {field} cannot be used here (look-around and back-references are not \
                 supported); write the modules as a list of names"
            ),
        )
    })
}

fn string_list(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| Some(item.as_str()?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matched_paths(config: Value) -> Vec<String> {
        let selector = TargetSelector::from_fields(config.as_object().unwrap()).unwrap();
        let modules = ["attention.self.query", "attention.output.dense", "output.dense"];
        let paths = (0..3).flat_map(|layer| modules.map(|module| format!("bert.encoder.layer.{layer}.{module}")));
        paths.filter(|path| selector.matches(path)).map(|path| path.replace("bert.encoder.layer.", "")).collect()
    }

    #[test]
    fn list_matches_path_suffixes() {
        assert_eq!(matched_paths(json!({"target_modules": ["self.query"]})).len(), 3);
        assert_eq!(matched_paths(json!({"target_modules": ["uery"]})).len(), 0);
        // As in PEFT, this suffix matches the output of attention too.
        assert_eq!(matched_paths(json!({"target_modules": ["output.dense"]})).len(), 6);
    }

    #[test]
    fn string_is_an_anchored_regex() {
        assert_eq!(
            matched_paths(json!({"target_modules": r".*layer\.[12]\..*query"})),
            ["1.attention.self.query", "2.attention.self.query"]
        );
        assert_eq!(matched_paths(json!({"target_modules": "query"})).len(), 0);
        assert_eq!(matched_paths(json!({"target_modules": "all-linear"})).len(), 9);
    }

    #[test]
    fn layers_to_transform_does_not_apply_to_full_paths() {
        assert_eq!(
            matched_paths(json!({"target_modules": ["query"], "layers_to_transform": 1})),
            ["1.attention.self.query"]
        );
        assert_eq!(
            matched_paths(
                json!({"target_modules": ["query"], "layers_to_transform": [0, 2], "layers_pattern": "layer"})
            ),
            ["0.attention.self.query", "2.attention.self.query"]
        );
        let full_path = "bert.encoder.layer.2.attention.self.query";
        assert_eq!(
            matched_paths(json!({"target_modules": [full_path], "layers_to_transform": [0]})),
            ["2.attention.self.query"]
        );
    }

    #[test]
    fn exclude_modules_are_not_matched() {
        let config = json!({"target_modules": ["output.dense"], "exclude_modules": ["attention.output.dense"]});
        assert_eq!(matched_paths(config), ["0.output.dense", "1.output.dense", "2.output.dense"]);
    }

    #[test]
    fn invalid_selectors_are_rejected() {
        let code = |config: Value| TargetSelector::from_fields(config.as_object().unwrap()).unwrap_err().code();
        assert_eq!(code(json!({"target_modules": "(?!x)query"})), "unsupported_adapter");
        assert_eq!(code(json!({"target_modules": null})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": []})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": [1]})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": ["query"], "layers_to_transform": [-1]})), "unreadable_adapter");
    }
}

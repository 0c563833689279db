//! Which modules an `adapter_config.json` means, by PEFT's rules.
//!
//! A list matches a path that is equal to a name or ends with it after a dot; a string is a regular expression for the
//! whole path; `layers_to_transform` picks by the first number in the path. Knows nothing of tensors.

use crate::error::{Error, Result};
use regex::Regex;
use serde_json::{Map, Value};

#[derive(Debug, Clone)]
pub struct Rules {
    include: Matcher,
    exclude: Option<Matcher>,
    layers: Option<Vec<u64>>,
    /// What stands before a layer's number; any name where it is empty.
    layers_patterns: Vec<Regex>,
}

#[derive(Debug, Clone)]
pub enum Matcher {
    Names(Vec<String>),
    Pattern(Regex),
    Everything,
}

impl Rules {
    /// # Errors
    /// `Invalid` (`unsupported_adapter`, `unreadable_adapter`) naming the field.
    pub fn read(config: &Map<String, Value>) -> Result<Self> {
        let include = Matcher::read(config, "target_modules")?.ok_or_else(|| {
            unreadable("target_modules names nothing: list the modules, for example [\"query\", \"value\"]")
        })?;
        Ok(Self {
            include,
            exclude: Matcher::read(config, "exclude_modules")?,
            layers: layers(config)?,
            layers_patterns: layers_patterns(config)?,
        })
    }

    pub fn matches(&self, path: &str) -> bool {
        if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(path)) || !self.include.matches(path) {
            return false;
        }
        match (&self.layers, self.include.names(path)) {
            // A path that is listed as a whole is meant, whatever its layer.
            (Some(layers), false) => self.layer(path).is_some_and(|layer| layers.contains(&layer)),
            _ => true,
        }
    }

    fn layer(&self, path: &str) -> Option<u64> {
        if self.layers_patterns.is_empty() {
            let segments: Vec<&str> = path.split('.').collect();
            let (_, inner) = segments.split_last()?;
            return inner.iter().skip(2).find_map(|segment| segment.parse().ok());
        }
        let found = self.layers_patterns.iter().find_map(|pattern| pattern.captures(path))?;
        found.name("layer")?.as_str().parse().ok()
    }
}

impl Matcher {
    /// `None` where the field is missing, null or empty.
    pub fn read(config: &Map<String, Value>, field: &str) -> Result<Option<Self>> {
        match config.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) if word.is_empty() => Ok(None),
            Some(Value::String(word)) if word == "all-linear" => Ok(Some(Self::Everything)),
            Some(Value::String(word)) => Ok(Some(Self::Pattern(whole(field, word)?))),
            Some(value) => {
                let names = strings(value).ok_or_else(|| unreadable(&format!("{field} must be a list of names")))?;
                Ok((!names.is_empty()).then_some(Self::Names(names)))
            }
        }
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| ends_with(path, name)),
            Self::Pattern(pattern) => pattern.is_match(path),
            Self::Everything => true,
        }
    }

    /// A regular expression for the whole path.
    pub fn pattern(field: &str, pattern: &str) -> Result<Self> {
        whole(field, pattern).map(Self::Pattern)
    }

    /// Whether the path stands in the list as a whole.
    fn names(&self, path: &str) -> bool {
        matches!(self, Self::Names(names) if names.iter().any(|name| name == path))
    }
}

/// Equal, or the end after a dot.
pub fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn layers(config: &Map<String, Value>) -> Result<Option<Vec<u64>>> {
    let wrong = || unreadable("layers_to_transform must be a layer's number or a list of them");
    match config.get("layers_to_transform") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.is_empty() => Ok(None),
        Some(Value::Array(items)) => items.iter().map(Value::as_u64).collect::<Option<_>>().map(Some).ok_or_else(wrong),
        Some(value) => value.as_u64().map(|layer| Some(vec![layer])).ok_or_else(wrong),
    }
}

fn layers_patterns(config: &Map<String, Value>) -> Result<Vec<Regex>> {
    let names = match config.get("layers_pattern") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(word)) if word.is_empty() => Vec::new(),
        Some(Value::String(word)) => vec![word.clone()],
        Some(value) => strings(value).ok_or_else(|| unreadable("layers_pattern must be a name or a list of names"))?,
    };
    let compile = |name: &String| compiled("layers_pattern", &format!(r"^(?:|.*?\.)(?:{name})\.(?P<layer>\d+)\."));
    names.iter().map(compile).collect()
}

fn whole(field: &str, pattern: &str) -> Result<Regex> {
    compiled(field, &format!("^(?:{pattern})$"))
}

fn compiled(field: &str, pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|_| {
        Error::invalid(
            "unsupported_adapter",
            format!(
                "adapter_config.json: the regular expression in {field} cannot be used here (look-around and \
                 back-references are not supported); write the modules as a list of names"
            ),
        )
    })
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| Some(item.as_str()?.to_string())).collect()
}

fn unreadable(what: &str) -> Error {
    Error::invalid("unreadable_adapter", format!("adapter_config.json: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matched(config: Value) -> Vec<String> {
        let rules = Rules::read(config.as_object().unwrap()).unwrap();
        let modules = ["attention.self.query", "attention.output.dense", "output.dense"];
        let paths = (0..3).flat_map(|layer| modules.map(|module| format!("bert.encoder.layer.{layer}.{module}")));
        paths.filter(|path| rules.matches(path)).map(|path| path.replace("bert.encoder.layer.", "")).collect()
    }

    #[test]
    fn a_list_matches_the_end_of_a_path_after_a_dot() {
        assert_eq!(matched(json!({"target_modules": ["self.query"]})).len(), 3);
        assert_eq!(matched(json!({"target_modules": ["uery"]})).len(), 0);
        // As in PEFT: this suffix catches the attention's output too.
        assert_eq!(matched(json!({"target_modules": ["output.dense"]})).len(), 6);
    }

    #[test]
    fn a_string_is_a_regular_expression_for_the_whole_path() {
        assert_eq!(
            matched(json!({"target_modules": r".*layer\.[12]\..*query"})),
            ["1.attention.self.query", "2.attention.self.query"]
        );
        assert_eq!(matched(json!({"target_modules": "query"})).len(), 0);
        assert_eq!(matched(json!({"target_modules": "all-linear"})).len(), 9);
    }

    #[test]
    fn layers_are_picked_by_number_but_a_whole_path_is_always_meant() {
        assert_eq!(matched(json!({"target_modules": ["query"], "layers_to_transform": 1})), ["1.attention.self.query"]);
        assert_eq!(
            matched(json!({"target_modules": ["query"], "layers_to_transform": [0, 2], "layers_pattern": "layer"})),
            ["0.attention.self.query", "2.attention.self.query"]
        );
        let whole = "bert.encoder.layer.2.attention.self.query";
        assert_eq!(matched(json!({"target_modules": [whole], "layers_to_transform": [0]})), ["2.attention.self.query"]);
    }

    #[test]
    fn excluded_modules_are_not_meant() {
        let config = json!({"target_modules": ["output.dense"], "exclude_modules": ["attention.output.dense"]});
        assert_eq!(matched(config), ["0.output.dense", "1.output.dense", "2.output.dense"]);
    }

    #[test]
    fn what_cannot_be_matched_is_refused_with_advice() {
        let code = |config: Value| Rules::read(config.as_object().unwrap()).unwrap_err().code();
        assert_eq!(code(json!({"target_modules": "(?!x)query"})), "unsupported_adapter");
        assert_eq!(code(json!({"target_modules": null})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": []})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": [1]})), "unreadable_adapter");
        assert_eq!(code(json!({"target_modules": ["query"], "layers_to_transform": [-1]})), "unreadable_adapter");
    }
}

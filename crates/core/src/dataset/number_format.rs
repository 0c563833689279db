//! Numbers as people write them: a decimal comma, groups of thousands, a currency or a percent sign.

use super::diagnostics::{self, Diagnostic, quote};
use super::field_value::{FieldValue, number_expected, wrong_type};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Character between the integer digits and the fraction of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Decimal {
    #[serde(rename = ".")]
    Point,
    #[serde(rename = ",")]
    Comma,
}

/// How the numbers of a column are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NumberFormat {
    /// `None` for numbers with a point and without groups, signs or units.
    decimal: Option<Decimal>,
    /// Currency or percent sign of every number.
    unit: String,
}

/// Digits of a number with their separators, and its unit.
struct WrittenNumber<'a> {
    sign: &'a str,
    digits: &'a str,
    unit: String,
}

impl Decimal {
    fn character(self) -> char {
        match self {
            Self::Point => '.',
            Self::Comma => ',',
        }
    }

    fn group_character(self) -> char {
        match self {
            Self::Point => ',',
            Self::Comma => '.',
        }
    }
}

impl NumberFormat {
    /// Format of a column with these texts. `decimal` is the setting of the request.
    ///
    /// # Errors
    /// `number_format` for numbers that need the setting, with the guess.
    pub fn detect(field: &str, column: &str, texts: &[&str], decimal: Option<Decimal>) -> Result<Self, Diagnostic> {
        let units: Vec<String> =
            texts.iter().filter_map(|text| WrittenNumber::parse(text)).map(|number| number.unit).collect();
        let unit = units.first().cloned().unwrap_or_default();
        if let Some(other) = units.iter().find(|other| **other != unit) {
            if decimal.is_some() || units.iter().filter(|unit| !unit.is_empty()).count() * 2 > units.len() {
                let message = format!(
                    "the numbers in {} have different units, {} and {}: convert them to one",
                    quote(column),
                    quote(&unit),
                    quote(other)
                );
                return Err(Diagnostic::new(diagnostics::NUMBER_FORMAT, message));
            }
            return Ok(Self::default());
        }
        if decimal.is_some() {
            return Ok(Self { decimal, unit });
        }
        let formatted: Vec<&str> = texts.iter().copied().filter(|text| is_plain(text).is_none()).collect();
        let with_point: Vec<&str> = texts.iter().copied().filter(|text| text.contains('.')).collect();
        let may_be_groups =
            !with_point.is_empty() && with_point.iter().all(|text| has_only_groups(text, Decimal::Comma));
        let readable = |decimal: Decimal| {
            let format = Self { decimal: Some(decimal), unit: unit.clone() };
            formatted.iter().filter(|text| format.parse(field, text).is_ok()).count()
        };
        let (as_comma, as_point) = (readable(Decimal::Comma), readable(Decimal::Point));
        // A few other texts are errors of their rows.
        let has_formatted_column = as_comma.max(as_point) * 10 >= texts.len().max(1);
        if !may_be_groups && !has_formatted_column {
            return Ok(Self::default());
        }
        let example = if has_formatted_column {
            formatted.iter().find(|text| text.contains(['.', ','])).or(formatted.first())
        } else {
            with_point.first()
        };
        let guess = match (has_formatted_column, as_comma.cmp(&as_point)) {
            (true, std::cmp::Ordering::Less) => Decimal::Point,
            (true, std::cmp::Ordering::Greater) | (false, _) => Decimal::Comma,
            (true, std::cmp::Ordering::Equal) => equal_guess(&formatted),
        };
        Err(needs_setting(column, example.copied().unwrap_or_default(), guess, &unit))
    }

    /// Number of a field's value: finite, and within the range of `f32`.
    pub fn read(&self, field: &str, value: &FieldValue<'_>) -> Result<f64, Diagnostic> {
        if let FieldValue::Json(raw) = value {
            match raw.get().as_bytes().first() {
                Some(b'[' | b'{' | b't' | b'f') => {
                    let type_name = value.type_name();
                    return Err(wrong_type(format!("`{field}` is {type_name}, and has to be a number such as 3.5")));
                }
                Some(b'"') => {}
                // Number literals of JSON have one meaning.
                _ => return is_plain(raw.get()).ok_or_else(|| number_expected(field, raw.get())),
            }
        }
        self.parse(field, &value.as_text(field)?)
    }

    fn parse(&self, field: &str, text: &str) -> Result<f64, Diagnostic> {
        let Some(decimal) = self.decimal else {
            return is_plain(text).ok_or_else(|| number_expected(field, text));
        };
        let number = WrittenNumber::parse(text).filter(|number| number.unit == self.unit);
        number.and_then(|number| number.value(decimal)).ok_or_else(|| number_expected(field, text))
    }
}

impl<'a> WrittenNumber<'a> {
    /// `None` for a text that does not begin and end with a digit apart from its sign and unit.
    fn parse(text: &'a str) -> Option<Self> {
        let is_unit = |character: char| matches!(character, '$' | '€' | '£' | '¥' | '%') || character.is_alphabetic();
        let is_space = |character: char| character.is_whitespace();
        let text = text.trim();
        let outer_sign = if text.starts_with(['-', '+']) { &text[..1] } else { "" };
        let unsigned = text[outer_sign.len()..].trim_start();
        let start = unsigned.trim_start_matches(|character| is_unit(character) || is_space(character));
        let inner_sign = if start.starts_with(['-', '+']) { &start[..1] } else { "" };
        let digits = start[inner_sign.len()..].trim_end_matches(|character| is_unit(character) || is_space(character));
        let unit_before = unsigned[..unsigned.len() - start.len()].trim();
        let unit_after = start[inner_sign.len() + digits.len()..].trim();
        let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.ends_with(|last: char| last.is_ascii_digit())
            && (outer_sign.is_empty() || inner_sign.is_empty());
        let sign = if outer_sign.is_empty() { inner_sign } else { outer_sign };
        is_number.then(|| Self { sign, digits, unit: format!("{unit_before}{unit_after}") })
    }

    fn value(&self, decimal: Decimal) -> Option<f64> {
        let (integer, fraction) = match self.digits.split_once(decimal.character()) {
            Some((integer, fraction)) => (integer, Some(fraction)),
            None => (self.digits, None),
        };
        let is_separator = |character: char| {
            character == decimal.group_character() || character == '\'' || character == '’' || character.is_whitespace()
        };
        let mut groups = integer.split(is_separator);
        let first = groups.next().unwrap_or_default();
        let rest: Vec<&str> = groups.collect();
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let are_groups = rest.is_empty() || (first.len() <= 3 && rest.iter().all(|group| group.len() == 3));
        let is_valid = is_digits(first)
            && are_groups
            && rest.iter().all(|group| is_digits(group))
            && fraction.is_none_or(is_digits);
        let number = format!("{}{first}{}.{}", self.sign, rest.concat(), fraction.unwrap_or("0"));
        is_plain(&number).filter(|_| is_valid)
    }
}

/// Number in the notation of programs, if it is within the range of `f32`.
fn is_plain(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX))
}

/// Whether the separators of a number can be those of groups of thousands, such as in `588.523`.
fn has_only_groups(text: &str, decimal: Decimal) -> bool {
    let digits = text.trim().trim_start_matches(['-', '+']);
    let mut groups = digits.split(decimal.group_character());
    let first = groups.next().unwrap_or_default();
    let are_digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && are_digits(first)
        && groups.all(|group| group.len() == 3 && are_digits(group))
}

/// Guess for numbers that both settings read: groups of thousands where every separator can be one.
fn equal_guess(formatted: &[&str]) -> Decimal {
    let digits = |text: &&str| WrittenNumber::parse(text).map(|number| number.digits.to_string()).unwrap_or_default();
    let has_comma_groups = formatted.iter().map(digits).all(|digits| has_only_groups(&digits, Decimal::Point));
    if has_comma_groups { Decimal::Point } else { Decimal::Comma }
}

fn needs_setting(column: &str, example: &str, guess: Decimal, unit: &str) -> Diagnostic {
    let read_as = |decimal: Decimal| {
        let format = NumberFormat { decimal: Some(decimal), unit: unit.to_string() };
        let value = format.parse("", example).ok()?;
        Some(format!("`\"decimal\": \"{}\"` reads {} as {value}", decimal.character(), quote(example)))
    };
    let other = match guess {
        Decimal::Point => Decimal::Comma,
        Decimal::Comma => Decimal::Point,
    };
    let readings: Vec<String> = [guess, other].into_iter().filter_map(read_as).collect();
    let likely = if readings.len() > 1 { " (the first is likely)" } else { "" };
    let unit_note = if unit.is_empty() { String::new() } else { format!("; the unit {} is left out", quote(unit)) };
    let message = format!(
        "the numbers in {} can be read in more than one way, or need their separators explained: {}{likely}{unit_note}",
        quote(column),
        readings.join(", ")
    );
    Diagnostic::new(diagnostics::NUMBER_FORMAT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(texts: &[&str], decimal: Option<Decimal>) -> Result<Vec<f64>, Diagnostic> {
        let format = NumberFormat::detect("value", "price", texts, decimal)?;
        texts.iter().map(|text| format.parse("value", text)).collect()
    }

    #[test]
    fn setting_explains_separators_and_units() {
        let (comma, point) = (Some(Decimal::Comma), Some(Decimal::Point));
        assert_eq!(parse_all(&["3,5", "-0,25", "7"], comma).unwrap(), [3.5, -0.25, 7.0]);
        assert_eq!(parse_all(&["588.523,00", "1.000"], comma).unwrap(), [588_523.0, 1000.0]);
        assert_eq!(parse_all(&["$588,523", "-$5", "$1,000.50"], point).unwrap(), [588_523.0, -5.0, 1000.5]);
        assert_eq!(parse_all(&["59%", "12 %"], point).unwrap(), [59.0, 12.0]);
        assert_eq!(parse_all(&["1 234,5 €", "2\u{a0}000 €"], comma).unwrap(), [1234.5, 2000.0]);
        for invalid in ["1.23,4", "1,2,3", "12 34", "a", "€", "5 $"] {
            assert!(parse_all(&["1", invalid], comma).is_err(), "{invalid}");
        }
    }

    #[test]
    fn plain_numbers_need_no_setting() {
        assert_eq!(parse_all(&["3.5", "0.125", "1e3", "-2"], None).unwrap(), [3.5, 0.125, 1000.0, -2.0]);
        assert_eq!(parse_all(&["(1.50)", "(2.75)"], None).unwrap_err().code, "wrong_type");
        assert_eq!(parse_all(&["0.143", "1.083"], None).unwrap(), [0.143, 1.083]);
        // One other text among many is the error of its row.
        let mut texts = vec!["1"; 20];
        texts.push("3,5");
        assert_eq!(parse_all(&texts, None).unwrap_err().code, "wrong_type");
    }

    #[test]
    fn ambiguous_columns_get_one_finding_with_the_guess() {
        let guess = |texts: &[&str]| parse_all(texts, None).unwrap_err().message;
        for (texts, expected) in [
            (&["3,8", "4,4"][..], "`\"decimal\": \",\"` reads \"3,8\" as 3.8"),
            (
                &["588.523", "592.136"],
                "`\"decimal\": \",\"` reads \"588.523\" as 588523, `\"decimal\": \".\"` reads \"588.523\" as 588.523",
            ),
            (&["$588,523", "$592,136"], "`\"decimal\": \".\"` reads \"$588,523\" as 588523, "),
            (&["588.523,00"], "`\"decimal\": \",\"` reads \"588.523,00\" as 588523"),
            (&["1,234.50"], "`\"decimal\": \".\"` reads \"1,234.50\" as 1234.5"),
            (&["59%", "88%"], "reads \"59%\" as 59"),
        ] {
            assert!(guess(texts).contains(expected), "{texts:?}: {}", guess(texts));
        }
        assert!(guess(&["$5", "€5"]).contains("different units"), "{}", guess(&["$5", "€5"]));
    }
}

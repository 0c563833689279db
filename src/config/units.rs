//! Values of settings: parsers of sizes (`64MiB`), durations (`500ms`), fractions and counts, and the default number of threads.

use std::time::Duration;

/// Parses a size in bytes: `4096`, `64KiB`, `256MiB`, `1GiB`; units without the `i` are powers of ten.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("B", 1),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1000 * 1000),
        ("GB", 1000 * 1000 * 1000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| "give a number of bytes, for example 64MiB".to_string())?;
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let factor = factor.ok_or_else(|| format!("\"{unit}\" is not a unit: use B, KiB, MiB, GiB, kB, MB or GB"))?;
    match number.checked_mul(factor) {
        Some(0) | None => Err("it must be between 1 byte and 16 EiB".to_string()),
        Some(bytes) => Ok(bytes),
    }
}

/// Parses a duration above zero: `500ms`, `30s`, `5m`, `1h`, `90d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| "give a duration, for example 30s or 500ms".to_string())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60 * 1000),
        "h" => number.checked_mul(3600 * 1000),
        "d" => number.checked_mul(24 * 3600 * 1000),
        _ => return Err(format!("\"{unit}\" is not a unit of time: use ms, s, m, h or d")),
    };
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 && milliseconds <= MAX_DURATION_MILLIS => {
            Ok(Duration::from_millis(milliseconds))
        }
        _ => Err("it must be between 1ms and one year".to_string()),
    }
}

/// Parses a size in bytes, or `off` as `None`.
pub fn parse_compression_size(text: &str) -> Result<CompressionSize, String> {
    match text.trim() {
        "off" => Ok(CompressionSize(None)),
        text => {
            parse_bytes(text).map(|bytes| CompressionSize(Some(bytes))).map_err(|error| format!("{error}; or \"off\""))
        }
    }
}

/// Size from which responses are compressed; `None` for never. A type of its own, because clap reads an `Option` as an optional flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionSize(pub Option<u64>);

/// Parses a duration, or `forever` as `None`.
pub fn parse_retention_time(text: &str) -> Result<RetentionTime, String> {
    match text.trim() {
        "forever" => Ok(RetentionTime(None)),
        text => parse_duration(text)
            .map(|time| RetentionTime(Some(time)))
            .map_err(|error| format!("{error}; or \"forever\"")),
    }
}

/// How long something is kept; `None` for ever. A type of its own, because clap reads an `Option` as an optional flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionTime(pub Option<Duration>);

/// Parses a fraction from 0 to 0.9.
pub fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.trim().parse().ok().filter(|fraction| (0.0..=0.9).contains(fraction));
    fraction.ok_or_else(|| "give a fraction between 0 and 0.9".to_string())
}

/// Parses a fraction from 0 to 1.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "give a fraction between 0 and 1".to_string())
}

/// Parses a count of at least 1.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1".to_string()),
        Ok(count) => Ok(count),
    }
}

/// Parses a size that must fit into the address space.
pub fn parse_bytes_in_memory(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| "that is more than this machine can address".to_string())
}

/// Returns the number of cores available to this process.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Longer durations could overflow later computations with `Instant`.
const MAX_DURATION_MILLIS: u64 = 366 * 24 * 3600 * 1000;

/// Splits a number from its unit.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_bytes_accepts_binary_and_decimal_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("2 MB"), Ok(2_000_000));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
    }

    #[test]
    fn errors_name_the_valid_units() {
        assert!(parse_bytes("64 miles").unwrap_err().contains("KiB"));
        assert!(parse_bytes("many").unwrap_err().contains("64MiB"));
        assert!(parse_bytes("99999999999GiB").unwrap_err().contains("between"));
        assert!(parse_bytes("0").is_err());
        assert!(parse_duration("5").unwrap_err().contains("ms, s, m, h or d"));
        assert!(parse_duration("0s").unwrap_err().contains("between"));
        assert!(parse_duration("99999999999999999h").unwrap_err().contains("between"));
    }

    #[test]
    fn parse_fraction_accepts_0_to_0_9() {
        assert_eq!([parse_fraction("0"), parse_fraction("0.25"), parse_fraction(" 0.9")], [Ok(0.0), Ok(0.25), Ok(0.9)]);
        assert!(["1", "-0.1", "NaN", "ten"].iter().all(|text| parse_fraction(text).is_err()));
    }

    #[test]
    fn parse_duration_requires_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
    }
}

//! Durations (`5m`, `1h30m`, `500ms`) and sizes (`64MiB`, `1GB`, `4096`) as people write them.

use std::time::Duration;

/// Text that is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnitError {
    /// Nothing was written.
    #[error("the value is empty; {expected}")]
    Empty {
        /// What would have been accepted.
        expected: &'static str,
    },
    /// No number where one should be.
    #[error("`{text}` does not start with a number; {expected}")]
    NoNumber {
        /// What was read.
        text: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// A number whose unit is missing.
    #[error("`{text}` has no unit; {expected}")]
    NoUnit {
        /// What was read.
        text: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// A unit that is not known.
    #[error("`{unit}` is not a unit; {expected}")]
    UnknownUnit {
        /// What was read.
        unit: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Does not fit.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was read.
        text: String,
    },
}

const DURATIONS: &str = "write a duration like 500ms, 30s, 5m, 1h30m or 7d";
const SIZES: &str = "write a size like 4096, 512KiB, 64MiB, 1GiB or 2TB";

/// Reads a duration: parts of whole numbers and `ms`, `s`, `m`, `h` or `d`; `0` alone is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, ParseUnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ParseUnitError::Empty {
            expected: DURATIONS,
        });
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ms: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = next_part(text, rest, DURATIONS)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => {
                return Err(ParseUnitError::NoUnit {
                    text: text.to_owned(),
                    expected: DURATIONS,
                });
            }
            _ => return Err(unknown(unit, DURATIONS)),
        };
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or_else(|| too_large(text))?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes: a whole number, alone or with a unit. `KiB`, `MiB`, `GiB`, `TiB` (or `K`,
/// `M`, `G`, `T`) are powers of 1024; `KB`, `MB`, `GB`, `TB` are powers of 1000.
pub fn parse_size(text: &str) -> Result<u64, ParseUnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ParseUnitError::Empty { expected: SIZES });
    }
    let (number, unit, after) = next_part(text, text, SIZES)?;
    if !after.is_empty() {
        return Err(unknown(&text[text.len() - after.len()..], SIZES));
    }
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(unknown(unit, SIZES)),
    };
    number.checked_mul(factor).ok_or_else(|| too_large(text))
}

/// The leading number, its unit, and what follows.
fn next_part<'a>(
    whole: &str,
    rest: &'a str,
    expected: &'static str,
) -> Result<(u64, &'a str, &'a str), ParseUnitError> {
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, rest) = rest.split_at(digits);
    if number.is_empty() {
        return Err(ParseUnitError::NoNumber {
            text: whole.to_owned(),
            expected,
        });
    }
    let number = number.parse().map_err(|_| too_large(whole))?;
    let rest = rest.trim_start();
    let letters = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Ok((number, unit.trim(), rest))
}

fn unknown(unit: &str, expected: &'static str) -> ParseUnitError {
    ParseUnitError::UnknownUnit {
        unit: unit.to_owned(),
        expected,
    }
}

fn too_large(text: &str) -> ParseUnitError {
    ParseUnitError::TooLarge {
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let ms = |text| parse_duration(text).unwrap().as_millis();
        assert_eq!(ms("500ms"), 500);
        assert_eq!(ms("30s"), 30_000);
        assert_eq!(ms("5m"), 300_000);
        assert_eq!(ms("1h30m"), 5_400_000);
        assert_eq!(ms(" 24h "), 86_400_000);
        assert_eq!(ms("7d"), 604_800_000);
        assert_eq!(ms("0"), 0);
    }

    #[test]
    fn bad_durations_say_what_is_wrong_and_what_would_be_right() {
        let message = |text| parse_duration(text).unwrap_err().to_string();
        assert_eq!(message("5"), format!("`5` has no unit; {DURATIONS}"));
        assert!(message("").starts_with("the value is empty"));
        assert!(message("-5m").contains("does not start with a number"));
        assert!(message("5 parsecs").contains("`parsecs` is not a unit"));
        assert!(message("1.5h").contains("`.` is not a unit"));
        assert!(message("99999999999999999999s").contains("too large"));
        assert!(message("99999999999999999d").contains("too large"));
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("64 MB"), Ok(64_000_000));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("2TB"), Ok(2_000_000_000_000));
        assert_eq!(parse_size("0"), Ok(0));
    }

    #[test]
    fn bad_sizes_say_what_is_wrong() {
        let message = |text| parse_size(text).unwrap_err().to_string();
        assert!(message("MiB").contains("does not start with a number"));
        assert!(message("64 pages").contains("`pages` is not a unit"));
        assert!(message("1MiB2KiB").contains("is not a unit"));
        assert!(message("99999999TiB").contains("too large"));
    }
}

//! Quantities as Kubernetes writes them: an integer or `10Gi`. The schema is ours, because the library's
//! accepts the text "ten" and carries a page of description at each use.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules;

/// Longest text of a quantity; keeps the cost of its rules bounded.
const MAX_LENGTH: u32 = 20;

/// An amount as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// `1073741824`
    Integer(i64),
    /// `1Gi`
    Text(String),
}

/// Text that is not a quantity, or one that is no count of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of bytes; write a quantity like 10Gi, 500M or 1073741824")]
pub struct ParseQuantityError(pub String);

impl Quantity {
    /// As Kubernetes objects carry it.
    pub fn to_kubernetes(&self) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(self.to_string())
    }

    /// Whole bytes; a fraction is rounded up, as Kubernetes does.
    pub fn bytes(&self) -> Result<u64, ParseQuantityError> {
        let text = match self {
            Self::Integer(number) => {
                return u64::try_from(*number).map_err(|_| self.unreadable());
            }
            Self::Text(text) => text.as_str(),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (numerator, denominator) = decimal(number).ok_or_else(|| self.unreadable())?;
        let (times, over) = scale(suffix).ok_or_else(|| self.unreadable())?;
        let scaled = numerator
            .checked_mul(times)
            .ok_or_else(|| self.unreadable())?;
        let whole = scaled.div_ceil(
            denominator
                .checked_mul(over)
                .ok_or_else(|| self.unreadable())?,
        );
        u64::try_from(whole).map_err(|_| self.unreadable())
    }

    fn unreadable(&self) -> ParseQuantityError {
        ParseQuantityError(self.to_string())
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// `1.25` as 125 over 100.
fn decimal(text: &str) -> Option<(u128, u128)> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 12 {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let numerator = digits.parse().ok()?;
    Some((
        numerator,
        10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?,
    ))
}

/// What a suffix multiplies by, and what it divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let decimal = |power: u32| Some((10_u128.pow(power), 1));
    let binary = |power: u32| Some((1_u128 << power, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_u128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, factor) } else { (factor, 1) })
        }
    }
}

/// One JSON schema for all of them; the rules differ.
fn schema(rules: serde_json::Value) -> Schema {
    let mut schema = json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": MAX_LENGTH,
    });
    schema.insert("x-kubernetes-validations".to_owned(), rules);
    schema
}

macro_rules! quantity_type {
    ($(#[$doc:meta])* $name:ident, $rules:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Quantity);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema($rules())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

quantity_type!(
    /// Of a resource: more than zero.
    Amount,
    rules::positive
);
quantity_type!(
    /// Of a volume: grows, never shrinks.
    StorageSize,
    rules::grows
);
quantity_type!(
    /// Bytes in a second.
    Rate,
    rules::rate
);
quantity_type!(
    /// Of a full chunk: never changes.
    ChunkSize,
    rules::chunk_size
);

quantity_type!(
    /// Of chunks that are packed: 0 packs none.
    PackLimit,
    rules::pack_limit
);

impl Default for ChunkSize {
    fn default() -> Self {
        "64Mi".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quantity_is_read_in_every_notation_that_kubernetes_knows() {
        for (text, bytes) in [
            ("1", 1),
            ("64Mi", 64 << 20),
            ("65536Ki", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("+2k", 2000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1500m", 2),
            (".5Ki", 512),
            ("2.", 2),
        ] {
            assert_eq!(Quantity::from(text).bytes(), Ok(bytes), "{text}");
        }
        assert_eq!(Quantity::Integer(21_474_836_480).bytes(), Ok(20 << 30));
    }

    #[test]
    fn what_is_no_count_of_bytes_is_refused() {
        for text in [
            "", "ten", "-1", "1GiB", "1 Gi", ".", "99999Ei", "1e99", "1e", "1.2.3", "Gi",
        ] {
            assert!(Quantity::from(text).bytes().is_err(), "{text}");
        }
        assert!(Quantity::Integer(-1).bytes().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,24}") {
            let _ = Quantity::from(text.as_str()).bytes();
        }
    }
}

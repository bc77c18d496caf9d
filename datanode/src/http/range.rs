//! The `Range` header of a chunk read: one range of bytes; anything else is the whole chunk.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everything.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that the chunk does not have.
    Unsatisfiable,
}

/// Reads a `Range` header against a chunk of `length` bytes. What is not one well-formed range of
/// bytes is ignored, as RFC 9110 allows.
pub fn parse(header: Option<&str>, length: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Number::Value(first), Number::Absent) if first < length => Wanted::Part(first..length),
        (Number::Value(first), Number::Value(last)) if first > last => Wanted::Whole,
        (Number::Value(first), Number::Value(last)) if first < length => {
            Wanted::Part(first..last.saturating_add(1).min(length))
        }
        (Number::Absent, Number::Value(last)) if last > 0 && length > 0 => {
            Wanted::Part(length.saturating_sub(last)..length)
        }
        (Number::Value(_), Number::Absent | Number::Value(_))
        | (Number::Absent, Number::Value(_)) => Wanted::Unsatisfiable,
        (Number::Absent, Number::Absent) | (Number::Garbage, _) | (_, Number::Garbage) => {
            Wanted::Whole
        }
    }
}

enum Number {
    Absent,
    Value(u64),
    Garbage,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        return Number::Absent;
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Number::Garbage;
    }
    // More digits than a u64 holds: beyond every chunk.
    Number::Value(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_29_ranges_at_the_edges_are_exact() {
        let part = |text| parse(Some(text), 10);
        assert_eq!(part("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(part("bytes=-5"), Wanted::Part(5..10));
        assert_eq!(part("bytes=-50"), Wanted::Part(0..10));
        assert_eq!(part("bytes=5-"), Wanted::Part(5..10));
        assert_eq!(part("bytes=9-9"), Wanted::Part(9..10));
        assert_eq!(part("bytes=3-99999999999999999999999"), Wanted::Part(3..10));
        assert_eq!(parse(None, 10), Wanted::Whole);
    }

    #[test]
    fn bad_input_30_ranges_outside_are_unsatisfiable() {
        for text in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(parse(Some(text), 10), Wanted::Unsatisfiable, "{text}");
        }
        for text in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(parse(Some(text), 0), Wanted::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn bad_input_31_ranges_that_make_no_sense_are_ignored() {
        for text in [
            "bytes=5-2",
            "bytes=-",
            "bytes=a-b",
            "lines=0-1",
            "",
            "bytes=0-1,3-4",
        ] {
            assert_eq!(parse(Some(text), 10), Wanted::Whole, "{text}");
        }
    }
}

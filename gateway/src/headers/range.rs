//! `Range` (RFC 9110 section 14), one range of bytes.
//!
//! Documented choices: a range that makes no sense (reversed, other unit, garbage) and several
//! ranges at once are ignored: the whole file is sent, as the RFC allows. A range that makes sense
//! and holds no byte of the file is 416.

use std::ops::Range;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// 200.
    Whole,
    /// 206 with these bytes; never empty.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Reads the header for a file of `size` bytes.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    header
        .and_then(|text| single_range(text, size))
        .unwrap_or(Wanted::Whole)
}

/// `None` for what is ignored.
fn single_range(text: &str, size: u64) -> Option<Wanted> {
    let (unit, ranges) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return None;
    }
    let (first, last) = ranges.trim().split_once('-')?;
    let part = if first.is_empty() {
        let suffix = number(last)?;
        size.saturating_sub(suffix)..size
    } else {
        let first = number(first)?;
        let end = match last {
            "" => size,
            last => {
                let last = number(last)?;
                if last < first {
                    return None;
                }
                last.saturating_add(1).min(size)
            }
        };
        first..end
    };
    Some(if part.start < part.end {
        Wanted::Part(part)
    } else {
        Wanted::Unsatisfiable
    })
}

/// Digits alone; a number beyond u64 is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(text: &str) -> Wanted {
        wanted(Some(text), 10)
    }

    #[test]
    fn bad_input_29_the_four_forms_of_one_range() {
        assert_eq!(of_ten("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(of_ten("bytes=-5"), Wanted::Part(5..10));
        assert_eq!(of_ten("bytes=5-"), Wanted::Part(5..10));
        assert_eq!(of_ten("bytes=9-9"), Wanted::Part(9..10));
        assert_eq!(of_ten("bytes=3-99"), Wanted::Part(3..10));
        assert_eq!(of_ten("bytes=-99"), Wanted::Part(0..10));
        assert_eq!(of_ten("Bytes=0-18446744073709551616"), Wanted::Part(0..10));
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    #[test]
    fn bad_input_30_ranges_without_a_byte_are_unsatisfiable() {
        for text in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(of_ten(text), Wanted::Unsatisfiable, "{text}");
        }
        for text in ["bytes=0-0", "bytes=0-", "bytes=-1"] {
            assert_eq!(wanted(Some(text), 0), Wanted::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn bad_input_31_nonsense_is_ignored() {
        for text in [
            "bytes=5-3",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "lines=1-2",
            "bytes=1--2",
            "bytes= 1 -2",
            "",
            "=",
            "bytes=--5",
        ] {
            assert_eq!(of_ten(text), Wanted::Whole, "{text}");
        }
    }

    #[test]
    fn bad_input_32_many_ranges_are_the_whole_file() {
        let many = format!("bytes={}", vec!["0-9"; 1000].join(","));
        assert_eq!(of_ten(&many), Wanted::Whole);
    }
}

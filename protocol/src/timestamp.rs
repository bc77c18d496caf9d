//! Moments in stored records. They are text, as jiff writes it; a listing reads two of them for each name, and a parser of
//! all that RFC 3339 and its kin allow had a seventh of its time.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Deserializer;
use serde::de::{Error, Visitor};

/// For `#[serde(deserialize_with)]`: takes whatever `Timestamp` takes.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    from.deserialize_str(Text)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
        match as_written(text.as_bytes()) {
            Some(moment) => Ok(moment),
            None => text.parse().map_err(E::custom),
        }
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.FRACTION]Z`; `None` for anything else.
fn as_written(text: &[u8]) -> Option<Timestamp> {
    let (seconds, rest) = text.split_first_chunk::<19>()?;
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        o1,
        o2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        m1,
        m2,
        b':',
        s1,
        s2,
    ] = seconds
    else {
        return None;
    };
    let nanoseconds = match rest {
        [b'Z'] => 0,
        [b'.', fraction @ .., b'Z'] if (1..=9).contains(&fraction.len()) => {
            let missing = 9 - u32::try_from(fraction.len()).ok()?;
            number(fraction)? * 10_i32.pow(missing)
        }
        _ => return None,
    };
    let small = |digits: &[u8]| i8::try_from(number(digits)?).ok();
    let civil = DateTime::new(
        i16::try_from(number(&[*y1, *y2, *y3, *y4])?).ok()?,
        small(&[*o1, *o2])?,
        small(&[*d1, *d2])?,
        small(&[*h1, *h2])?,
        small(&[*m1, *m2])?,
        // A leap second is the general parser's.
        small(&[*s1, *s2])?,
        nanoseconds,
    );
    Offset::UTC.to_timestamp(civil.ok()?).ok()
}

/// Of at most nine digits.
fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + i32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_written_like_this_is_left_to_the_general_parser() {
        for text in [
            "",
            "2026-11-28",
            "2026-11-28T00:00:00",
            "2026-11-28T00:00:00+01:00",
            "2026-11-28 00:00:00Z",
            "2026-11-28T00:00:00.Z",
            "2026-11-28T00:00:00.0123456789Z",
            "2026-02-30T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T23:59:60Z",
            "+002026-11-28T00:00:00Z",
            "2026-1/-28T00:00:00Z",
        ] {
            assert_eq!(as_written(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_as_it_was_written(
            second in Timestamp::MIN.as_second()..Timestamp::MAX.as_second(),
            nanosecond in prop_oneof![Just(0), 0..1_000_000_000_i32, (0..1000).prop_map(|ms| ms * 1_000_000)],
        ) {
            let moment = Timestamp::new(second, nanosecond).unwrap();
            let text = moment.to_string();
            prop_assert_eq!(as_written(text.as_bytes()).unwrap_or(moment), moment);
            // Years of four digits have no sign.
            prop_assert_eq!(as_written(text.as_bytes()).is_some(), !text.starts_with('-'));
            let json = serde_json::to_string(&text).unwrap();
            let read = deserialize(&mut serde_json::Deserializer::from_str(&json)).unwrap();
            prop_assert_eq!(read, moment);
        }

        #[test]
        fn a_changed_text_is_read_as_the_general_parser_reads_it_or_not_at_all(
            second in 0..4_000_000_000_i64,
            at in 0..20_usize,
            to in proptest::char::range(' ', '~'),
        ) {
            let mut text = Timestamp::new(second, 0).unwrap().to_string().into_bytes();
            text[at] = u8::try_from(to).unwrap();
            if let Some(moment) = as_written(&text) {
                let parsed: Timestamp = std::str::from_utf8(&text).unwrap().parse().unwrap();
                prop_assert_eq!(moment, parsed);
            }
        }
    }
}
